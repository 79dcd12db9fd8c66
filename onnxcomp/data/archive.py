"""Read arrays out of a ``.npz`` piece by piece: a zip whose members are ``.npy`` files.

``numpy.load`` reads a member whole and trusts its header. Here rows are read as they are needed, claims of a header are
compared with the real sizes before anything is allocated, and nothing is ever unpickled.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from onnxcomp.errors import DataError

__all__ = ["Member", "member_opened", "opened", "read_members", "read_rows", "read_whole"]

CHUNK = 1 << 20  # bytes asked of a zip member at once
DEFLATE_RATIO = 1032  # deflate can't do better: zlib's technical details, "maximum compression factor"
DAMAGED_HINT = "the file is damaged or was cut short: write it again with numpy.savez"


@dataclass(frozen=True, slots=True)
class Member:
    """One array of a ``.npz``, from its headers."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int  # bytes before the data

    @property
    def row_bytes(self) -> int:
        """Size of one entry of the first axis; sizes are Python ints, so that a false claim can't overflow."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@contextmanager
def _damage_reported(where: str) -> Iterator[None]:
    """Turn what the zip, zlib and npy readers raise on foreign bytes into a `DataError`.

    On damaged bytes these readers raise almost anything (zlib.error, struct.error, TokenError, IndexError, ...), so
    that a list of kinds would be short of one; only calls into them may stand inside.
    """
    try:
        yield
    except DataError:
        raise
    except OSError as err:
        hint = DAMAGED_HINT if err.errno is None else "check that the file is there and may be read"
        raise DataError(f"{where}: can't be read: {err.strerror or err}", hint=hint) from err
    except Exception as err:
        raise DataError(f"{where}: can't be read: {err or type(err).__name__}", hint=DAMAGED_HINT) from err


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a ``.npz``; errors of the body pass unchanged."""
    with _damage_reported(str(path)):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as err:
            raise DataError(f"{path}: this is no .npz file: {err}", hint=DAMAGED_HINT) from err
    with archive:
        yield archive


@contextmanager
def member_opened(archive: zipfile.ZipFile, path: Path, member: Member) -> Iterator[IO[bytes]]:
    """Open one array and go to its data."""
    where = f"{path}: array '{member.name}'"
    with _damage_reported(where):
        file = archive.open(f"{member.name}.npy")
    with file:
        if _header(file, member.name, where) != member:
            raise DataError(
                f"{where}: the file changed while it was in use", hint="leave it alone until the run is done"
            )
        yield file


def read_members(archive: zipfile.ZipFile, path: Path) -> dict[str, Member]:
    """Headers of all arrays, each compared with the real size of its zip member."""
    members: dict[str, Member] = {}
    with _damage_reported(str(path)):
        size = path.stat().st_size
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        where = f"{path}: array '{name}'"
        if not info.filename.endswith(".npy"):
            raise DataError(f"{path}: '{info.filename}' is no array", hint="write the file with numpy.savez")
        if name in members:
            raise DataError(f"{where} is there twice", hint=DAMAGED_HINT)
        _check_packed_size(info, size, where)
        with _damage_reported(where), archive.open(info) as file:
            member = _header(file, name, where)
        claimed = member.offset + math.prod(member.shape) * member.dtype.itemsize
        if claimed != info.file_size:
            raise DataError(
                f"{where}: its header claims {claimed} bytes, the file holds {info.file_size}", hint=DAMAGED_HINT
            )
        members[name] = member
    return members


def _check_packed_size(info: zipfile.ZipInfo, file_size: int, where: str) -> None:
    """Refuse a size that the packed bytes can't hold, so that a small file can't ask for endless memory."""
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE_RATIO}.get(info.compress_type)
    if ratio is None:
        raise DataError(f"{where}: zip compression {info.compress_type} is not read", hint="write it with numpy.savez")
    if info.compress_size > file_size or info.file_size > info.compress_size * ratio:
        raise DataError(
            f"{where}: {info.compress_size} packed bytes of a file of {file_size} can't hold {info.file_size} bytes",
            hint=DAMAGED_HINT,
        )


def _header(file: IO[bytes], name: str, where: str) -> Member:
    """Read the header of a ``.npy``; leaves the file at the data."""
    with _damage_reported(where):
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            # 3.0 is only written for field names that aren't Latin-1
            raise DataError(f"{where}: .npy version {version[0]}.{version[1]} is not read", hint="save a plain array")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        offset = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds Python objects, which would have to be unpickled and can run code",
            hint="save plain numbers, or text as a string array: numpy.array(texts, dtype=str)",
        )
    if dtype.fields is not None or dtype.subdtype is not None:
        raise DataError(f"{where}: holds records ({dtype})", hint="save one plain array per model input")
    if any(size < 0 for size in shape):
        raise DataError(f"{where}: its header claims the shape {shape}", hint=DAMAGED_HINT)
    return Member(name, dtype, tuple(int(size) for size in shape), fortran, offset)


def read_rows(file: IO[bytes], path: Path, member: Member, rows: tuple[int, int]) -> np.ndarray:
    """Read some rows of an array; the file must not be past them."""
    where = f"{path}: array '{member.name}'"
    shape = (rows[1] - rows[0], *member.shape[1:])
    with _damage_reported(where):
        start = member.offset + rows[0] * member.row_bytes
        position = file.tell()
        while position < start:  # in small steps: one long seek unpacks 16 MiB at a time
            position = min(position + CHUNK, start)
            file.seek(position)
        return _array(file, member, shape, where)


def read_whole(path: Path, member: Member) -> np.ndarray:
    """Read an array whole, a scalar too."""
    where = f"{path}: array '{member.name}'"
    with opened(path) as archive, member_opened(archive, path, member) as file, _damage_reported(where):
        return _array(file, member, member.shape, where)


def _array(file: IO[bytes], member: Member, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Read the next ``shape`` values, in C order and native byte order."""
    data = np.empty(math.prod(shape) * member.dtype.itemsize, np.uint8)
    filled = 0
    while filled < data.size:
        chunk = file.read(min(CHUNK, data.size - filled))
        if not chunk:
            raise DataError(f"{where}: ends {data.size - filled} bytes too early", hint=DAMAGED_HINT)
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if not data.size:
        return np.zeros(shape, member.dtype.newbyteorder("="))
    array: np.ndarray = data.view(member.dtype)
    array = array.reshape(shape[::-1]).T if member.fortran else array.reshape(shape)
    return np.asarray(array, dtype=member.dtype.newbyteorder("="), order="C")
