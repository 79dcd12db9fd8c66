"""Functions of the user's: found by ``FILE.py:function`` or ``module:function``, and run so that they disturb nothing.

What such code prints goes to stderr, since stdout holds the report and nothing else; and a file may import modules that
lie beside it, while it is loaded and whenever it runs.
"""

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxcomp.errors import OnnxCompError

__all__ = ["Kind", "UserFunction", "file_modules", "load_function", "names_function", "source_file"]

_OF_FILES = "_onnxcomp_user_"  # begins the names of modules that files were loaded as


@dataclass(frozen=True, slots=True)
class Kind:
    """What a function is for.

    Attributes:
        what: As in "the metric m.py can't be loaded".
        error: Raised when it can't be loaded.
        forms: Hint that says how one is named.
        signature: Hint that says what it takes and returns.
        default: Name of the function in ``FILE.py``, where none is named.
    """

    what: str
    error: type[OnnxCompError]
    forms: str
    signature: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A loaded function.

    Attributes:
        name: ``FILE.py:function`` (without folders) or ``module:function``.
        call: The function.
        folder: Of the file that it is from; None for a module.
    """

    name: str
    call: Callable[..., Any]
    folder: Path | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Surround whatever runs the function's code."""
        with redirect_stdout(sys.stderr), _importable(self.folder):
            yield


def names_function(spec: str) -> bool:
    """Whether a text has the form ``FILE.py:function`` or ``module:function``, existing or not."""
    source, colon, function = spec.rpartition(":")
    is_module = all(part.isidentifier() for part in source.split("."))
    return bool(colon) and function.isidentifier() and (source.endswith(".py") or is_module)


def source_file(spec: str) -> Path | None:
    """Return the file that is read where a text names a file or a function; None for ``module:function``."""
    source = spec.rpartition(":")[0] if names_function(spec) else spec
    return Path(source) if source == spec or source.endswith(".py") else None


def file_modules() -> list[ModuleType]:
    """Return the modules that files were loaded as: no other process could import them by name."""
    return [module for name, module in sys.modules.items() if name.startswith(_OF_FILES)]


def load_function(spec: str, kind: Kind) -> UserFunction:
    """Find a function.

    Args:
        spec: ``FILE.py:function`` or ``module:function``; ``FILE.py`` where the kind has a default name.
        kind: What the function is for.

    Raises:
        OnnxCompError: Of the kind's error: there is no such function, or loading its module fails.
    """
    alone = kind.default if spec.endswith(".py") else None
    source, function = (spec, alone) if alone else spec.rpartition(":")[::2]
    if not source or not function:
        raise kind.error(f"there is no {kind.what} '{spec}'", hint=kind.forms)
    if source.endswith(".py"):
        return _from_file(Path(source), function, kind)
    with _loading(source, kind):
        module = importlib.import_module(source)
    return UserFunction(f"{source}:{function}", _function(module, function, source, kind))


def _from_file(path: Path, function: str, kind: Kind) -> UserFunction:
    """Load a function of a Python file."""
    if not path.is_file():
        raise kind.error(f"{path}: no such file", hint=kind.forms)
    path = path.resolve()
    # two files of one name must not become one module
    name = f"{_OF_FILES}{zlib.crc32(str(path).encode('utf-8', 'surrogateescape')):08x}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise kind.error(f"{path}: can't be loaded as Python", hint=kind.forms)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        with _loading(str(path), kind), _importable(path.parent):
            spec.loader.exec_module(module)
        found = _function(module, function, path.name, kind)
    except OnnxCompError:
        del sys.modules[name]
        raise
    return UserFunction(f"{path.name}:{function}", found, path.parent)


def _function(module: ModuleType, name: str, where: str, kind: Kind) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        raise kind.error(f"{where} has no function '{name}'", hint=kind.signature)
    function: Callable[..., Any] = found
    return function


@contextmanager
def _loading(where: str, kind: Kind) -> Iterator[None]:
    """Turn what somebody's module raises on import into an error of ours; what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ModuleNotFoundError as err:
        missing = err.name or ""
        own = where == missing or where.startswith(f"{missing}.")  # the named module itself, or a package of it
        hint = kind.forms if own else f"install {missing or 'it'} in this environment"
        raise kind.error(f"the {kind.what} {where} can't be loaded: {err}", hint=hint) from err
    except (Exception, SystemExit) as err:
        message = f"the {kind.what} {where} can't be loaded: {type(err).__name__}: {err}"
        raise kind.error(message, hint=kind.forms) from err


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules beside a file be imported, for a while."""
    if folder is None:
        yield
        return
    entry, writes_nothing = str(folder), sys.dont_write_bytecode
    sys.path.insert(0, entry)
    sys.dont_write_bytecode = True  # no __pycache__ among the user's files
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        if entry in sys.path:  # the file may have changed the path itself
            sys.path.remove(entry)
