"""The file format: a safetensors file of the graph, the manifest, and every tensor's chunks. See docs/format.md."""

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxcomp.coding import CHUNK, Codec, CodedStream, CodedTensor, Coder, CodingError, pack_bytes, unpack_bytes
from onnxcomp.errors import ModelError

__all__ = [
    "GRAPH",
    "GROUP",
    "MANIFEST",
    "OPEN_GROUPS",
    "FileEntry",
    "GroupEntry",
    "Manifest",
    "Member",
    "coded",
    "damaged",
    "header_bytes",
    "read_header",
]

E = TypeVar("E", Codec, Coder)
FORMAT, VERSION = "onnxz", 2
GRAPH, MANIFEST, METADATA = "__onnx__", "__manifest__", "__metadata__"
HINT = "copy or download the file again; onnxcomp pack makes it anew from the model"
MOST_HEADER = MOST_MANIFEST = 1 << 24  # bytes
_MOST_TENSORS = 100_000
_MOST_INTEGER = 1 << 62
GROUP = 1 << 22  # bytes of a group of more than one tensor, at most
OPEN_GROUPS = 8  # such groups that are begun and not ended, at any place of the files


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that unpacking gives: its path from the model's (empty: the model itself), its size and its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Member:
    """The data of a tensor in a group.

    Attributes:
        size: Its bytes.
        places: Where it belongs: number of the file, and in the model (0) its number among the model's tensors, in
            another file its first byte.
    """

    size: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """Tensors that are stored as one.

    Attributes:
        members: Whose data follow each other.
        sha256: Of all of it.
        codec: How it is stored.
        width: Bytes of an element, as its codec takes it.
        rotated: See `CodedTensor`.
        streams: The streams, with no chunks in them.
        chunks: Size and CRC-32 of each stream's chunks.
    """

    members: tuple[Member, ...]
    sha256: str
    codec: Codec
    width: int
    rotated: bool
    streams: tuple[CodedStream, ...]
    heads: tuple[int, ...]
    chunks: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return sum(member.size for member in self.members)

    @property
    def stored(self) -> int:
        """Bytes that it takes in the container."""
        return sum(self.heads) + sum(size for chunks in self.chunks for size, _ in chunks)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a container."""

    files: tuple[FileEntry, ...]
    graph_size: int
    groups: tuple[GroupEntry, ...]

    def to_bytes(self) -> bytes:
        """Write it.

        Raises:
            ModelError: It would be larger than readers take.
        """
        content = json.dumps(
            {
                "files": [[file.path, file.size, file.sha256] for file in self.files],
                "graph": self.graph_size,
                "chunk": CHUNK,
                "groups": [_group_json(group) for group in self.groups],
            },
            separators=(",", ":"),
        ).encode()
        tensors = sum(len(group.members) for group in self.groups)
        if len(content) > MOST_MANIFEST or tensors > _MOST_TENSORS:
            raise ModelError(f"the model has too many tensors for a container: {tensors}")
        return pack_bytes(content)

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Manifest":
        """Read it.

        Raises:
            CodingError: It is damaged, or contradicts itself.
        """
        content = _json(unpack_bytes(packed, MOST_MANIFEST, exact=False))
        _keys(content, {"files", "graph", "chunk", "groups"})
        if content["chunk"] != CHUNK:
            raise CodingError(f"chunks of {content['chunk']!r} symbols")
        files = tuple(
            FileEntry(_text(path), _integer(size), _digest(sha256))
            for path, size, sha256 in (_list(entry, 3) for entry in _list(content["files"]))
        )
        groups = tuple(_group(entry) for entry in _list(content["groups"]))
        if sum(len(group.members) for group in groups) > _MOST_TENSORS:
            raise CodingError("too many tensors")
        if not files or files[0].path or len({file.path for file in files}) < len(files):
            raise CodingError("a wrong list of files")
        return cls(files, _integer(content["graph"]), groups)


def header_bytes(sizes: Mapping[str, int], producer: str) -> bytes:
    """Write the header of a container: of parts with these sizes, in this order."""
    content: dict[str, Any] = {
        METADATA: {"format": FORMAT, "format_version": str(VERSION), "min_reader": str(VERSION), "producer": producer}
    }
    at = 0
    for name, size in sizes.items():
        content[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_header(data: memoryview) -> dict[str, tuple[int, int]]:
    """Return where each part begins and ends in a file.

    Raises:
        CodingError: It is no container, or damaged.
        ModelError: It is a container that needs a newer reader.
    """
    if len(data) < 8:
        raise CodingError("it is cut short")
    (size,) = struct.unpack("<Q", data[:8])
    if size > MOST_HEADER or size > len(data) - 8:
        raise CodingError("it does not begin with a header, or is cut short")
    content = _json(bytes(data[8 : 8 + size]))
    metadata = content.pop(METADATA, None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CodingError("it is no container of a model")
    oldest = str(metadata.get("min_reader"))
    if not oldest.isascii() or not oldest.isdigit() or len(oldest) > 9:
        raise CodingError("it does not say which reader it needs")
    if int(oldest) > VERSION:
        raise ModelError(
            f"the file needs a reader of format {oldest}, this onnxcomp reads format {VERSION}",
            hint="upgrade onnxcomp",
        )
    if int(oldest) < VERSION:
        raise ModelError(
            f"the file is of format {oldest}, which is older than the first release of onnxcomp",
            hint="make it anew from the model: onnxcomp pack",
        )
    if len(content) > _MOST_TENSORS + 2:
        raise CodingError(f"{len(content)} parts")
    parts, at = {}, 8 + size
    for name, entry in sorted(content.items(), key=lambda item: _offset(item[1])):
        _keys(entry, {"dtype", "shape", "data_offsets"})
        (length,) = (_integer(number) for number in _list(entry["shape"], 1))
        start, stop = (_integer(number) for number in _list(entry["data_offsets"], 2))
        if entry["dtype"] != "U8" or start != at - 8 - size or stop - start != length:
            raise CodingError(f"part {name[:40]!r} is not where it must be")
        parts[name] = (at, at := at + length)
    if list(parts)[:2] != [GRAPH, MANIFEST]:
        raise CodingError("its first parts are not the graph and the manifest")
    if at != len(data):
        raise CodingError("it is cut short" if at > len(data) else "there is something behind its end")
    return parts


def damaged(name: str, why: object) -> ModelError:
    """Return the error of a container that can't be read."""
    return ModelError(f"{name} is no .onnxz file, or damaged: {why}", hint=HINT)


def _group_json(group: GroupEntry) -> dict[str, Any]:
    return {
        "members": [[member.size, *itertools.chain(*member.places)] for member in group.members],
        "sha256": group.sha256,
        "codec": int(group.codec),
        "width": group.width,
        "rotated": group.rotated,
        "streams": [
            [int(s.coder), s.size, s.paired, s.lanes, head, [number for chunk in chunks for number in chunk]]
            for s, head, chunks in zip(group.streams, group.heads, group.chunks, strict=True)
        ],
    }


def _group(entry: Any) -> GroupEntry:
    _keys(entry, {"members", "sha256", "codec", "width", "rotated", "streams"})
    streams, heads, tables = [], [], []
    for given in _list(entry["streams"]):
        coder, size, paired, lanes, head, numbers = _list(given, 6)
        tables.append(_pairs(_list(numbers)))
        heads.append(_integer(head))
        streams.append(CodedStream(_one_of(Coder, coder), _integer(size), _flag(paired), _integer(lanes), b"", ()))
    members = [_list(member) for member in _list(entry["members"])]
    if not all(members):
        raise CodingError("a tensor without a size")
    found = GroupEntry(
        tuple(Member(_integer(member[0]), _pairs(member[1:])) for member in members),
        _digest(entry["sha256"]),
        _one_of(Codec, entry["codec"]),
        _integer(entry["width"]),
        _flag(entry["rotated"]),
        tuple(streams),
        tuple(heads),
        tuple(tables),
    )
    if found.width not in (1, 2, 4, 8):
        raise CodingError(f"elements of {found.width} bytes")
    return found


def _pairs(numbers: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    flat = [_integer(number) for number in numbers]
    if len(flat) % 2:
        raise CodingError("a list of pairs of an odd length")
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _json(content: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise CodingError("a key comes twice")
        return found

    try:
        found = json.loads(content.decode(), object_pairs_hook=once)
    except CodingError:
        raise
    except (ValueError, RecursionError) as err:
        raise CodingError("its description is no JSON") from err
    if not isinstance(found, dict):
        raise CodingError("its description is no JSON object")
    return found


def _keys(entry: Any, names: set[str]) -> None:
    if not isinstance(entry, dict) or set(entry) != names:
        raise CodingError(f"a description without {', '.join(sorted(names))}")


def _offset(entry: Any) -> tuple[int, int]:
    found = entry.get("data_offsets") if isinstance(entry, dict) else None
    start, stop = (_integer(number) for number in _list(found, 2))
    return start, stop


def _list(value: Any, length: int | None = None) -> Sequence[Any]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise CodingError("a list is missing, or of another length")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_INTEGER:
        raise CodingError(f"{str(value)[:40]} is no size")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise CodingError("a yes or no is missing")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CodingError("a text is missing")
    return value


def _digest(value: Any) -> str:
    if len(text := _text(value)) != 64 or not set(text) <= set("0123456789abcdef"):
        raise CodingError("a SHA-256 is missing")
    return text


def _one_of(kind: type[E], value: Any) -> E:
    if type(value) is not int or value not in list(kind):
        raise CodingError(f"the {kind.__name__.lower()} {str(value)[:40]}, which is not known")
    return kind(value)


def coded(entry: GroupEntry, heads: Sequence[bytes], chunks: Sequence[Sequence[memoryview]]) -> CodedTensor:
    """Return a group as its decoder takes it."""
    streams = (
        CodedStream(s.coder, s.size, s.paired, s.lanes, head, tuple(of))
        for s, head, of in zip(entry.streams, heads, chunks, strict=True)
    )
    return CodedTensor(entry.codec, entry.width, entry.rotated, tuple(streams))
