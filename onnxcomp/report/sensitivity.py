"""The report of `sensitivity`: what each unit harms and saves, alone and together, and what to leave out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import (
    bytes_text,
    counted,
    decibels_text,
    markdown_cell,
    markdown_table,
    seconds_text,
    table,
)
from onnxcomp.report.parts import written_lines
from onnxcomp.search import LeftOut, Quality, UnitHarm
from onnxcomp.target import Budget, Goal

__all__ = ["SensitivityReport"]

_SHOWN = 20  # units, without `verbose`
_PER: Mapping[Goal, str] = {"latency": "ms", "size": "MB", "balanced": "%"}


@dataclass(frozen=True, slots=True)
class SensitivityReport(Document):
    """Everything that one `sensitivity` measured.

    Attributes:
        model: Where the model came from.
        technique: TOML of the recipe whose units are compared, clean-up left out.
        goal: What a saving is: milliseconds, megabytes, or the percent of both.
        target: Where the model will run.
        calibration: The samples behind activation ranges; None: none were needed.
        statistics: When these samples were measured, where that was before; None: in this run, or never.
        noise_samples: What the noise was measured on.
        evaluation: What answers were judged on.
        metric: What scored them; None without labels.
        budget: That answers are to keep.
        threads: While timing.
        batch: Rows per run.
        seed: For every random choice.
        opset: Of the original.
        original_size: Bytes of the original.
        size: Bytes with all units rewritten.
        seconds_before: Of one run of the cleaned-up model: the sum of onnxruntime's profile.
        seconds_after: The same with all units rewritten.
        original_quality: Of the original; its score is the reference.
        units: Those of the most harm per saving first; of those that save nothing, the most harmful first.
        together: What is left of harm and savings, from nothing left out to everything.
        exclude: Names of the nodes to leave out so that the budget is kept; None: that is not enough.
        recipe: TOML of a recipe that does that, clean-up included.
        cut_short: Whether time ran out before all was ordered and judged.
        notes: What the reader should know.
        seconds: Wall-clock time of the whole run.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
        output: The file that this was written to; None: it was not.
    """

    kind: ClassVar[str] = "sensitivity"

    model: str
    technique: str
    goal: Goal
    target: str
    calibration: str | None
    statistics: str | None
    noise_samples: str
    evaluation: str
    metric: str | None
    budget: Budget
    threads: int
    batch: int
    seed: int
    opset: int
    original_size: int
    size: int
    seconds_before: float
    seconds_after: float
    original_quality: Quality
    units: tuple[UnitHarm, ...]
    together: tuple[LeftOut, ...]
    exclude: tuple[str, ...] | None
    recipe: str
    cut_short: bool
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str
    output: Written | None = None

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose`: also the units that the two tables leave out."""
        lines = [*self._head(), "", *table([self._unit_heads(), *self._units(verbose=verbose)])]
        if (hidden := len(self.units) - _SHOWN) > 0 and not verbose:
            lines.append(f" and {hidden} more (--verbose)")
        if any(unit.quality is None for unit in self.units):
            lines.append(" -: not judged alone on the evaluation samples; the most harmful units are")
        lines += ["", *table([self._together_heads(), *self._together(verbose=verbose)]), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" result  {self._verdict()}"]
        if self.exclude:
            lines += [" exclude " + ", ".join(f'"{name}"' for name in self.exclude)]
        lines += written_lines(self.output)
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def markdown(self) -> str:
        """Return both tables as Markdown."""
        lines = [
            f"### onnxcomp sensitivity: {markdown_cell(self.model)}",
            "",
            *markdown_table(self._unit_heads(), self._units(verbose=True)),
            "",
            *markdown_table(self._together_heads(), self._together(verbose=False)),
            "",
            *(f"- {markdown_cell(note)}" for note in self.notes),
            f"- {markdown_cell(self._verdict())}",
            "",
            *(["```toml", f"exclude = {list(self.exclude)}".replace("'", '"'), "```"] if self.exclude else []),
        ]
        return "\n".join(lines).rstrip() + "\n"

    def _head(self) -> Iterable[str]:
        yield f" input   {self.model}  {bytes_text(self.original_size)}  opset {self.opset}"
        threads = f"{self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"
        yield f" target  {self.target} (this machine), {threads}      goal  {self.goal}"
        if self.calibration:
            yield f" calibration  {self.calibration}"
        yield f" noise on     {self.noise_samples}"
        yield f" evaluation   {self.evaluation}" + (f", {self.metric}" if self.metric else "")
        yield (
            f" all rewritten: {bytes_text(self.size)}, {seconds_text(self.seconds_before)} -> "
            f"{seconds_text(self.seconds_after)} in the profile"
        )

    def _unit_heads(self) -> list[str]:
        heads = ["unit", "operator", "nodes", "SQNR alone", "saves", "saves bytes", f"harm / {_PER[self.goal]}"]
        return [*heads, *self._quality_heads()]

    def _units(self, *, verbose: bool) -> Iterable[list[str]]:
        for unit in self.units if verbose else self.units[:_SHOWN]:
            yield [
                unit.name,
                unit.op_type,
                str(len(unit.nodes)),
                decibels_text(unit.sqnr),
                seconds_text(unit.seconds),
                f"{unit.bytes / 1e3:.1f} kB",
                f"{unit.harm:.2g}" if math.isfinite(unit.harm) else "saves none",
                *self._quality(unit.quality),
            ]

    def _together_heads(self) -> list[str]:
        return ["left out", "the last one", "SQNR", "save", "save bytes", *self._quality_heads(), "budget"]

    def _together(self, *, verbose: bool) -> Iterable[list[str]]:
        for found in self.together:
            judged = found.quality is not None
            if not (verbose or judged or found.units in (0, len(self.units))):
                continue
            yield [
                f"{found.units} of {len(self.units)}",
                found.last,
                "-" if found.sqnr is None else decibels_text(found.sqnr),
                seconds_text(found.seconds),
                f"{found.bytes / 1e3:.1f} kB",
                *self._quality(found.quality),
                found.objection or ("kept" if judged else "not judged"),
            ]

    def _quality_heads(self) -> list[str]:
        return [
            *([self.metric or "score"] if self.original_quality.score is not None else []),
            "agreement",
            "judged SQNR",
        ]

    def _quality(self, found: Quality | None) -> list[str]:
        scored = self.original_quality.score is not None
        if found is None:
            return ["-"] * (3 if scored else 2)
        change = (
            []
            if found.score is None or self.original_quality.score is None
            else [f"{found.score - self.original_quality.score:+.4f}"]
        )
        return [*change, f"{found.agreement:.4f}", decibels_text(found.sqnr)]

    def _verdict(self) -> str:
        count = len(self.units)
        if self.exclude is None:
            return f"no choice that was tried keeps the budget: {self._whole_objection()}"
        if not self.exclude:
            return f"{counted(count, 'unit')}: all can be rewritten inside the budget"
        left = next(found.units for found in self.together if found.quality and found.objection is None)
        return f"the budget is kept without the first {left} of {counted(count, 'unit')}, left out in this order"

    def _whole_objection(self) -> str:
        return next((found.objection for found in self.together if found.objection), "nothing was judged")
