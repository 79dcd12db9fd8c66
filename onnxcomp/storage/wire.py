"""ONNX files as protobuf messages, byte by byte: where tensors lie in them, and how to take their data out and in.

Nothing is parsed but what leads to tensors. A file without the data of some tensors is a valid ONNX model whose fields
are empty there; putting the data back gives the same bytes as before, whatever else the file holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Literal", "Message", "TensorField", "WireError", "pieces", "walk"]

# Fields of a message that hold messages on the way to tensors; the numbers are those of onnx.proto
_SCHEMA: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_GRAPH, _OUTPUT = 7, 12
_DIMS, _TYPE, _NAME, _ENTRY, _LOCATION = 1, 2, 8, 13, 14
_DATA = {4: "float_data", 5: "int32_data", 7: "int64_data", 9: "raw_data", 10: "double_data", 11: "uint64_data"}
_DEEPEST = 100  # messages inside of messages: protobuf's own limit
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5

Buffer = bytes | memoryview


class WireError(ValueError):
    """The bytes are no ONNX model."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes of the source, or new ones: ``data[start:stop]`` where ``new`` is None."""

    start: int
    stop: int
    new: bytes | None = None

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start if self.new is None else len(self.new)


@dataclass(slots=True)
class TensorField:
    """A tensor, and where its data lies.

    Attributes:
        index: Number of the tensor in the file.
        name: Of the tensor.
        dtype: ONNX's number of the data type.
        dims: Its shape.
        field: Which field holds the data; empty: none, or several.
        prefix: Where that field's length is written.
        start: Where its data begins.
        stop: Where it ends.
        external: Entries of external data; None: the data is in the file.
    """

    index: int
    name: str = ""
    dtype: int = 0
    dims: tuple[int, ...] = ()
    field: str = ""
    prefix: int = 0
    start: int = 0
    stop: int = 0
    external: dict[str, str] | None = None


@dataclass(slots=True)
class Message:
    """A message with tensors in it: where its length is written (the whole file has none), and where it begins."""

    prefix: int
    start: int
    stop: int
    parts: "list[Message | TensorField]" = field(default_factory=list)

    def tensors(self) -> Iterator[TensorField]:
        """Yield all tensors in it, in the order of the file."""
        for part in self.parts:
            if isinstance(part, TensorField):
                yield part
            else:
                yield from part.tensors()


def walk(data: Buffer) -> Message:
    """Find the tensors of a serialized model.

    Raises:
        WireError: It is none, or cut short.
    """
    root = Message(0, 0, len(data))
    _Walker(data).message(root, "Model", 0)
    graphs = [(start, stop) for number, _, start, stop in _fields(data, 0, len(data)) if number == _GRAPH]
    if not any(number == _OUTPUT for start, stop in graphs for number, *_ in _fields(data, start, stop)):
        raise WireError("it has no graph with an output")
    return root


def pieces(root: Message, lengths: Mapping[int, int]) -> list[Literal | int]:
    """Return what a file consists of, once the data of some tensors has another length.

    Args:
        root: Of the file as it is.
        lengths: New length of each tensor's data, by its index.

    Returns:
        Bytes to take over, and in between the indices of tensors whose new data belongs there (where it has any).
    """
    edits: list[tuple[int, int, bytes, int | None]] = []
    _grow(root, lengths, edits)
    found: list[Literal | int] = []
    at = 0
    for start, stop, new, index in sorted(edits):
        found.append(Literal(at, start))
        found.append(Literal(0, 0, new))
        if index is not None and lengths[index]:
            found.append(index)
        at = stop
    found.append(Literal(at, root.stop))
    return found


def _grow(message: Message, lengths: Mapping[int, int], edits: "list[tuple[int, int, bytes, int | None]]") -> int:
    """Note what changes in a message; return by how many bytes its content grows."""
    grown = 0
    for part in message.parts:
        if isinstance(part, TensorField):
            length = lengths.get(part.index)
            if length is None:
                continue
            prefix = _varint(length)
            edits.append((part.prefix, part.stop, prefix, part.index))
            grown += length + len(prefix) - (part.stop - part.prefix)
            continue
        count = len(edits)
        inner = _grow(part, lengths, edits)
        if len(edits) > count:
            prefix = _varint(part.stop - part.start + inner)
            edits.append((part.prefix, part.start, prefix, None))
            grown += inner + len(prefix) - (part.start - part.prefix)
    return grown


class _Walker:
    """Reads messages, and numbers the tensors."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._tensors = 0

    def message(self, message: Message, kind: str, depth: int) -> None:
        """Find what is in a message of a kind."""
        if depth > _DEEPEST:
            raise WireError("its messages are nested too deeply")
        inner = _SCHEMA[kind]
        for number, prefix, start, stop in _fields(self._data, message.start, message.stop):
            if number not in inner:
                continue
            if prefix < 0:
                raise WireError(f"field {number} of a {kind} is no message")
            if inner[number] == "Tensor":
                message.parts.append(part := Message(prefix, start, stop))
                part.parts.append(self._tensor(start, stop))
                continue
            part = Message(prefix, start, stop)
            self.message(part, inner[number], depth + 1)
            if part.parts:
                message.parts.append(part)

    def _tensor(self, start: int, stop: int) -> TensorField:
        data = self._data
        found = TensorField(self._tensors)
        self._tensors += 1
        dims: list[int] = []
        entries: dict[str, str] = {}
        places: list[tuple[str, int, int, int]] = []
        for number, prefix, first, last in _fields(data, start, stop):
            if number == _DIMS and prefix < 0:
                dims.append(_read_varint(data, first, last)[0])
            elif number == _DIMS:
                while first < last:
                    size, first = _read_varint(data, first, last)  # noqa: PLW2901
                    dims.append(size)
            elif number == _TYPE and prefix < 0:
                found.dtype = _read_varint(data, first, last)[0]
            elif number == _NAME and prefix >= 0:
                found.name = bytes(data[first:last]).decode(errors="replace")
            elif number == _ENTRY and prefix >= 0:
                texts = {n: bytes(data[a:b]).decode(errors="replace") for n, p, a, b in _fields(data, first, last)}
                entries[texts.get(1, "")] = texts.get(2, "")
            elif number == _LOCATION and prefix < 0 and _read_varint(data, first, last)[0] == 1:
                found.external = entries
            elif number in _DATA:
                places.append((_DATA[number] if prefix >= 0 else "", prefix, first, last))
        found.dims = tuple(dims)
        largest = max(places, key=lambda place: place[3] - place[2], default=None)
        if largest and [place[0] for place in places].count(largest[0]) == 1:
            found.field, found.prefix, found.start, found.stop = largest
        return found


def _fields(data: Buffer, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field's number, where its length is written (-1: it has none), and where it begins and ends."""
    while at < stop:
        tag, at = _read_varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        prefix = -1
        if kind == _VARINT:
            _, end = _read_varint(data, at, stop)
        elif kind == _BYTES:
            prefix = at
            length, at = _read_varint(data, at, stop)
            end = at + length
        elif kind in (_EIGHT, _FOUR):
            end = at + (8 if kind == _EIGHT else 4)
        else:
            raise WireError("a field of a kind that ONNX does not use")
        if number == 0 or end > stop:
            raise WireError("it is cut short" if number else "a field has no number")
        yield number, prefix, at, end
        at = end


def _read_varint(data: Buffer, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise WireError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WireError("a number is too long")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
