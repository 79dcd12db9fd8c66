"""What `bundle` returns: what it wrote, and what to do with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.measure import MEASUREMENTS, SCRIPT, BundledModel
from onnxcomp.report.benchmark import BenchSettings
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, counted, table

__all__ = ["BundleReport"]


@dataclass(frozen=True, slots=True)
class BundleReport(Document):
    """What one bundle holds.

    Attributes:
        folder: Where it was written.
        purpose: The command that takes the measurements.
        settings: How the models are to be timed.
        shapes: Of the inputs that are timed, by name.
        models: The first is what the others are compared with.
        notes: What the reader should know.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "bundle"

    folder: str
    purpose: str
    settings: BenchSettings
    shapes: Mapping[str, tuple[int, ...]]
    models: tuple[BundledModel, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: also the fingerprints."""
        return "\n".join(self._lines(verbose=verbose)) + "\n"

    def _lines(self, *, verbose: bool) -> Iterable[str]:
        inputs = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())
        yield f" input   {self.settings.data}: {inputs}"
        yield f" bundle  {self.folder}  {counted(len(self.models), 'model')}"
        yield ""
        rows = [["model", "size", "file", *(["fingerprint"] if verbose else [])]]
        for found in self.models:
            row = [found.model, bytes_text(found.size), found.file]
            rows.append([*row, found.fingerprint] if verbose else row)
        yield from table(rows)
        yield ""
        yield from (f" note    {note}" for note in self.notes)
        yield f" next    copy the folder to the machine; there, with numpy and onnxruntime: python {SCRIPT}"
        yield f" next    take {MEASUREMENTS} back into {self.folder}, and: {self.purpose}"
