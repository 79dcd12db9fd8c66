"""``session``: a model, or one in a container, in onnxruntime."""

import os
import tempfile
from pathlib import Path
from typing import Any

from onnxcomp.api.common import check_threads
from onnxcomp.errors import UsageError
from onnxcomp.runtime import Provider, Session
from onnxcomp.storage import DEFAULT_LIMIT, in_memory, is_archive, unpack_file

__all__ = ["session"]


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
