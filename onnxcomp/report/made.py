"""What the reports of verbs that make one model in a named way have in common."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxcomp.measure import Ratio, Timing
from onnxcomp.passbase import Skip
from onnxcomp.pipeline import PassReport
from onnxcomp.report.anatomy import Anatomy
from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import bytes_text, count_text, decibels_text
from onnxcomp.report.parts import latency_row, metric_label, pass_lines, size_row, written_lines
from onnxcomp.search import Quality
from onnxcomp.target import Gates

__all__ = ["MadeReport", "TimedReport"]

_REASONS = 3  # that are shown without --verbose


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeReport(Document):
    """What was done to a model, and what that changed.

    Attributes:
        left: What is said of nodes that were left alone.
        model: Where the model came from.
        settings: Of the pass, where they differ from its defaults.
        calibration: The calibration samples; None: none were used.
        evaluation: What answers were judged on.
        metric: What scored them; None without labels.
        gates: Bounds that the result was held to.
        missed: Which of them it misses.
        seed: For every random choice.
        parameters: Elements of the original's weights.
        opset: Of the original.
        original_size: Bytes of the original.
        size: Bytes of the result.
        original_quality: Of the original; its score is the reference.
        quality: Of the result, loaded back from disk.
        cleanup: What each clean-up pass did.
        passes: What each pass of the verb did, with what it left alone.
        recipe: TOML of the recipe that reproduces the result.
        notes: What the reader should know.
        seconds: Wall-clock time of the whole run.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
        anatomy: Layers, storage, operators and activations, before and after; None: not looked at.
        output: The file that the model was written to; None: it was not.
    """

    left: ClassVar[str] = "left alone"

    model: str
    settings: Mapping[str, Any]
    calibration: str | None
    evaluation: str
    metric: str | None
    gates: Gates
    missed: tuple[str, ...]
    seed: int
    parameters: int
    opset: int
    original_size: int
    size: int
    original_quality: Quality
    quality: Quality
    cleanup: tuple[PassReport, ...]
    passes: tuple[PassReport, ...]
    recipe: str
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    created: str
    anatomy: Anatomy | None = None
    output: Written | None = None

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """The nodes that the verb's passes left alone, and why; each once."""
        return tuple(dict.fromkeys(skip for done in self.passes for skip in done.skipped))

    @property
    @abstractmethod
    def done(self) -> tuple[str, str]:
        """What each pass is called by, and what was done in all."""

    @abstractmethod
    def asked(self) -> Iterable[str]:
        """Yield the lines that say what was asked for."""

    def details(self, *, verbose: bool) -> Iterable[str]:
        """Yield what is shown below the passes; `verbose`: in full."""
        return ()

    def rows(self) -> Iterable[str]:
        """Yield the rows of the table between size and score."""
        return ()

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: also every node that was left alone, and why."""
        lines = [*self._head(), "", *self._work(verbose=verbose), "", *self._table(), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" missed  {miss}" for miss in self.missed]
        lines.append(f" result  {self.done[1]} in {self.seconds:.0f} s")
        lines += written_lines(self.output)
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _head(self) -> Iterable[str]:
        yield (
            f" input   {self.model}  {bytes_text(self.original_size)}  {count_text(self.parameters)} parameters  "
            f"opset {self.opset}"
        )
        yield from self.asked()
        yield f" evaluation   {self.evaluation}" + (f", {self.metric}" if self.metric else "")

    def _work(self, *, verbose: bool) -> Iterable[str]:
        made = [("cleanup", done) for done in self.cleanup] + [(self.done[0], done) for done in self.passes]
        yield from pass_lines(made, verbose=verbose)
        if (skipped := self.skipped) and not verbose:
            reasons = Counter(skip.reason for skip in skipped)
            found = "; ".join(f"{reason}: {count}" for reason, count in reasons.most_common(_REASONS))
            more = "; ..." if len(reasons) > _REASONS else ""
            yield f" {self.left}: {len(skipped)} ({found}{more}); -v names each"
        yield from self.details(verbose=verbose)

    def _table(self) -> Iterable[str]:
        yield f" {'':12} {'before':>12} {'after':>12}"
        yield size_row(self.original_size, self.size)
        yield from self.rows()
        before, after, gates = self.original_quality, self.quality, self.gates
        if before.score is not None and after.score is not None:
            change = f"{after.score - before.score:+.4f}"
            yield f" {metric_label(self.metric):12} {before.score:12.4f} {after.score:12.4f}   {change}" + _bound(
                "allowed drop", gates.max_drop
            )
        yield f" {'agreement':12} {'':12} {after.agreement:12.4f}  {_bound('bound', gates.min_agreement)}"
        yield f" {'SQNR':12} {'':12} {decibels_text(after.sqnr):>12}  {_bound('bound', gates.min_sqnr)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedReport(MadeReport):
    """The same of a model whose latency can be measured.

    Attributes:
        target: Where the result will run.
        threads: While timing.
        batch: Rows per run.
        latency: Result over original, timed in turns; None: not measured.
        original_seconds: Median time of one run of the original; None: not measured.
        seconds_per_run: Median time of one run of the result; None: not measured.
        machine: Processor, operating system and Python.
        timings: Of the original and of the result; empty: not measured.
    """

    target: str
    threads: int
    batch: int
    latency: Ratio | None
    original_seconds: float | None
    seconds_per_run: float | None
    machine: Mapping[str, str]
    timings: tuple[Timing, ...] = ()

    def rows(self) -> Iterable[str]:
        """See `MadeReport.rows`."""
        if self.original_seconds is not None and self.seconds_per_run is not None:
            yield latency_row(self.original_seconds, self.seconds_per_run, self.latency)


def _bound(word: str, bound: float | None) -> str:
    return "" if bound is None else f"  {word} {bound:g}"
