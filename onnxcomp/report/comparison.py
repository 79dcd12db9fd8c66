"""What `compare` returns: how close a model's answers are to another's, how good both are, and under disturbance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.metrics import OutputFidelity
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, counted, decibels_text, table
from onnxcomp.report.robustness import Robustness, robustness_rows
from onnxcomp.target import Gates

__all__ = ["CompareReport", "LayerFidelity", "ScoreChange"]

_EXACT = 80.0  # dB; rounding of float32 alone makes less noise than that
_WORST = 10  # layers that the text shows


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
        gained: Answers that the candidate alone has right; None: the score is no share of right answers.
        lost: Answers that the reference alone has right.
        p_value: McNemar's exact test: how likely so uneven a split of them is where neither model is better.
    """

    metric: str
    reference: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    method: str
    samples: int
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class LayerFidelity:
    """How close one inner tensor is, run as the graphs are written.

    Attributes:
        tensor: Its name, which is the same in both models.
        node: What makes it in the reference.
        op_type: Of that node.
        sqnr: dB.
        before: SQNR of the worst tensor that it is made from, dB; infinite where the node reads inputs alone.
    """

    tensor: str
    node: str
    op_type: str
    sqnr: float
    before: float


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
        layers: Inner tensors of the same name, in the order of the reference, where that was asked for.
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
    layers: tuple[LayerFidelity, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: every layer that was compared, not those that lose most."""
        lines = [
            f" reference  {self.reference}  {bytes_text(self.reference_size)}",
            f" candidate  {self.candidate}  {bytes_text(self.candidate_size)}",
            f" evaluation {self.evaluation}",
            "",
            *table([*self._outputs()]),
            "",
        ]
        if self.score:
            lines += [
                *table([*_score(self.score)]),
                f" {self.score.method}, {counted(self.score.samples, 'sample')}",
                "",
            ]
        if self.robustness:
            lines += [*table([*robustness_rows(self.robustness, ("reference", "candidate"))]), ""]
        if self.layers:
            lines += [*table([*self._layers(verbose=verbose)]), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" missed  {miss}" for miss in self.missed]
        lines += [f" result  {line}" for line in self._verdict()]
        return "\n".join(lines) + "\n"

    def _outputs(self) -> Iterable[list[str]]:
        yield ["output", "SQNR", "cosine", "max error", "agreement", "answers"]
        for name, found in self.outputs.items():
            yield [
                name,
                "-" if found.sqnr is None else decibels_text(found.sqnr),
                "-" if found.cosine is None else f"{found.cosine:.6f}",
                "-" if found.max_error is None else f"{found.max_error:.4g}",
                f"{found.agreement:.4f}",
                str(found.rows),
            ]

    def _layers(self, *, verbose: bool) -> Iterable[list[str]]:
        yield ["layer", "makes", "SQNR", "of what it reads"]
        worst = sorted(self.layers, key=lambda layer: layer.sqnr - min(layer.before, _EXACT))[:_WORST]
        for layer in self.layers:
            if verbose or (layer in worst and layer.sqnr < min(layer.before, _EXACT)):
                yield [
                    f"{layer.op_type} {layer.node}",
                    layer.tensor,
                    decibels_text(layer.sqnr),
                    decibels_text(layer.before),
                ]

    def _verdict(self) -> Iterable[str]:
        yield f"{100 * self.agreement:.2f} % of the answers are the same"
        first = next((layer for layer in self.layers if layer.sqnr < _EXACT), None)
        if first is not None:
            yield f"the error starts at {first.op_type} {first.node}: {decibels_text(first.sqnr)}"
        elif self.layers:
            yield f"no inner tensor is under {_EXACT:g} dB"
        score = self.score
        if score is not None and score.p_value is not None:
            yield (
                f"{score.metric}: right in the candidate alone {counted(score.gained or 0, 'answer')}, in the "
                f"reference alone {score.lost}: p = {score.p_value:.3g} (McNemar's exact test)"
            )
        if score is not None and score.low is not None and score.high is not None:
            if score.low > 0 or score.high < 0:
                yield f"{score.metric} is {'better' if score.low > 0 else 'worse'} by {abs(score.difference):.4f}"
            else:
                yield f"no difference of {score.metric} is proven: the interval holds 0"


def _score(score: ScoreChange) -> Iterable[list[str]]:
    yield ["score", "reference", "candidate", "difference", "95 % interval"]
    interval = "-" if score.low is None or score.high is None else f"[{score.low:+.4f}, {score.high:+.4f}]"
    yield [score.metric, f"{score.reference:.4f}", f"{score.candidate:.4f}", f"{score.difference:+.4f}", interval]
