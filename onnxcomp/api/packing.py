"""``pack`` and ``unpack``: models in containers."""

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.api.common import check_threads
from onnxcomp.api.storing import Candidate, stored_forms
from onnxcomp.coding import Codec
from onnxcomp.errors import UsageError
from onnxcomp.model import save
from onnxcomp.report import Written, now, versions
from onnxcomp.report.packing import PackReport, UnpackReport
from onnxcomp.report.sizes import StoredForm
from onnxcomp.search import Progress
from onnxcomp.storage import DEFAULT_LIMIT, pack_file, unpack_file

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CODECS", "pack", "unpack"]

CODECS = ("auto", *(codec.name.lower() for codec in Codec))


def pack(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    path: str | os.PathLike[str],
    *,
    codec: str = "auto",
    verify: bool = True,
    sizes: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> PackReport:
    """Write a model as a container ``.onnxz``: smaller, lossless.

    Args:
        model: A path (external data is found beside it), a serialized model, or a model in memory.
        path: Where the container goes; it holds either all of it or what was there before.
        codec: Of all tensors: ``raw``, ``huffman``, ``mask``, ``planes``, ``rans`` or ``deflate``; ``auto``: for each
            tensor the one that makes it smallest.
        verify: Whether the container is decoded and compared before it takes its place.
        sizes: Whether it is stored in other ways, too, and each is loaded: sizes and load times.
        threads: Which code at the same time; 0 is all cores.
        progress: Called with the stage and the share done.

    Raises:
        OnnxCompError: Of the kind that fits: UsageError, OutputError, ModelError.
    """
    start = time.perf_counter()
    if codec not in CODECS:
        raise UsageError(f"there is no codec {codec!r}", hint=f"one of {', '.join(CODECS)}")
    check_threads(threads)
    chosen = None if codec == "auto" else Codec[codec.upper()]
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        if isinstance(model, bytes):
            source: Path | bytes = model
        elif isinstance(model, str | os.PathLike):
            source = Path(model)
        else:
            save(model, source := Path(folder, "model.onnx"))
        found = pack_file(
            source,
            Path(path),
            producer=f"onnxcomp {versions()['onnxcomp']}",
            codec=chosen,
            verify=verify,
            threads=threads,
            progress=progress,
        )
        stored: tuple[StoredForm, ...] = ()
        notes: tuple[str, ...] = ()
        if sizes:
            if isinstance(source, bytes):
                Path(folder, "model.onnx").write_bytes(source)
                source = Path(folder, "model.onnx")
            stored, notes = stored_forms([Candidate("as it is", source)], threads=threads, show=progress or _silent)
    if not found.exact:
        notes = ("unpacking gives an equal model, but not the same bytes", *notes)
    return PackReport(
        model=os.fspath(model) if isinstance(model, str | os.PathLike) else "(in memory)",
        codec=codec,
        original_size=found.original,
        size=found.size,
        graph_size=found.graph,
        tensors=found.tensors,
        exact=found.exact,
        verified=verify,
        notes=notes,
        seconds=time.perf_counter() - start,
        versions=versions(),
        created=now(),
        output=Written.at(path),
        sizes=stored,
    )


def unpack(
    file: str | os.PathLike[str] | bytes,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = True,
    max_size: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> UnpackReport:
    """Write the model of a container; external data goes beside it, under the names that the model gives it.

    Args:
        file: Path of the container, or its bytes.
        path: Where the model goes; it holds either all of it or what was there before.
        overwrite: Whether files of external data that exist may be replaced.
        max_size: Bytes that it may unpack to, as containers from elsewhere may claim any size; None: 16 GB.
        threads: Which decode at the same time; 0 is all cores.
        progress: Called with the stage and the share done.

    Raises:
        OnnxCompError: Of the kind that fits: UsageError, OutputError, ModelError.
    """
    start = time.perf_counter()
    check_threads(threads)
    files = unpack_file(
        file, Path(path), overwrite=overwrite, limit=max_size or DEFAULT_LIMIT, threads=threads, progress=progress
    )
    return UnpackReport(
        file="(in memory)" if isinstance(file, bytes) else os.fspath(file),
        packed_size=len(file) if isinstance(file, bytes) else Path(file).stat().st_size,
        size=sum(size for _, size in files),
        files=dict(files),
        notes=(),
        seconds=time.perf_counter() - start,
        versions=versions(),
        created=now(),
        output=Written.at(path),
    )


def _silent(_stage: str, _share: float | None) -> None:
    pass
