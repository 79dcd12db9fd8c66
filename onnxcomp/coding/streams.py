"""Streams: arrays of bytes in chunks, each stream with the coder that makes it smallest.

A stream's head, what its coder must know, is compressed with zlib: of Huffman the 256 code lengths, two in a byte; of
rANS the highest class (1 byte), the number of matrices and of each its rows and columns (uint32, little-endian), the
levels of all rows and of all columns (1 byte each) and the frequencies of all classes, first their low bytes, then
their high ones. The others have none.
"""

import enum
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcomp.coding import huffman, rans
from onnxcomp.coding.errors import CodingError

__all__ = [
    "CHUNK",
    "CodedStream",
    "Coder",
    "Matrices",
    "Plan",
    "class_counts",
    "decode_stream",
    "entropy",
    "histogram",
    "lanes_for",
    "plan_stream",
    "table_bits",
]

CHUNK = 1 << 20  # symbols that decode on their own
_SYMBOLS_PER_LANE = 2048
_MOST_LANES = 512
_MOST_PER_LANE = 32768  # codes of 12 bits: their bytes fit 16 bits
_SAMPLE, _SAMPLES = 1 << 17, 5  # bytes that deflate is tried on, and at how many places; all of what is smaller
_MOST_ROWS, _MOST_MATRICES = 1 << 24, 4096
_MOST_HEAD = 5 + 8 * _MOST_MATRICES + 2 * _MOST_ROWS + 16 * 512
_CLASS_STEPS = (0.5, 1.0)  # of levels, in powers of two
_BYTES_PER_TABLE = 240  # about, compressed
Each = Callable[..., Iterable[Any]]
Matrices = Sequence[tuple[int, int]]


class Coder(enum.IntEnum):
    """How the symbols of a stream are written; the numbers are those of the file format."""

    RAW = 0
    HUFFMAN = 1
    RANS = 4
    DEFLATE = 5


@dataclass(frozen=True, slots=True)
class CodedStream:
    """A stream as it is stored.

    Attributes:
        coder: How it is written.
        size: Bytes that it decodes to.
        paired: Whether a symbol is two bytes below 16 (the first one in its low half).
        lanes: Of Huffman and rANS.
        head: What the coder must know.
        chunks: Of 2^20 symbols each, but for the last.
    """

    coder: Coder
    size: int
    paired: bool
    lanes: int
    head: bytes
    chunks: tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a stream will be written.

    Attributes:
        data: The bytes, uint8.
        coder: How.
        bits: About how many it will take.
        paired: See `CodedStream`.
        classes: Of rANS.
    """

    data: np.ndarray
    coder: Coder
    bits: float
    paired: bool = False
    classes: rans.Classes = rans.ONE_CLASS

    def encode(self, each: Each = map) -> CodedStream:
        """Write it."""
        symbols = _paired(self.data) if self.paired else self.data
        lanes = lanes_for(len(symbols))
        starts = range(0, len(symbols), CHUNK)
        parts = [symbols[start : start + CHUNK] for start in starts]
        head = b""
        match self.coder:
            case Coder.RAW:
                chunks = [part.tobytes() for part in parts]
            case Coder.DEFLATE:
                chunks = list(each(lambda part: zlib.compress(part.tobytes()), parts))
            case Coder.HUFFMAN:
                lengths = huffman.code_lengths(histogram(symbols))
                head = zlib.compress((lengths[::2] | lengths[1::2] << 4).astype(np.uint8).tobytes(), 9)
                chunks = list(each(lambda part: huffman.encode(part, lengths, lanes), parts))
            case Coder.RANS:
                table = _frequencies(_counts(symbols, self.classes))
                head = _rans_head(table, self.classes)
                encode = rans.encode
                chunks = list(
                    each(lambda part, at: encode(part, table, lanes, classes=self.classes, first=at), parts, starts)
                )
        return CodedStream(self.coder, len(self.data), self.paired, lanes, head, tuple(chunks))


def lanes_for(symbols: int) -> int:
    """Return how many lanes a stream gets: so few that their states cost little, so many that numpy has work."""
    return 1 << (max(1, min(min(symbols, CHUNK) // _SYMBOLS_PER_LANE, _MOST_LANES)).bit_length() - 1)


def histogram(data: np.ndarray) -> np.ndarray:
    """Count each byte of an array of uint8, in parts: numpy turns what it counts into 8 bytes each; int64 [256]."""
    found = np.zeros(256, np.int64)
    for start in range(0, len(data), CHUNK):
        found += np.bincount(data[start : start + CHUNK], minlength=256)
    return found


def entropy(counts: np.ndarray) -> float:
    """Return the bits that symbols of these counts take at least, all together, each coded on its own."""
    present = counts[counts > 0].astype(np.float64)
    return float(-(present * np.log2(present / present.sum())).sum()) if present.size else 0.0


def plan_stream(data: np.ndarray, *, coders: Iterable[Coder] = tuple(Coder), matrices: Matrices = ()) -> Plan:
    """Choose how to write bytes: the smallest of the coders.

    Args:
        data: uint8 [n].
        coders: Among these.
        matrices: Rows and columns of the matrices that the bytes are, if they are.
    """
    plans = [plan for coder in coders for plan in _plans(data, coder, matrices)]
    return min(plans, key=lambda plan: plan.bits)


def _magnitudes(data: np.ndarray, matrices: Matrices) -> list[np.ndarray]:
    """Return how far bytes are from the middle of their matrix, uint8 [rows, columns]; they may be int8 or uint8."""
    found, at = [], 0
    unsigned = np.arange(256, dtype=np.float64)
    signed = np.where(unsigned < 128, unsigned, unsigned - 256)
    for rows, columns in matrices:
        part = data[at : at + rows * columns]
        at += part.size
        counts = histogram(part)
        middles = [float((counts * values).sum() / part.size) for values in (signed, unsigned)]
        distances = [np.abs(values - round(middle)) for values, middle in zip((signed, unsigned), middles, strict=True)]
        nearest = min(distances, key=lambda distance: float((counts * distance).sum()))
        found.append(nearest.astype(np.uint8)[part].reshape(rows, columns))
    return found


def _plans(data: np.ndarray, coder: Coder, matrices: Matrices) -> Iterable[Plan]:
    if coder is Coder.RAW or data.size == 0:
        yield Plan(data, Coder.RAW, data.size * 8)
        return
    if coder is Coder.DEFLATE:
        size = _SAMPLE if data.size > _SAMPLE * _SAMPLES else data.size
        starts = {part * (data.size - size) // (_SAMPLES - 1) for part in range(_SAMPLES)}
        samples = [data[start : start + size].tobytes() for start in sorted(starts)]
        packed = sum(len(zlib.compress(sample)) for sample in samples) / sum(map(len, samples))
        yield Plan(data, coder, packed * data.size * 8)
        return
    nibbles = bool(data.max() < 16)
    for paired in (False, True) if nibbles else (False,):
        symbols = _paired(data) if paired else data
        counts = histogram(symbols)
        states = lanes_for(symbols.size) * -(-symbols.size // CHUNK)
        if coder is Coder.HUFFMAN:
            lengths = huffman.code_lengths(counts)
            yield Plan(data, coder, float((counts * lengths).sum()) + (20 * states) + 8 * 80, paired)
        else:
            yield Plan(data, coder, _cost(counts[None]) + 28 * states, paired)
    if coder is Coder.RANS and 0 < len(matrices) <= _MOST_MATRICES and sum(map(sum, matrices)) < _MOST_ROWS:
        scales = _magnitudes(data, matrices)
        states = lanes_for(data.size) * -(-data.size // CHUNK)
        for step in _CLASS_STEPS:
            classes = rans.scale_classes(scales, step)
            if classes.top:
                levels = entropy(np.bincount(classes.rows)) + entropy(np.bincount(classes.columns))
                cost = _cost(_counts(data, classes)) + 28 * states + 1.1 * levels
                yield Plan(data, coder, cost, classes=classes)


def _cost(counts: np.ndarray) -> float:
    """Return the bits that rANS takes for counts, [classes, 256], with its tables."""
    total = 0.0
    for row in counts[counts.any(axis=1)]:
        present = row > 0
        symbols = row[present] * (rans.BITS - np.log2(rans.normalized(row)[present]))
        total += float(symbols.sum()) + table_bits(int(present.sum()))
    return total


def table_bits(symbols: int) -> float:
    """Return about how many bits a table of so many symbols takes in the head of a stream."""
    return 8 * min(_BYTES_PER_TABLE, 16 + 1.2 * symbols)


def _counts(symbols: np.ndarray, classes: rans.Classes) -> np.ndarray:
    """Count the symbols of each class, int64 [classes, 256]."""
    found = np.zeros((classes.top + 1) * 256, np.int64)
    for start in range(0, len(symbols), CHUNK):
        part = symbols[start : start + CHUNK]
        found += np.bincount(classes.part(start, len(part)).astype(np.int64) << 8 | part, minlength=found.size)
    return found.reshape(-1, 256)


def class_counts(data: np.ndarray, matrix: tuple[int, int]) -> np.ndarray:
    """Count the bytes of a matrix by scale class, int64 [16, 256]."""
    classes = rans.scale_classes(_magnitudes(data, [matrix]), _CLASS_STEPS[0])
    found = np.zeros((16, 256), np.int64)
    found[: classes.top + 1] = _counts(data, classes)
    return found


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Return the frequencies of each class; one that never comes gets a table that is never used."""
    unused = np.bincount([0], minlength=256)
    return np.stack([rans.normalized(row if row.any() else unused) for row in counts])


def _paired(data: np.ndarray) -> np.ndarray:
    """Put two bytes below 16 into one; an odd last one is alone."""
    found = data[::2].copy()
    found[: data.size // 2] |= data[1::2] << 4
    return found


def _rans_head(table: np.ndarray, classes: rans.Classes) -> bytes:
    shapes = np.array([len(classes.shapes), *itertools.chain(*classes.shapes)], "<u4").tobytes()
    levels = classes.rows.tobytes() + classes.columns.tobytes()
    low, high = (table & 255).astype(np.uint8), (table >> 8).astype(np.uint8)
    return zlib.compress(bytes([classes.top]) + shapes + levels + low.tobytes() + high.tobytes(), 9)


def decode_stream(stream: CodedStream, each: Each = map) -> np.ndarray:
    """Read a stream; uint8.

    Raises:
        CodingError: It is damaged.
    """
    symbols = -(-stream.size // 2) if stream.paired else stream.size
    counts = [min(CHUNK, symbols - start) for start in range(0, symbols, CHUNK)]
    if len(counts) != len(stream.chunks):
        raise CodingError(f"{len(stream.chunks)} chunks, where {len(counts)} are needed")
    if stream.lanes < 1 or (counts and counts[0] > stream.lanes * _MOST_PER_LANE):
        raise CodingError(f"{stream.lanes} lanes for {symbols} symbols")
    if stream.coder in (Coder.RAW, Coder.DEFLATE) and stream.head:
        raise CodingError("a head, where the coder has none")
    match stream.coder:
        case _ if not counts:
            return np.empty(0, np.uint8)
        case Coder.RAW:
            found = _raw(stream.chunks, counts)
        case Coder.DEFLATE:
            found = _raw(list(each(_inflate, stream.chunks, counts)), counts)
        case Coder.HUFFMAN:
            packed = np.frombuffer(inflate(stream.head, 128), np.uint8)
            lengths = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
            found = huffman.decode(stream.chunks, counts, lengths, stream.lanes, each=each)
        case Coder.RANS:
            table, classes = _read_rans_head(stream.head, symbols)
            found = rans.decode(stream.chunks, counts, table, stream.lanes, classes=classes, each=each)
    if not stream.paired:
        return found
    both = np.stack([found & 15, found >> 4], axis=1).reshape(-1)
    if stream.size % 2 and both[-1]:
        raise CodingError("half a pair that is not empty")
    return both[: stream.size]


def inflate(packed: bytes | memoryview, most: int, *, exact: bool = True) -> bytes:
    """Decompress with zlib what may not be larger than ``most`` bytes.

    Raises:
        CodingError: It is damaged, larger, or (`exact`) smaller.
    """
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(packed, most + 1)
    except zlib.error as err:
        raise CodingError(f"compressed data is damaged: {err}") from err
    if len(found) > most or not reader.eof or reader.unused_data or (exact and len(found) != most):
        raise CodingError("compressed data is not as large as it must be")
    return found


def _inflate(chunk: bytes | memoryview, count: int) -> bytes:
    return inflate(chunk, count)


def _raw(chunks: Sequence[bytes | memoryview], counts: Sequence[int]) -> np.ndarray:
    if [len(chunk) for chunk in chunks] != list(counts):
        raise CodingError("a raw chunk is not as long as it must be")
    return np.frombuffer(b"".join(chunks), np.uint8)


def _read_rans_head(head: bytes, symbols: int) -> tuple[np.ndarray, rans.Classes]:
    content = inflate(head, _MOST_HEAD, exact=False)
    count = int.from_bytes(content[1:5], "little")
    levels_at = 5 + 8 * count
    if count > _MOST_MATRICES or len(content) < levels_at or content[0] > 15:
        raise CodingError("the head of a rANS stream is cut short")
    top = content[0]
    sizes = np.frombuffer(content, "<u4", 2 * count, 5).tolist()
    shapes = tuple(zip(sizes[::2], sizes[1::2], strict=True))
    rows, columns = sum(sizes[::2]), sum(sizes[1::2])
    tables_at = levels_at + rows + columns
    if len(content) != tables_at + 512 * (top + 1):
        raise CodingError("the head of a rANS stream is not as long as it must be")
    if sum(map(math.prod, shapes)) != (symbols if top else 0) or (sizes and min(sizes) < 1):
        raise CodingError(f"scale classes of {count} matrices do not fit {symbols} symbols")
    levels = np.frombuffer(content, np.uint8, rows + columns, levels_at)
    if levels.size and levels.max() > 15:
        raise CodingError("a scale level above 15")
    low, high = np.frombuffer(content, np.uint8, offset=tables_at).reshape(2, top + 1, 256).astype(np.int64)
    return low | high << 8, rans.Classes(shapes, levels[:rows], levels[rows:], top)
