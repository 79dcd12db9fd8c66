"""The report of `optimize` on several models: one line per model, those that failed among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxcomp.errors import EnvironmentUnavailable, GateFailed, ModelError, OnnxCompError, UsageError
from onnxcomp.measure import Ratio
from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import counted, markdown_cell, markdown_table, table

__all__ = ["ModelResult", "OptimizeManyReport"]

_KINDS: dict[int, type[OnnxCompError]] = {
    kind.exit_code: kind for kind in (OnnxCompError, GateFailed, UsageError, ModelError, EnvironmentUnavailable)
}
_HEAD = ("model", "size", "latency", "score", "agreement", "result")


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What became of one model.

    Attributes:
        model: Where it came from.
        exit_code: What the command would have ended with for this model alone; 0: it was written.
        failure: Why nothing was written; None: it was.
        hint: What can be done about that.
        traceback: Where a bug of ours struck, for a report of it; None: none did.
        winner: Name of the candidate that was written; None: the original, or nothing.
        size_ratio: Size over the original's.
        latency: Time over the original's; None: not timed, or the original was written.
        score_before: The original's score; None without labels.
        score: Of what was written, on the same samples.
        agreement: Share of its answers that equal the original's.
        seconds: Wall-clock time of its run.
        output: The file that was written.
        report: Everything that was measured, as the report of this model alone has it; None: there is none.
    """

    model: str
    exit_code: int = 0
    failure: str | None = None
    hint: str | None = None
    traceback: str | None = None
    winner: str | None = None
    size_ratio: float | None = None
    latency: Ratio | None = None
    score_before: float | None = None
    score: float | None = None
    agreement: float | None = None
    seconds: float = 0.0
    output: Written | None = None
    report: Mapping[str, Any] | None = None

    @property
    def fate(self) -> str:
        """What became of it, in a few words."""
        if self.failure is not None:
            return f"failed (exit code {self.exit_code})"
        return self.winner or "the original, unchanged"


@dataclass(frozen=True, slots=True)
class OptimizeManyReport(Document):
    """What `optimize` made of several models.

    Attributes:
        models: One entry per model, in the order in which they were worked on.
        output: Folder of what was written.
        seconds: Wall-clock time of all.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "optimize-many"

    models: tuple[ModelResult, ...]
    output: str
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str

    @property
    def failed(self) -> tuple[ModelResult, ...]:
        """The models for which nothing was written."""
        return tuple(model for model in self.models if model.failure is not None)

    @property
    def exit_code(self) -> int:
        """0 where all models were written, else the largest of their codes."""
        return max(model.exit_code for model in self.models)

    def check(self) -> None:
        """Raise an error where a model failed.

        Raises:
            OnnxCompError: Of the kind that has the largest of their exit codes.
        """
        if failed := self.failed:
            names = ", ".join(one.model for one in failed)
            raise _KINDS[self.exit_code](
                f"{len(failed)} of {counted(len(self.models), 'model')} failed: {names}",
                hint="the report says why; the others are written" if len(failed) < len(self.models) else None,
            )

    def render(self, *, verbose: bool = False) -> str:
        """Return the table of models, and what failed and why."""
        return "\n".join(self._lines()) + "\n"

    def markdown(self) -> str:
        """Return the table of models."""
        rows = ((markdown_cell(row[0]), *row[1:-1], markdown_cell(row[-1])) for row in map(_row, self.models))
        failures = [f"- {markdown_cell(f'{one.model}: {one.failure}')}" for one in self.failed]
        return "\n".join(["### onnxcomp optimize", "", *markdown_table(_HEAD, rows), "", *failures]).rstrip() + "\n"

    def _lines(self) -> Iterable[str]:
        rows = [_row(one) for one in self.models]
        aligned = table([_HEAD[:-1], *(row[:-1] for row in rows)])
        yield from (
            f"{line}  {fate}" for line, fate in zip(aligned, (_HEAD[-1], *(row[-1] for row in rows)), strict=True)
        )
        yield " size and latency are shares of the original's"
        for one in self.failed:
            yield f" failed  {one.model}: {one.failure}"
            if one.hint:
                yield f"         {one.hint}"
            if one.traceback:
                yield one.traceback.rstrip()
        written = f"{len(self.models) - len(self.failed)} of {counted(len(self.models), 'model')}"
        yield f" result  {written} written to {self.output} ({self.seconds:.0f} s in all)"


def _row(one: ModelResult) -> tuple[str, ...]:
    score = "-"
    if one.score is not None and one.score_before is not None:
        score = f"{one.score_before:.4f} -> {one.score:.4f}"
    return (
        one.model,
        "-" if one.size_ratio is None else f"{one.size_ratio:.3f}",
        "-" if one.latency is None else f"{one.latency.ratio:.3f}",
        score,
        "-" if one.agreement is None else f"{one.agreement:.4f}",
        one.fate,
    )
