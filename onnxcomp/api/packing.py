"""``pack``, ``unpack`` and ``session``: models in containers."""

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.api.common import check_threads
from onnxcomp.coding import Codec
from onnxcomp.errors import UsageError
from onnxcomp.model import save
from onnxcomp.report import Written, now, versions
from onnxcomp.report.packing import PackReport, UnpackReport
from onnxcomp.runtime import Provider, Session
from onnxcomp.search import Progress
from onnxcomp.storage import DEFAULT_LIMIT, in_memory, is_archive, pack_file, unpack_file

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CODECS", "pack", "session", "unpack"]

CODECS = ("auto", *(codec.name.lower() for codec in Codec))


def pack(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    path: str | os.PathLike[str],
    *,
    codec: str = "auto",
    verify: bool = True,
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
    notes = () if found.exact else ("unpacking gives an equal model, but not the same bytes",)
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


def session(
    model: str | os.PathLike[str] | bytes,
    *,
    provider: Provider = "cpu",
    threads: int = 0,
    max_size: int = DEFAULT_LIMIT,
) -> Any:
    """Load a container, or a plain model, into onnxruntime.

    A container is decoded in memory; one of over 2 GB goes through a temporary folder.

    Args:
        model: Path of an ``.onnxz`` or ``.onnx`` file, or the bytes of one.
        provider: What runs it: ``cpu``, ``cuda`` or ``tensorrt``.
        threads: Intra-op threads; 0 is all cores.
        max_size: Bytes that a container may unpack to.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        OnnxCompError: Of the kind that fits: UsageError, ModelError, EnvironmentUnavailable.
    """
    check_threads(threads)
    if not _is_container(model):
        source = model if isinstance(model, bytes) else Path(model)
        return Session(source, threads=threads, provider=provider).inference
    with in_memory(model, limit=max_size, threads=threads) as content:
        if content is not None:
            return Session(content, threads=threads, provider=provider).inference
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        path = Path(folder, "model.onnx")
        unpack_file(model, path, limit=max_size, threads=threads)
        return Session(path, threads=threads, provider=provider).inference


def _is_container(model: str | os.PathLike[str] | bytes) -> bool:
    if isinstance(model, bytes):
        return is_archive(model)
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"a session can't be made of {type(model).__name__}", hint="pass a path or bytes")
    try:
        with Path(model).open("rb") as file:
            return is_archive(file.read(16))
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise UsageError(f"cannot read {model}: {reason}", hint="name a file that is there and may be read") from err
