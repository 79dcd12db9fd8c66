"""The report of `quantize`: what became integer, what stayed float and why, and what that changed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxcomp.measure import Ratio
from onnxcomp.passbase import Skip
from onnxcomp.pipeline import PassReport
from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import bytes_text, count_text
from onnxcomp.report.parts import latency_row, pass_lines, size_row, written_lines
from onnxcomp.search import Quality
from onnxcomp.target import Gates

__all__ = ["QuantizeReport"]


@dataclass(frozen=True, slots=True)
class QuantizeReport(Document):
    """Everything that one `quantize` did and measured.

    Attributes:
        model: Where the model came from.
        mode: How it was quantized.
        settings: Of the quantizing pass, where they differ from its defaults.
        target: Where the result will run.
        calibration: The samples behind the activation ranges; None: the mode needs none.
        statistics: When these samples were measured, where that was before; None: in this run, or never.
        evaluation: What answers were judged on.
        metric: What scored them; None without labels.
        gates: Bounds that the user named.
        missed: Which of them the result misses.
        threads: While timing.
        batch: Rows per run.
        seed: For every random choice.
        parameters: Elements of the original's weights.
        opset: Of the original.
        original_size: Bytes of the original.
        size: Bytes of the result.
        original_quality: Of the original; its score is the reference.
        quality: Of the result, loaded back from disk.
        latency: Result over original, timed in turns; None: not measured.
        original_seconds: Median time of one run of the original; None: not measured.
        seconds_per_run: Median time of one run of the result; None: not measured.
        cleanup: What each clean-up pass did.
        passes: What each pass of the mode did, with what it left float.
        recipe: TOML of the recipe that reproduces the result.
        notes: What the reader should know.
        seconds: Wall-clock time of the whole run.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
        output: The file that the model was written to; None: it was not.
    """

    kind: ClassVar[str] = "quantize"

    model: str
    mode: str
    settings: Mapping[str, Any]
    target: str
    calibration: str | None
    statistics: str | None
    evaluation: str
    metric: str | None
    gates: Gates
    missed: tuple[str, ...]
    threads: int
    batch: int
    seed: int
    parameters: int
    opset: int
    original_size: int
    size: int
    original_quality: Quality
    quality: Quality
    latency: Ratio | None
    original_seconds: float | None
    seconds_per_run: float | None
    cleanup: tuple[PassReport, ...]
    passes: tuple[PassReport, ...]
    recipe: str
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str
    output: Written | None = None

    @property
    def left_float(self) -> tuple[Skip, ...]:
        """The nodes that the mode's passes left alone, and why."""
        return tuple(skip for done in self.passes for skip in done.skipped)

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose`: also every node that stayed float, and why."""
        lines = [*self._head(), "", *self._work(verbose=verbose), "", *self._table(), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" missed  {miss}" for miss in self.missed]
        lines.append(f" result  {self.mode} quantization in {self.seconds:.0f} s")
        lines += written_lines(self.output)
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _head(self) -> Iterable[str]:
        yield (
            f" input   {self.model}  {bytes_text(self.original_size)}  {count_text(self.parameters)} parameters  "
            f"opset {self.opset}"
        )
        settings = ", ".join(f"{name} = {value}" for name, value in self.settings.items())
        yield f" mode    {self.mode}{f' ({settings})' if settings else ''}      target  {self.target}"
        if self.calibration:
            measured = f" (measured {self.statistics})" if self.statistics else ""
            yield f" calibration  {self.calibration}{measured}"
        yield f" evaluation   {self.evaluation}" + (f", {self.metric}" if self.metric else "")

    def _work(self, *, verbose: bool) -> Iterable[str]:
        made = [("cleanup", done) for done in self.cleanup]
        made += [(self.mode, done) for done in self.passes]
        yield from pass_lines(made, verbose=verbose)
        if self.left_float and not verbose:
            reasons = Counter(skip.reason for skip in self.left_float)
            counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
            more = ", ..." if len(reasons) > 3 else ""
            yield f" left float: {len(self.left_float)} ({counted}{more}); -v names each"

    def _table(self) -> Iterable[str]:
        yield f" {'':12} {'before':>12} {'after':>12}"
        yield size_row(self.original_size, self.size)
        if self.original_seconds is not None and self.seconds_per_run is not None:
            yield latency_row(self.original_seconds, self.seconds_per_run, self.latency)
        before, after, gates = self.original_quality, self.quality, self.gates
        if before.score is not None and after.score is not None:
            change = f"{after.score - before.score:+.4f}"
            yield f" {self.metric or 'score':12} {before.score:12.4f} {after.score:12.4f}   {change}" + _bound(
                "allowed drop", gates.max_drop
            )
        yield f" {'agreement':12} {'':12} {after.agreement:12.4f}  {_bound('bound', gates.min_agreement)}"
        yield f" {'SQNR':12} {'':12} {after.sqnr:9.1f} dB  {_bound('bound', gates.min_sqnr)}"


def _bound(word: str, bound: float | None) -> str:
    return "" if bound is None else f"  {word} {bound:g}"
