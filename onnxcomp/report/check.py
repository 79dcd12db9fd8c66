"""What `check` returns: for each gate whether a model passes, with the bound, the value and its interval."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxcomp.measure import Ratio
from onnxcomp.report.comparison import ScoreChange
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, counted, markdown_cell, markdown_table, one_line, table
from onnxcomp.target import Gates, told_apart

__all__ = ["CheckReport", "CheckSettings", "GateResult", "GateStatus", "GateUnit"]

GateStatus = Literal["passed", "failed", "undecided", "not measured"]
GateUnit = Literal["bytes", "ratio", "share", "dB"]

_HEAD = ("gate", "result", "bound", "value", "95 % interval", "samples")


@dataclass(frozen=True, slots=True)
class GateResult:
    """One bound, and what became of it.

    Attributes:
        name: As the option is called, or ``size-growth`` and the like for what is held against a saved baseline.
        status: ``undecided``: the interval holds the bound after the time allowed.
        unit: Of bound, value and interval.
        bound: What the value may be at most; at least, where the name begins with ``min``.
        value: What was measured; None: nothing was.
        low: Where the 95 % interval of the value begins; None: it has none.
        high: Where it ends; None: it has none.
        samples: That the value rests on; None: it does not rest on samples.
        reason: Why it is not passed; empty where it is.
    """

    name: str
    status: GateStatus
    unit: GateUnit
    bound: float
    value: float | None
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    reason: str = ""

    @classmethod
    def of_interval(
        cls, name: str, bound: float, figures: tuple[float, float, float], *, seconds: float
    ) -> "GateResult":
        """Judge a ratio of times by its interval: it fails only where all of that is over the bound.

        Args:
            name: Of the gate.
            bound: What the ratio may be at most.
            figures: The ratio, and where its interval begins and ends.
            seconds: That were allowed for the timing.
        """
        value, low, high = figures
        told = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        if low > bound:
            return cls(name, "failed", "ratio", bound, *figures, reason=f"{told} is over {bound:g}")
        if high > bound:
            reason = f"{told} holds the bound {bound:g}: not decided within {seconds:g} s"
            return cls(name, "undecided", "ratio", bound, *figures, reason=reason)
        return cls(name, "passed", "ratio", bound, *figures)

    def cells(self) -> tuple[str, ...]:
        """Return the row of a table: name, status, bound, value, interval, samples."""
        value = "-" if self.value is None else self._figure(self.value)
        known = self.low is not None and self.high is not None
        interval = f"[{self._figure(self.low)}, {self._figure(self.high)}]" if known else "-"  # type: ignore[arg-type]
        samples = "-" if self.samples is None else str(self.samples)
        bound = self._figure(self.bound, self.value)
        return (self.name, self.status, bound, value, interval, samples)

    def _figure(self, value: float, beside: float | None = None) -> str:
        """Write a value in the gate's unit; `beside`: what it must not look the same as, the bound if not given."""
        match self.unit:
            case "bytes":
                return bytes_text(int(value))
            case "dB":
                return f"{value:.1f} dB"
            case "ratio":
                return f"{value:.3f}"
            case _:
                return told_apart(value, self.bound if beside is None else beside)


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What a `check` was asked for.

    Attributes:
        gates: Bounds that the user named.
        strict: Whether what is undecided or not measured fails.
        against: The saved baseline that the figures are held against; None: none.
        tolerance: How much size and latency may grow against it, as a share.
        score_tolerance: How much score and agreement may fall against it.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run that were asked for.
        seconds: For the timing.
        seed: For every random choice.
    """

    gates: Gates
    strict: bool
    against: str | None
    tolerance: float
    score_tolerance: float
    threads: int
    batch: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class CheckReport(Document):
    """Everything that one `check` found out; saved as JSON it is a baseline for later ones.

    Attributes:
        model: The model that is checked.
        baseline: The original that it is held against; None: there is none.
        settings: What was asked for.
        results: One entry per gate.
        missed: Why the check fails, one sentence per gate; empty: it does not.
        size: Of the model, bytes on disk.
        baseline_size: Of the original; None: there is none.
        baseline_sha256: Of the original's file; None: it came from memory, or there is none.
        evaluation: What both ran on; None: they did not.
        agreement: Share of answers equal to the original's, of the worst output; None: not measured.
        sqnr: Of the worst float output, dB; None: not measured, or there is none.
        score: Of both; None: there are no labels.
        latency: The model's time per run over the original's; None: not measured.
        notes: What the reader should know.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "check"

    model: str
    baseline: str | None
    settings: CheckSettings
    results: tuple[GateResult, ...]
    missed: tuple[str, ...]
    size: int
    baseline_size: int | None
    baseline_sha256: str | None
    evaluation: str | None
    agreement: float | None
    sqnr: float | None
    score: ScoreChange | None
    latency: Ratio | None
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; there is nothing more to be told with `verbose`."""
        lines = [f" {name:10} {one_line(text)}" for name, text in self._models()]
        lines += ["", *table([_HEAD, *(result.cells() for result in self.results)]), ""]
        lines += [f" note    {one_line(note)}" for note in self.notes]
        lines += [f" {result.status:7} {one_line(text)}" for result, text in self._reasons()]
        return "\n".join([*lines, f" result  {self.verdict()}"]) + "\n"

    def markdown(self) -> str:
        """Return a table of the gates, for the page of a CI step or a comment on a change."""
        failed = bool(self.missed)
        rows = [(name, f"**{status}**", *rest) for name, status, *rest in (r.cells() for r in self.results)]
        lines = [
            f"### onnxcomp check: {'FAILED' if failed else 'passed'}",
            "",
            *(f"- {name}: {markdown_cell(one_line(text))}" for name, text in self._models()),
            "",
            *markdown_table(_HEAD, rows),
            "",
            *(f"- {result.status}: {markdown_cell(one_line(text))}" for result, text in self._reasons()),
            *(f"- note: {markdown_cell(one_line(note))}" for note in self.notes),
        ]
        return "\n".join(lines).rstrip() + f"\n\n{self.verdict()}\n"

    def verdict(self) -> str:
        """Return one sentence: how many gates pass, and which do not."""
        kinds: tuple[GateStatus, ...] = ("failed", "undecided", "not measured")
        named = {kind: [result.name for result in self.results if result.status == kind] for kind in kinds}
        others = "".join(f"; {kind}: {', '.join(names)}" for kind, names in named.items() if names)
        passed = sum(result.status == "passed" for result in self.results)
        return (
            f"{'FAILED' if self.missed else 'PASSED'}: {passed} of {counted(len(self.results), 'gate')} passed{others}"
        )

    def fails(self, result: GateResult) -> bool:
        """Say whether a gate's result makes the check fail."""
        return result.status == "failed" or (self.settings.strict and result.status != "passed")

    def _models(self) -> Iterable[tuple[str, str]]:
        yield "model", f"{self.model}  {bytes_text(self.size)}"
        if self.baseline is not None and self.baseline_size is not None:
            yield "baseline", f"{self.baseline}  {bytes_text(self.baseline_size)}"
        if self.evaluation is not None:
            yield "evaluation", self.evaluation
        if self.settings.against is not None:
            yield "against", self.settings.against

    def _reasons(self) -> Iterable[tuple[GateResult, str]]:
        for result in self.results:
            if result.reason:
                yield result, f"{result.name}: {result.reason}"
