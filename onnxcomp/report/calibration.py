"""The report of `calibrate`: what was measured on what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import counted, table
from onnxcomp.report.parts import written_lines
from onnxcomp.statistics import Range

__all__ = ["CalibrateReport"]


@dataclass(frozen=True, slots=True)
class CalibrateReport(Document):
    """What one `calibrate` measured.

    Attributes:
        model: Where the model came from.
        fingerprint: Of the cleaned-up model: the statistics are for this one alone.
        samples: Where the samples came from.
        runs: How many runs of the model were measured.
        tensors: Extremes by tensor name.
        infinite: The tensors that take infinite values.
        notes: What the reader should know.
        seconds: Wall-clock time of the whole run.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
        output: The file that the statistics were written to; None: they were not.
    """

    kind: ClassVar[str] = "calibrate"

    model: str
    fingerprint: str
    samples: str
    runs: int
    tensors: Mapping[str, Range]
    infinite: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str
    output: Written | None = None

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose`: also the extremes of every tensor."""
        return "\n".join(self._lines(verbose=verbose)) + "\n"

    def _lines(self, *, verbose: bool) -> Iterable[str]:
        yield f" input   {self.model}"
        yield f" calibration  {self.samples}"
        if verbose:
            rows = [(name, f"{found.low:.6g}", f"{found.high:.6g}") for name, found in self.tensors.items()]
            yield from ("", *table([("tensor", "least", "most"), *rows]), "")
        yield from (f" note    {note}" for note in self.notes)
        tensors, runs = counted(len(self.tensors), "tensor"), counted(self.runs, "run")
        yield f" result  {tensors} measured in {runs} ({self.seconds:.0f} s in all)"
        yield from written_lines(self.output)
