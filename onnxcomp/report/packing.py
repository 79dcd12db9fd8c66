"""The reports of `pack` and `unpack`: what takes how much, and what was written."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import bytes_text, table
from onnxcomp.report.parts import written_lines
from onnxcomp.report.sizes import StoredForm, size_lines
from onnxcomp.storage import PackedTensor

__all__ = ["PackReport", "UnpackReport"]


@dataclass(frozen=True, slots=True)
class PackReport(Document):
    """What one `pack` did.

    Attributes:
        model: Where the model came from.
        codec: Of all tensors; auto: the smallest for each.
        original_size: Bytes of the model, external data included.
        size: Bytes of the container.
        graph_size: Bytes of it that are not tensors: the graph with small ones, and the description.
        tensors: Those that are stored by themselves.
        exact: Whether unpacking gives back the files to the byte; otherwise it gives an equal model.
        verified: Whether the container was decoded and compared.
        notes: What the reader should know.
        seconds: Wall-clock time.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
        output: The file that was written.
        sizes: Of the model in several forms; empty: not asked for.
    """

    kind: ClassVar[str] = "pack"

    model: str
    codec: str
    original_size: int
    size: int
    graph_size: int
    tensors: tuple[PackedTensor, ...]
    exact: bool
    verified: bool
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    created: str
    output: Written
    sizes: tuple[StoredForm, ...] = ()

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose`: also every tensor."""
        return "\n".join(self._lines(verbose=verbose)) + "\n"

    def _lines(self, *, verbose: bool) -> Iterable[str]:
        yield f" input   {self.model}  {bytes_text(self.original_size)}"
        rows = [("data type", "tensors", "codecs", "bytes", "stored", "bits/value", "bound")]
        for dtype in dict.fromkeys(tensor.dtype for tensor in self.tensors):
            some = [tensor for tensor in self.tensors if tensor.dtype == dtype]
            codecs = ", ".join(f"{name} {count}" for name, count in Counter(t.codec for t in some).most_common())
            rows.append((dtype, str(len(some)), codecs, *_sizes(some)))
        if verbose:
            rows += [(f"  {t.name}", "x".join(map(str, t.shape)), t.codec, *_sizes([t])) for t in self.tensors]
        if self.tensors:
            yield from ("", *table(rows), "")
        if self.sizes:
            yield from (*size_lines(self.sizes), "")
        yield f" graph   {bytes_text(self.graph_size)} with all smaller tensors and the description"
        yield from (f" note    {note}" for note in self.notes)
        checked = "decoded and compared" if self.verified else "not verified"
        ratio = self.original_size / self.size
        yield f" result  {bytes_text(self.size)}, {ratio:.2f}x smaller, {checked} ({self.seconds:.1f} s)"
        yield from written_lines(self.output)


def _sizes(tensors: "list[PackedTensor]") -> tuple[str, str, str, str]:
    stored, bound = sum(t.stored for t in tensors), sum(t.bound for t in tensors)
    values = sum(math.prod(t.shape) for t in tensors)
    return (
        bytes_text(sum(t.size for t in tensors)),
        bytes_text(stored),
        f"{8 * stored / values:.3f}" if values else "-",
        f"{8 * bound / values:.3f}" if values else "-",
    )


@dataclass(frozen=True, slots=True)
class UnpackReport(Document):
    """What one `unpack` did.

    Attributes:
        file: The container.
        packed_size: Its bytes.
        size: Bytes of the files written.
        files: Bytes of each file written, by path.
        notes: What the reader should know.
        seconds: Wall-clock time.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
        output: The model that was written.
    """

    kind: ClassVar[str] = "unpack"

    file: str
    packed_size: int
    size: int
    files: Mapping[str, int]
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    created: str
    output: Written

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose` adds nothing."""
        lines = [f" input   {self.file}  {bytes_text(self.packed_size)}"]
        lines += [f" file    {path}  {bytes_text(size)}" for path, size in self.files.items()]
        lines += [f" note    {note}" for note in self.notes]
        lines.append(f" result  {bytes_text(self.size)}, as the container's checksums say ({self.seconds:.1f} s)")
        return "\n".join([*lines, *written_lines(self.output)]) + "\n"
