"""What `compare` returns: how close a model's answers are to another's, how good both are, and under disturbance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.metrics import OutputFidelity
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, table
from onnxcomp.target import Gates

__all__ = ["CompareReport", "Robustness", "ScoreChange"]


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """The metric's value of both models, and the difference with its 95 % confidence interval.

    Attributes:
        metric: Its name.
        reference: The reference's score.
        candidate: The candidate's.
        difference: The candidate's minus the reference's.
        low: Where the interval of the difference begins; None: not known.
        high: Where it ends; None: not known.
        method: How the interval was made.
        samples: How many there are: answers for top1 and top5, else runs.
    """

    metric: str
    reference: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    method: str
    samples: int


@dataclass(frozen=True, slots=True)
class Robustness:
    """What a disturbance of the inputs does to both models.

    Attributes:
        perturbation: Its kind, as in ``noise``.
        strength: As a share of the standard deviation of each input.
        agreement: Share of equal answers of both models to disturbed inputs.
        reference_kept: Share of the reference's answers that the disturbance does not change.
        candidate_kept: The same of the candidate's.
        reference_score: On disturbed inputs, for top1 and top5; None: not known.
        candidate_score: The same of the candidate.
    """

    perturbation: str
    strength: float
    agreement: float
    reference_kept: float
    candidate_kept: float
    reference_score: float | None
    candidate_score: float | None


@dataclass(frozen=True, slots=True)
class CompareReport(Document):
    """Everything that one `compare` found out.

    Attributes:
        reference: The model that the other is held against.
        candidate: The other.
        reference_size: Bytes on disk.
        candidate_size: Bytes on disk.
        evaluation: What both ran on.
        runs: How many that were.
        seed: For made-up inputs, disturbances and the bootstrap.
        by_position: Whether inputs and outputs were paired by their order.
        gates: Bounds that the user named.
        missed: Which of them the candidate misses.
        agreement: Of the worst output.
        sqnr: Of the worst float output, dB.
        outputs: How close each output is, by the reference's name.
        score: Of both; None: there are no labels.
        robustness: One entry per disturbance that was asked for.
        notes: What the reader should know.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "compare"

    reference: str
    candidate: str
    reference_size: int
    candidate_size: int
    evaluation: str
    runs: int
    seed: int
    by_position: bool
    gates: Gates
    missed: tuple[str, ...]
    agreement: float
    sqnr: float
    outputs: Mapping[str, OutputFidelity]
    score: ScoreChange | None
    robustness: tuple[Robustness, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; there is nothing more to be told with `verbose`."""
        lines = [
            f" reference  {self.reference}  {bytes_text(self.reference_size)}",
            f" candidate  {self.candidate}  {bytes_text(self.candidate_size)}",
            f" evaluation {self.evaluation}",
            "",
            *table([*self._outputs()]),
            "",
        ]
        if self.score:
            lines += [*table([*_score(self.score)]), f" {self.score.method}, {self.score.samples} samples", ""]
        if self.robustness:
            lines += [*table([*self._robustness()]), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" missed  {miss}" for miss in self.missed]
        lines += [f" result  {line}" for line in self._verdict()]
        return "\n".join(lines) + "\n"

    def _outputs(self) -> Iterable[list[str]]:
        yield ["output", "SQNR", "cosine", "max error", "agreement", "answers"]
        for name, found in self.outputs.items():
            yield [
                name,
                "-" if found.sqnr is None else f"{found.sqnr:.1f} dB",
                "-" if found.cosine is None else f"{found.cosine:.6f}",
                "-" if found.max_error is None else f"{found.max_error:.4g}",
                f"{found.agreement:.4f}",
                str(found.rows),
            ]

    def _robustness(self) -> Iterable[list[str]]:
        scored = any(found.reference_score is not None for found in self.robustness)
        heads = ["disturbed by", "agreement", "reference keeps", "candidate keeps"]
        yield [*heads, "reference scores", "candidate scores"] if scored else heads
        for found in self.robustness:
            shares = (found.agreement, found.reference_kept, found.candidate_kept)
            row = [f"{found.perturbation} {found.strength:g}", *(f"{share:.4f}" for share in shares)]
            scores = (found.reference_score, found.candidate_score)
            yield [*row, *("-" if score is None else f"{score:.4f}" for score in scores)] if scored else row

    def _verdict(self) -> Iterable[str]:
        yield f"{100 * self.agreement:.2f} % of the answers are the same"
        score = self.score
        if score is not None and score.low is not None and score.high is not None:
            if score.low > 0 or score.high < 0:
                yield f"{score.metric} is {'better' if score.low > 0 else 'worse'} by {abs(score.difference):.4f}"
            else:
                yield f"no difference of {score.metric} is proven: the interval holds 0"


def _score(score: ScoreChange) -> Iterable[list[str]]:
    yield ["score", "reference", "candidate", "difference", "95 % interval"]
    interval = "-" if score.low is None or score.high is None else f"[{score.low:+.4f}, {score.high:+.4f}]"
    yield [score.metric, f"{score.reference:.4f}", f"{score.candidate:.4f}", f"{score.difference:+.4f}", interval]
