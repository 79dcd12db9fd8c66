"""Reading a container: checked before anything is allocated, decoded tensor by tensor."""

import contextlib
import hashlib
import itertools
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from onnxcomp.coding import CodingError, decode_tensor, unpack_bytes
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.storage import container
from onnxcomp.storage.container import FileEntry, GroupEntry, Manifest
from onnxcomp.storage.wire import Literal, WireError, pieces, walk

__all__ = ["DEFAULT_LIMIT", "Archive", "forget", "is_archive", "opened", "workers"]

DEFAULT_LIMIT = 16 * 10**9  # bytes that a container may unpack to
_ZEROS = bytes(1 << 20)
Each = Callable[..., Iterable[Any]]
Write = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class _Place:
    """Data of one tensor: in which group, from where to where in it, and whether no other tensor of it comes later."""

    group: int
    start: int
    stop: int
    is_last: bool


class Archive:
    """A container, open for reading. All that it says of sizes and places is checked here; its data as it is decoded.

    Args:
        data: The whole file.
        name: Of the file, for messages.
        limit: Bytes that it may unpack to, all files together.

    Raises:
        ModelError: It is no container, damaged, needs a newer reader, or unpacks to more than the limit.
    """

    def __init__(self, data: memoryview, *, name: str, limit: int = DEFAULT_LIMIT) -> None:
        self._data = data
        self.name = name
        self._open: dict[int, np.ndarray] = {}  # groups of several tensors of which some are still to be written
        try:
            self._parts = container.read_header(data)
            self.manifest = Manifest.from_bytes(self._part(container.MANIFEST))
            self._check(limit)
        except (CodingError, WireError) as err:
            raise container.damaged(name, err) from err

    @cached_property
    def graph(self) -> bytes:
        """The ONNX file without the data of the tensors that are stored."""
        try:
            return unpack_bytes(self._part(container.GRAPH), self.manifest.graph_size)
        except CodingError as err:
            raise container.damaged(self.name, err) from err

    def group(self, index: int, each: Each = map) -> np.ndarray:
        """Decode a group; uint8.

        Raises:
            ModelError: It is damaged, or there is not enough memory for it.
        """
        entry = self.manifest.groups[index]
        try:
            found = decode_tensor(container.coded(entry, *self._stored(index, entry)), entry.size, each)
            forget(self._data)
        except CodingError as err:
            raise container.damaged(self.name, f"group {index}: {err}") from err
        except MemoryError as err:
            raise ModelError(f"{self.name}: not enough memory for group {index} of {entry.size} bytes") from err
        if hashlib.sha256(found.data).hexdigest() != entry.sha256:
            raise container.damaged(self.name, f"the SHA-256 of group {index} is another one")
        return found

    def write(
        self, file: int, write: Write, *, each: Each = map, progress: Callable[[int], None] | None = None
    ) -> None:
        """Decode one of the files, from its first byte to its last.

        Args:
            file: Its number; 0 is the model.
            write: Takes the next bytes.
            each: As ``map``; one that uses threads decodes chunks at the same time.
            progress: Told how many bytes were written since it was told last.

        Raises:
            ModelError: It is damaged.
        """
        entry = self.manifest.files[file]
        digest, size = hashlib.sha256(), 0
        for part in self._model(each) if file == 0 else self._data_file(file, each):
            size += len(part)
            if size > entry.size:
                break
            digest.update(part)
            write(part)
            if progress is not None:
                progress(len(part))
            del part  # or it would be kept while the next one is decoded
        if size != entry.size or digest.hexdigest() != entry.sha256:
            raise container.damaged(self.name, f"{entry.path or 'the model'} has not the SHA-256 that it must have")

    def _model(self, each: Each) -> Iterator[Any]:
        stored = self._places(0)
        lengths = {at: place.stop - place.start for at, place in stored.items()}
        try:
            parts = pieces(walk(self.graph), lengths)
        except WireError as err:
            raise container.damaged(self.name, f"its graph: {err}") from err
        graph = memoryview(self.graph)
        for part in parts:
            if isinstance(part, Literal):
                yield graph[part.start : part.stop] if part.new is None else part.new
            else:
                yield self._tensor(stored[part], each)

    def _data_file(self, file: int, each: Each) -> Iterator[Any]:
        end = 0
        for at, place in self._places(file).items():
            yield from _zeros(at - end)
            yield self._tensor(place, each)
            end = at + place.stop - place.start

    def _tensor(self, place: "_Place", each: Each) -> Any:
        """Give the data of one tensor; a group of several is kept until its last one was given."""
        if len(self.manifest.groups[place.group].members) == 1:
            return self.group(place.group, each).data
        if place.group not in self._open:
            self._open[place.group] = self.group(place.group, each)
        group = self._open[place.group]
        if place.is_last:
            del self._open[place.group]
        return group[place.start : place.stop].data

    def _places(self, file: int) -> "dict[int, _Place]":
        """Return what belongs where in a file, in the order of the file."""
        found = []
        for index, group in enumerate(self.manifest.groups):
            last = max(place for member in group.members for place in member.places)
            start = 0
            for member in group.members:
                stop = start + member.size
                found += [(at, _Place(index, start, stop, (of, at) == last)) for of, at in member.places if of == file]
                start = stop
        return dict(sorted(found, key=lambda one: one[0]))

    def _part(self, name: str) -> bytes:
        start, stop = self._parts[name]
        return bytes(self._data[start:stop])

    def _stored(self, index: int, entry: GroupEntry) -> tuple[list[bytes], list[list[memoryview]]]:
        """Return the heads and chunks of a group's streams.

        Raises:
            CodingError: A chunk is damaged.
        """
        at, _ = self._parts[str(index)]
        heads: list[bytes] = []
        chunks: list[list[memoryview]] = []
        for head, table in zip(entry.heads, entry.chunks, strict=True):
            heads.append(bytes(self._data[at : (at := at + head)]))
            chunks.append([])
            for size, crc in table:
                chunks[-1].append(chunk := self._data[at : (at := at + size)])
                if zlib.crc32(chunk) != crc:
                    raise CodingError("the CRC-32 of a chunk is another one")
        return heads, chunks

    def _check(self, limit: int) -> None:
        """Refuse what contradicts itself, and more than the limit, by the sizes alone.

        Raises:
            CodingError: It contradicts itself.
            ModelError: It is larger than the limit.
        """
        files, groups = self.manifest.files, self.manifest.groups
        names = [container.GRAPH, container.MANIFEST, *(str(index) for index in range(len(groups)))]
        if list(self._parts) != names:
            raise CodingError("its parts are not those that its manifest names")
        total = sum(file.size for file in files)
        largest = max((group.size for group in groups), default=0)
        if max(total, largest, self.manifest.graph_size) > limit:
            raise ModelError(
                f"{self.name} unpacks to {max(total, largest)} bytes, allowed are {limit}",
                hint="--max-size (max_size) allows more, if you trust the file",
            )
        if self.manifest.graph_size > files[0].size:
            raise CodingError("its graph is larger than the model")
        for index, group in enumerate(groups):
            start, stop = self._parts[str(index)]
            if group.stored != stop - start or not group.members or not all(m.places for m in group.members):
                raise CodingError(f"group {index} is not as long as it must be, or a tensor of it has no place")
            if sum(stream.size for stream in group.streams) > group.size + -(-group.size // group.width) // 8 + 1:
                raise CodingError(f"group {index}: its streams are too long")
        _check_places(files, groups)
        _check_groups(groups)
        for entry in files[1:]:
            _check_path(entry)


def _check_places(files: Sequence[FileEntry], groups: Iterable[GroupEntry]) -> None:
    """Refuse tensors at the same place, and files that do not end where their last tensor does.

    Raises:
        CodingError: There are some.
    """
    taken: dict[int, list[tuple[int, int]]] = {number: [] for number in range(len(files))}
    for index, group in enumerate(groups):
        for member in group.members:
            for file, at in member.places:
                if file not in taken:
                    raise CodingError(f"group {index} belongs to file {file}, which there is not")
                taken[file].append((at, at + (member.size if file else 1)))
    for number, spans in taken.items():
        spans.sort()
        if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
            raise CodingError("two tensors are at the same place")
        if number and (spans[-1][1] if spans else 0) != files[number].size:
            raise CodingError(f"file {number} does not end where its last tensor does")


def _check_groups(groups: Iterable[GroupEntry]) -> None:
    """Refuse groups of several tensors that would make a reader keep too much.

    Raises:
        CodingError: One is too large, holds a tensor that belongs to several places, or too many overlap.
    """
    ends: list[tuple[tuple[int, int], int]] = []
    for index, group in enumerate(groups):
        if len(group.members) == 1:
            continue
        places = [place for member in group.members for place in member.places]
        if len(places) > len(group.members) or group.size > container.GROUP:
            raise CodingError(f"group {index} is too large, or a tensor of it belongs to several places")
        ends += [(min(places), 1), (max(places), -1)]
    if max(itertools.accumulate((change for _, change in sorted(ends)), initial=0)) > container.OPEN_GROUPS:
        raise CodingError("too many groups are begun at once")


def _check_path(file: FileEntry) -> None:
    """Refuse paths that lead out of the model's folder, on any system.

    Raises:
        CodingError: This one does.
    """
    parts = file.path.split("/")
    if (
        PurePosixPath(file.path).is_absolute()
        or any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts)
        or any(character in file.path for character in "\\:\0")
        or not file.path.isprintable()
    ):
        raise CodingError(f"the path of a file leads out of the model's folder: {file.path[:100]!r}")


def _zeros(count: int) -> Iterator[bytes]:
    for start in range(0, count, len(_ZEROS)):
        yield _ZEROS[: count - start]


@contextlib.contextmanager
def opened(source: str | os.PathLike[str] | bytes, *, name: str = "", limit: int = DEFAULT_LIMIT) -> Iterator[Archive]:
    """Open a container: a path, or its bytes (and what messages call them).

    Raises:
        UsageError: There is no file of that name that can be read.
        ModelError: See `Archive`.
    """
    if isinstance(source, bytes):
        yield Archive(memoryview(source), name=name or "the given bytes", limit=limit)
        return
    with mapped(Path(source)) as data:
        yield Archive(data, name=str(source), limit=limit)


def forget(data: memoryview) -> None:
    """Let the system take back the memory of what was read of a mapped file; it is read again where it is needed."""
    if isinstance(data.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.obj.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Give a file's bytes, which are read from the disk as they are looked at.

    Raises:
        UsageError: There is no file of that name that can be read.
    """
    hint = "name a file that is there and may be read"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a device or a pipe may never end
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise UsageError(f"cannot read {path}: it is {kind}", hint=hint)
        file = path.open("rb")
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise UsageError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}", hint=hint) from err
    with file:
        if os.fstat(file.fileno()).st_size == 0:  # can't be mapped
            yield memoryview(b"")
            return
        # Not closed: arrays that look into it may live on; it ends with the last of them
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_archive(data: bytes | memoryview) -> bool:
    """Say whether bytes begin like a container."""
    return len(data) > 9 and data[8:9] == b"{" and bytes(data[:8]).endswith(b"\0\0\0\0")


@contextlib.contextmanager
def workers(threads: int) -> Iterator[Each]:
    """Give a ``map`` that uses so many threads (0: as many as there are cores)."""
    count = threads or os.cpu_count() or 1
    if count == 1:
        yield map
        return
    with ThreadPoolExecutor(count) as pool:
        yield pool.map
