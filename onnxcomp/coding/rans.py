"""rANS of bytes with static frequencies of 12 bits; the symbols go round a number of lanes; classes choose the table.

States are 32 bits, of which words of 16 move to the stream (Duda 2013; interleaved as by Giesen 2014). A chunk is the
states of all lanes (uint32, little-endian), then the words (uint16) in the order in which a decoder reads them. An
encoder starts all states at 65536, so that a decoder ends there: that checks the chunk.

Symbols of matrices may have classes: that of row i and column j is min(row level i + column level j, top), and each
class has a table of its own. Levels follow the mean magnitude of rows and columns, in steps of half a power of two or
of a whole one; they are absolute, so that matrices of one stream share tables.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcomp.coding.errors import CodingError
from onnxcomp.coding.kernels import kernels

__all__ = ["BITS", "Classes", "check_frequencies", "decode", "encode", "normalized", "scale_classes"]

BITS = 12
_TOTAL = 1 << BITS
_LOWEST = 1 << 16  # of states between two symbols
_TOP = 15  # the highest level and class
_TINY = 2.0**-16
Each = Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Classes:
    """Which table codes which symbol of matrices that follow each other.

    Attributes:
        shapes: Rows and columns of each matrix.
        rows: Level of each row of all of them, uint8.
        columns: Level of each column, uint8.
        top: The highest class; 0: there is one table.
    """

    shapes: tuple[tuple[int, int], ...]
    rows: np.ndarray
    columns: np.ndarray
    top: int

    def part(self, first: int, count: int) -> np.ndarray:
        """Return the classes of ``count`` symbols from ``first`` on, uint8."""
        found = np.zeros(count, np.uint8)
        if self.top == 0:
            return found
        begin = row = column = 0
        for rows, columns in self.shapes:
            low, high = max(first, begin), min(first + count, begin + rows * columns)
            if low < high:
                start, stop = (low - begin) // columns, -(-(high - begin) // columns)
                levels = self.rows[row + start : row + stop, None] + self.columns[None, column : column + columns]
                whole = np.minimum(levels, self.top).reshape(-1)[low - begin - start * columns :]
                found[low - first : high - first] = whole[: high - low]
            begin, row, column = begin + rows * columns, row + rows, column + columns
        return found


ONE_CLASS = Classes((), np.zeros(0, np.uint8), np.zeros(0, np.uint8), 0)


def scale_classes(magnitudes: Sequence[np.ndarray], step: float = 0.5) -> Classes:
    """Return classes by the scale of rows and columns: -log2(row mean * column mean / (mean * 128)) / step, rounded.

    Args:
        magnitudes: Absolute values of each matrix, [rows, columns].
        step: Of the levels, in powers of two.
    """
    rows, columns = [], []
    for matrix in magnitudes:
        by_row, by_column = (matrix.mean(axis=axis, dtype=np.float64) for axis in (1, 0))
        most = max(float(by_row.max()), _TINY)
        rows.append(_levels(by_row / most, step))
        columns.append(_levels(by_column * most / max(float(by_row.mean()), _TINY) / 128, step))
    top = max(int(r.max()) + int(c.max()) for r, c in zip(rows, columns, strict=True))
    shapes = tuple((len(r), len(c)) for r, c in zip(rows, columns, strict=True))
    return Classes(shapes, np.concatenate(rows), np.concatenate(columns), min(top, _TOP))


def _levels(scales: np.ndarray, step: float) -> np.ndarray:
    found: np.ndarray = np.clip(np.round(-np.log2(np.maximum(scales, _TINY)) / step), 0, _TOP).astype(np.uint8)
    return found


def normalized(counts: np.ndarray) -> np.ndarray:
    """Return frequencies that sum to 4096 and code these counts (nearly) best; what comes at all gets at least 1.

    Args:
        counts: int [256], not all 0.

    Returns:
        int64 [256].
    """
    total = int(counts.sum())
    found = np.where(counts > 0, np.maximum(counts * _TOTAL // total, 1), 0).astype(np.int64)
    while (left := _TOTAL - int(found.sum())) != 0:
        # What one more is worth, or one less costs, in bits
        present = np.where(counts > 0, found, 1).astype(np.float64)
        if left > 0:
            gain = np.where(counts > 0, counts * np.log2((present + 1) / present), -1.0)
            found[np.argsort(-gain, kind="stable")[: min(left, max(1, int((counts > 0).sum()) // 8))]] += 1
        else:
            loss = np.where(found > 1, counts * np.log2(present / np.maximum(present - 1, 0.5)), np.inf)
            found[np.argmin(loss)] -= 1
    return found


def check_frequencies(frequencies: np.ndarray) -> None:
    """Refuse frequencies, [classes, 256], of a class that do not sum to 4096.

    Raises:
        CodingError: They do not.
    """
    if (frequencies.sum(axis=1) != _TOTAL).any():
        raise CodingError(f"the frequencies of a class do not sum to {_TOTAL}")


def encode(
    symbols: np.ndarray, frequencies: np.ndarray, lanes: int, *, classes: Classes = ONE_CLASS, first: int = 0
) -> bytes:
    """Encode one chunk.

    Args:
        symbols: uint8 [n]; each must have a frequency in its class.
        frequencies: int64 [classes, 256].
        lanes: How many.
        classes: Of all symbols.
        first: Index of the first symbol of this chunk among them.
    """
    starts = (np.cumsum(frequencies, axis=1) - frequencies).reshape(-1)
    flat = frequencies.reshape(-1)
    states = np.full(lanes, _LOWEST, np.int64)
    words = np.empty(len(symbols), np.uint16)
    by_symbol = classes.part(first, len(symbols))
    fast = kernels()
    if fast is not None:
        at = fast.rans_encode(symbols, flat, starts, by_symbol, states, words)
    else:
        at = _encode(by_symbol.astype(np.int64) << 8 | symbols, flat, starts, states, words)
    return states.astype("<u4").tobytes() + words[at:].astype("<u2").tobytes()


def _encode(
    entries: np.ndarray, frequencies: np.ndarray, starts: np.ndarray, states: np.ndarray, words: np.ndarray
) -> int:
    """Encode a symbol of every lane at a time, the last ones first."""
    lanes, at = len(states), len(words)
    for base in range((len(entries) - 1) // lanes * lanes, -1, -lanes):
        entry = entries[base : base + lanes]
        frequency, active = frequencies[entry], states[: len(entry)]
        full = active >= frequency << 20
        moved = active[full]
        at -= len(moved)
        words[at : at + len(moved)] = moved & 65535
        active[full] = moved >> 16
        quotient, rest = np.divmod(active, frequency)
        active[:] = (quotient << BITS) + rest + starts[entry]
    return at


def decode(
    chunks: Sequence[bytes | memoryview],
    counts: Sequence[int],
    frequencies: np.ndarray,
    lanes: int,
    *,
    classes: Classes = ONE_CLASS,
    each: Each = map,
) -> np.ndarray:
    """Decode chunks.

    Args:
        chunks: What `encode` made.
        counts: How many symbols each chunk holds.
        frequencies: int64 [classes, 256].
        lanes: How many.
        classes: Of all symbols.
        each: As ``map``; one that uses threads decodes chunks at the same time, where numba is installed.

    Returns:
        The symbols of all chunks, uint8.

    Raises:
        CodingError: The frequencies are not of 12 bits, or a chunk does not end as it was begun.
    """
    check_frequencies(frequencies)
    table = _table(frequencies)
    out = np.empty(sum(counts), np.uint8)
    firsts = [0, *np.cumsum(counts)[:-1].tolist()]
    fast = kernels()

    def one(chunk: bytes | memoryview, first: int, count: int) -> None:
        if len(chunk) < 4 * lanes or len(chunk) % 2:
            raise CodingError("a rANS chunk is cut short")
        states = np.frombuffer(chunk, "<u4", lanes).astype(np.uint32)
        words = np.frombuffer(bytes(chunk[4 * lanes :]) + bytes(2 * lanes), "<u2")  # filled up for one turn too many
        if states.min() < _LOWEST:
            raise CodingError("a state of a rANS chunk is too small")
        part = out[first : first + count]
        by_symbol = classes.part(first, count) if classes.top else np.empty(0, np.uint8)
        if fast is not None:
            used = fast.rans_decode(words, states, table, by_symbol, part)
        else:
            used = _decode(words, states, table, by_symbol, part)
        if used != len(words) - lanes or (states != _LOWEST).any():
            raise CodingError("a rANS chunk does not end where its symbols do")

    list(each(one, chunks, firsts, counts))
    return out


def _table(frequencies: np.ndarray) -> np.ndarray:
    """Return, for each class and slot, symbol, frequency - 1 and place in the symbol's slots in 8, 12 and 12 bits."""
    slots = np.arange(_TOTAL)
    tables = []
    for row in frequencies:
        symbols = np.repeat(np.arange(256), row)
        starts = np.cumsum(row) - row
        tables.append(symbols | (row[symbols] - 1) << 8 | (slots - starts[symbols]) << 20)
    return np.concatenate(tables).astype(np.uint32)


def _decode(words: np.ndarray, states: np.ndarray, table: np.ndarray, by_symbol: np.ndarray, out: np.ndarray) -> int:
    """Decode a symbol of every lane at a time; return how many words that took."""
    lanes, used, last = len(states), 0, len(words) - len(states)
    wide = words.astype(np.uint32)
    tables = by_symbol.astype(np.intp) << BITS
    for base in range(0, len(out), lanes):
        active = states[: len(out) - base]
        slot = (active & 4095).astype(np.intp)
        if tables.size:
            slot |= tables[base : base + len(active)]
        entry = table.take(slot)
        out[base : base + lanes] = entry
        active >>= BITS
        active *= (entry >> 8 & 4095) + 1
        active += entry >> 20
        small = (active < _LOWEST).nonzero()[0]
        following = used + small.size
        if following > last:
            return -1  # more than there are: the chunk is damaged
        active[small] = active[small] << 16 | wide[used:following]
        used = following
    return used
