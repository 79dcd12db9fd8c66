"""Libraries of custom operators: which ones the sessions that are opened now shall know.

They are the same for every session of one call (of the original, of every candidate, of a constant that is folded), so
the call says it once, around its work, instead of handing them through everything that may open a session.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from onnxcomp.errors import UsageError

__all__ = ["HINT", "custom_operators", "libraries"]

HINT = "name the library that brings them: --custom-ops LIBRARY"
_LIBRARIES: ContextVar[tuple[str, ...]] = ContextVar("libraries", default=())


@contextmanager
def custom_operators(paths: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Let all sessions that are opened inside know the operators of these shared libraries.

    Args:
        paths: Built for the installed onnxruntime (``RegisterCustomOps``). Loading one runs its code.

    Raises:
        UsageError: One is not there, or the argument is a single path.
    """
    if isinstance(paths, str | os.PathLike):
        raise UsageError("custom_ops must be a list of paths", hint=f"custom_ops=[{os.fspath(paths)!r}]")
    for path in map(Path, paths):
        if not path.is_file():
            raise UsageError(f"{path}: no such library of custom operators", hint="name a .so, .dylib or .dll file")
    token = _LIBRARIES.set(tuple(str(Path(path).resolve()) for path in paths))
    try:
        yield
    finally:
        _LIBRARIES.reset(token)


def libraries() -> tuple[str, ...]:
    """Return the paths that are in force here."""
    return _LIBRARIES.get()
