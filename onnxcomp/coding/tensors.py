"""Tensors as streams: raw, one coded stream, a mask of what is not zero with the values, or a stream per byte plane."""

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcomp.coding.errors import CodingError
from onnxcomp.coding.streams import (
    CHUNK,
    CodedStream,
    Coder,
    Matrices,
    Plan,
    decode_stream,
    entropy,
    histogram,
    plan_stream,
)

__all__ = ["Codec", "CodedTensor", "decode_tensor", "encode_tensor", "planes"]

_LEAST_ZEROS = 0.1  # share from which a mask is tried
Each = Callable[..., Iterable[Any]]


class Codec(enum.IntEnum):
    """How a tensor is stored; the numbers are those of the file format."""

    RAW = 0
    HUFFMAN = 1
    MASK = 2
    PLANES = 3
    RANS = 4
    DEFLATE = 5


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """A tensor as it is stored.

    Attributes:
        codec: How.
        width: Bytes of an element.
        rotated: Whether elements were rotated left by a bit before they were cut into planes.
        streams: One; of MASK the mask and a stream per byte of an element, of PLANES a stream per byte of an element.
        bound: Bits that a coder of elements (of one byte) or of their byte planes takes at least, each on its own.
    """

    codec: Codec
    width: int
    rotated: bool
    streams: tuple[CodedStream, ...]
    bound: float = 0.0


def encode_tensor(
    data: np.ndarray,
    *,
    width: int = 1,
    rotated: bool = False,
    matrices: Matrices = (),
    codec: Codec | None = None,
    each: Each = map,
) -> CodedTensor:
    """Store a tensor in the smallest way, or in a named one.

    Args:
        data: Its bytes, uint8 [elements * width], little-endian.
        width: Bytes of an element: 1, 2, 4 or 8.
        rotated: Whether elements are floats whose exponent has 8 bits: a rotation by a bit puts it into one byte.
        matrices: Rows and columns of the matrices that elements of one byte are, for scale classes; empty: none.
        codec: How; None: the smallest.
        each: As ``map``; one that uses threads codes chunks at the same time.
    """
    counted = sum(entropy(histogram(plane)) for plane in planes(data, width, rotated=rotated))
    if codec is not None:
        plans = _plans(data, codec, width, rotated=rotated, matrices=matrices)
    else:
        choices = {}
        for tried in _candidates(data, width):
            choices[tried] = _plans(data, tried, width, rotated=rotated, matrices=matrices)
        codec = min(choices, key=lambda tried: sum(plan.bits for plan in choices[tried]))
        plans = choices[codec]
    streams = tuple(plan.encode(each) for plan in plans)
    return CodedTensor(codec, width, rotated and codec in (Codec.MASK, Codec.PLANES), streams, counted)


def _candidates(data: np.ndarray, width: int) -> Iterable[Codec]:
    yield from (Codec.RAW, Codec.HUFFMAN, Codec.RANS, Codec.DEFLATE)
    if width > 1:
        yield Codec.PLANES
    elements = data.view(f"<u{width}")
    if elements.size and np.count_nonzero(elements) <= (1 - _LEAST_ZEROS) * elements.size:
        yield Codec.MASK


def _plans(data: np.ndarray, codec: Codec, width: int, *, rotated: bool, matrices: Matrices) -> list[Plan]:
    match codec:
        case Codec.PLANES:
            return [plan_stream(plane) for plane in planes(data, width, rotated=rotated)]
        case Codec.MASK:
            elements = data.view(f"<u{width}")
            mask = elements != 0
            values = elements[mask].view(np.uint8)
            bits = np.packbits(mask, bitorder="little")
            return [plan_stream(bits), *(plan_stream(plane) for plane in planes(values, width, rotated=rotated))]
        case _:
            return [plan_stream(data, coders=[Coder(codec)], matrices=matrices if width == 1 else ())]


def planes(data: np.ndarray, width: int, *, rotated: bool) -> list[np.ndarray]:
    """Cut elements into their bytes, the lowest first."""
    elements = data.view(f"<u{width}")
    found = [np.empty(elements.size, np.uint8) for _ in range(width)]
    for start in range(0, elements.size, CHUNK):  # in parts: only the planes take memory
        part = elements[start : start + CHUNK]
        if rotated:
            part = part << 1 | part >> (8 * width - 1)
        cut = part.view(np.uint8).reshape(-1, width)
        for byte, plane in enumerate(found):
            plane[start : start + CHUNK] = cut[:, byte]
    return found


def decode_tensor(coded: CodedTensor, size: int, each: Each = map) -> np.ndarray:
    """Read a tensor.

    Args:
        coded: As it is stored.
        size: Bytes that it must have.
        each: As ``map``; one that uses threads decodes chunks at the same time.

    Returns:
        uint8 [size].

    Raises:
        CodingError: It is damaged.
    """
    width = coded.width
    if width not in (1, 2, 4, 8) or size % width:
        raise CodingError(f"{size} bytes of elements of {width}")
    elements = size // width
    sizes = [stream.size for stream in coded.streams]
    match coded.codec:
        case Codec.PLANES:
            _check(sizes, [elements] * width)
            return _joined(coded.streams, elements, width, rotated=coded.rotated, each=each).view(np.uint8)
        case Codec.MASK:
            values = sizes[-1] if sizes else 0
            _check(sizes, [-(-elements // 8)] + [values] * width)
            bits = decode_stream(coded.streams[0], each)
            mask = np.unpackbits(bits, bitorder="little")
            if mask[elements:].any() or int(np.count_nonzero(mask)) != values:
                raise CodingError("a mask that does not fit its values")
            found = np.zeros(elements, f"<u{width}")
            some = _joined(coded.streams[1:], values, width, rotated=coded.rotated, each=each)
            if not some.all():
                raise CodingError("a zero among the values of a mask")
            found[mask[:elements].view(bool)] = some
            return found.view(np.uint8)
        case _:
            _check(sizes, [size])
            if (size and int(coded.streams[0].coder) != coded.codec) or coded.rotated:
                raise CodingError("a stream of another coder than that of the tensor")
            return decode_stream(coded.streams[0], each)


def _check(sizes: Sequence[int], needed: Sequence[int]) -> None:
    if list(sizes) != list(needed):
        raise CodingError("the streams of a tensor are not as long as they must be")


def _joined(streams: Sequence[CodedStream], elements: int, width: int, *, rotated: bool, each: Each) -> np.ndarray:
    found = np.empty((elements, width), np.uint8)
    for byte, stream in enumerate(streams):
        found[:, byte] = decode_stream(stream, each)
    joined = found.reshape(-1).view(f"<u{width}")
    for start in range(0, elements if rotated else 0, CHUNK):
        part = joined[start : start + CHUNK]
        part[:] = part >> 1 | part << (8 * width - 1)
    return joined
