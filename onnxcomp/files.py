"""Files that commands write: looked at before any work, and replaced whole or not at all."""

import contextlib
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnxcomp.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left behind stays there
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_folder", "check_output", "copy_file", "is_folder", "replacing"]

_TEMPORARY = ".tmp"
_LONGEST = 100  # characters of the name that go into that of its temporary folder: together at most 255 bytes


def check_output(path: Path, *, inputs: "tuple[Path, ...]", overwrite: bool) -> None:
    """Refuse, before any work, an output path that can't be used.

    Raises:
        OutputError: Its folder is missing or read-only, it exists and may not be replaced, is a folder, a device or
            anything else but a regular file, or is an input.
    """
    if path == Path("-"):
        raise OutputError("standard output is not supported", hint="name a file with --output")
    try:
        folder, found = _status(path.parent), _status(path)
    except (OSError, ValueError) as err:  # a name that is too long, a folder that may not be searched, a NUL
        raise _unwritable(path, err) from err
    if folder is None or not stat.S_ISDIR(folder.st_mode):
        raise OutputError(f"the folder of the output {path} does not exist", hint=f"mkdir -p {path.parent}")
    _check_kind(path, found)
    if found is not None and any(_is_file(found, source) for source in inputs):
        raise OutputError(f"the output {path} is the input itself", hint="name another file")
    if found is not None and not overwrite:
        raise OutputError(f"the output {path} exists", hint="--overwrite replaces it")
    try:  # rights tell too little: of the superuser, of file systems that are read-only or full
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as err:
        raise OutputError(
            f"cannot write {path}: nothing can be written to its folder: {err.strerror or err}",
            hint="name a file in another folder",
        ) from err


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse, before any work, a folder for outputs that can't be used; it need not exist.

    Raises:
        OutputError: It can't be made or written to, is no folder, or holds something already.
    """
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is no folder", hint="name a new folder, or an empty one")
        if path.exists() and not overwrite and any(path.iterdir()):
            raise OutputError(f"the folder {path} is not empty", hint="--overwrite replaces files in it")
        place = path if path.exists() else path.parent
        if not place.is_dir():
            raise OutputError(f"the folder of {path} does not exist", hint=f"mkdir -p {path.parent}")
        tempfile.TemporaryFile(dir=place).close()
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise OutputError(f"cannot write to the folder {path}: {reason}", hint="name another folder") from err


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; what can't be looked at is none, and is refused where it is read."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, a NUL
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; when that is done, the file takes the place of ``path``.

    ``path`` holds either what was there before or the whole new file, whenever the process ends. The temporary file is
    in a hidden folder beside it; what a killed process left there is removed the next time that ``path`` is written.

    Raises:
        OutputError: The folder can't be written, or the path is that of a folder, a device or a pipe.
    """
    try:
        _check_kind(path, _status(path))
        with _temporary_folder(path) as folder:
            temporary = folder / path.name
            yield temporary
            _make_durable(temporary)
            temporary.replace(path)
    except OSError as err:
        raise _unwritable(path, err) from err


def copy_file(source: Path, target: Path) -> None:
    """Copy a file byte for byte, atomically.

    Raises:
        OutputError: The source can't be read, or the target can't be written.
    """
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Make a hidden folder beside a path, locked while it is in use, and remove those that nobody locks."""
    prefix = f".{path.name[:_LONGEST]}."
    for left in path.parent.glob(f"{glob.escape(prefix)}*{_TEMPORARY}"):
        with _locked(left) as is_ours:
            if is_ours:  # its process has ended: a lock ends with it
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=_TEMPORARY))
        with _locked(folder, wait=True):
            if not folder.exists():  # somebody took it for left behind, before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
            return


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder; say whether that worked: not where somebody else holds it, or locks are not known."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or no folder
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_ours = True
        except OSError:
            is_ours = False
        yield is_ours
    finally:
        os.close(descriptor)


def _make_durable(file: Path) -> None:
    """Make a finished file survive a power cut."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _unwritable(path: Path, err: OSError | ValueError) -> OutputError:
    reason = getattr(err, "strerror", None) or err
    return OutputError(f"cannot write {path}: {reason}", hint="name another file, or make room for it")


def _status(path: Path) -> os.stat_result | None:
    """Say what a path leads to, links followed; None: to nothing."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_kind(path: Path, found: os.stat_result | None) -> None:
    """Refuse to replace a folder, a device or a pipe."""
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(f"the output {path} is a folder", hint="name a file in it")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise OutputError(f"the output {path} is not a regular file", hint="name another file")


def _is_file(found: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(found, path.stat())
    except (OSError, ValueError):  # what can't be looked at is refused where it is read
        return False
