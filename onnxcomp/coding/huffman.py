"""Canonical Huffman codes of bytes, no longer than 12 bits; the symbols go round a number of lanes.

A chunk is the number of bytes of each lane (uint16, little-endian), then the lanes. Lane k of n holds the codes of the
symbols k, k + n, k + 2n, ..., the highest bit first, filled up with zeros to a whole byte. Lanes make it possible to
decode many symbols at once, with numpy alone too.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from onnxcomp.coding.errors import CodingError
from onnxcomp.coding.kernels import kernels

__all__ = ["LONGEST", "check_lengths", "code_lengths", "codes", "decode", "encode"]

LONGEST = 12
_FULL = 1 << LONGEST
Each = Callable[..., Iterable[Any]]


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Return the bits of each symbol's code: the best ones that are at most 12.

    Huffman's (1952), and where its codes are too long, those of package-merge (Larmore and Hirschberg 1990). Where
    there is a single symbol, a second one gets a code that is never used: the codes are always complete.

    Args:
        counts: How often each symbol comes, [256].

    Returns:
        Lengths, uint8 [256]; 0: it never comes.
    """
    present = np.flatnonzero(counts)
    lengths = np.zeros(256, np.uint8)
    if len(present) == 0:
        return lengths
    if len(present) == 1:
        lengths[[present[0], (present[0] + 1) % 256]] = 1
        return lengths
    coins: list[tuple[int, tuple[int, ...]]] = sorted((int(counts[symbol]), (int(symbol),)) for symbol in present)
    heap = list(coins)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        joined = first[1] + second[1]
        lengths[list(joined)] += 1
        heapq.heappush(heap, (first[0] + second[0], joined))
    if lengths.max() <= LONGEST:
        return lengths
    lengths[:] = 0
    merged = coins
    for _ in range(LONGEST - 1):
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2], strict=False)]
        merged = list(heapq.merge(coins, packages))
    for _, symbols in merged[: 2 * len(present) - 2]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def check_lengths(lengths: np.ndarray) -> None:
    """Refuse lengths that belong to no complete code.

    Raises:
        CodingError: One is too long, or the Kraft sum is not 1.
    """
    used = lengths[lengths > 0].astype(np.int64)
    if used.size and used.max() > LONGEST:
        raise CodingError(f"a Huffman code of {used.max()} bits, the longest are {LONGEST}")
    if int((_FULL >> used).sum()) != _FULL:
        raise CodingError("a Huffman code that is not complete (its Kraft sum is not 1)")


def codes(lengths: np.ndarray) -> np.ndarray:
    """Return the canonical codes: shorter ones first, those of one length in the order of the symbols; int64 [256]."""
    order = np.lexsort((np.arange(256), lengths))
    order = order[lengths[order] > 0]
    widths = _FULL >> lengths[order].astype(np.int64)
    found = np.zeros(256, np.int64)
    found[order] = (np.cumsum(widths) - widths) >> (LONGEST - lengths[order].astype(np.int64))
    return found


def encode(symbols: np.ndarray, lengths: np.ndarray, lanes: int) -> bytes:
    """Encode one chunk.

    Args:
        symbols: uint8 [n]; each must have a code.
        lengths: Of the codes, uint8 [256].
        lanes: How many; n is at most 32768 times as many.
    """
    steps = -(-len(symbols) // lanes)
    padded = np.zeros(steps * lanes, np.int64)
    bits = np.zeros(steps * lanes, np.int64)
    padded[: len(symbols)] = codes(lengths)[symbols]
    bits[: len(symbols)] = lengths[symbols]
    by_lane, values = bits.reshape(steps, lanes).T, padded.reshape(steps, lanes).T
    ends = by_lane.cumsum(axis=1)
    sizes = (ends[:, -1] + 7) // 8
    offsets = np.cumsum(sizes) - sizes
    at = offsets[:, None] * 8 + ends - by_lane
    # A code and the bits before it in its first byte take at most 19 bits
    windows = values << (24 - by_lane - (at & 7))
    total = int(sizes.sum())
    found = np.zeros(total + 2, np.int64)
    for shift in range(3):
        part = (windows >> (16 - 8 * shift)) & 255
        found += np.bincount((at.ravel() >> 3) + shift, part.ravel(), minlength=total + 2)[: total + 2].astype(np.int64)
    return sizes.astype("<u2").tobytes() + found[:total].astype(np.uint8).tobytes()


def decode(
    chunks: Sequence[bytes | memoryview], counts: Sequence[int], lengths: np.ndarray, lanes: int, *, each: Each = map
) -> np.ndarray:
    """Decode chunks.

    Args:
        chunks: What `encode` made.
        counts: How many symbols each chunk holds.
        lengths: Of the codes, uint8 [256].
        lanes: How many.
        each: As ``map``; one that uses threads decodes chunks at the same time, where numba is installed.

    Returns:
        The symbols of all chunks, uint8.

    Raises:
        CodingError: The codes are not complete, or a lane does not end where its symbols do.
    """
    check_lengths(lengths)
    table = np.zeros(_FULL, np.int64)
    order = np.lexsort((np.arange(256), lengths))
    order = order[lengths[order] > 0]
    table[:] = np.repeat(order | lengths[order].astype(np.int64) << 8, _FULL >> lengths[order].astype(np.int64))
    out = np.empty(sum(counts), np.uint8)
    parts = np.split(out, np.cumsum(counts)[:-1])
    done = [_lanes(chunk, lanes) for chunk in chunks]
    fast = kernels()
    if fast is not None:

        def one(given: tuple[np.ndarray, np.ndarray, np.ndarray], part: np.ndarray) -> None:
            data, at, _ = given
            fast.huffman_decode(data, at, table, part)

        list(each(one, done, parts))
    else:
        for (data, at, _), part in zip(done, parts, strict=True):
            _decode(data, at, table, part)
    for data, at, ends in done:
        _check_ends(data, at, ends)
    return out


def _lanes(chunk: bytes | memoryview, lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a chunk's data (padded), and the first bit and the last byte of each lane."""
    if len(chunk) < 2 * lanes:
        raise CodingError("a Huffman chunk is cut short")
    sizes = np.frombuffer(chunk, "<u2", lanes).astype(np.int64)
    if int(sizes.sum()) != len(chunk) - 2 * lanes:
        raise CodingError("the lanes of a Huffman chunk are not as long as it is")
    data = np.frombuffer(bytes(chunk[2 * lanes :]) + bytes(3), np.uint8)
    ends = np.cumsum(sizes)
    return data, (ends - sizes) * 8, ends


def _decode(data: np.ndarray, at: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Decode one chunk, a symbol of every lane at a time; ``at`` ends where the lanes did."""
    wide = data.astype(np.int64)
    windows = wide[:-2] << 16 | wide[1:-1] << 8 | wide[2:]
    lanes, last = len(at), len(windows) - 1
    for base in range(0, len(out), lanes):
        active = at[: len(out) - base]
        window = windows.take(np.minimum(active >> 3, last))
        entry = table.take((window >> (12 - (active & 7))) & 4095)
        out[base : base + lanes] = entry & 255
        active += entry >> 8


def _check_ends(data: np.ndarray, at: np.ndarray, ends: np.ndarray) -> None:
    """Refuse lanes that were not read to their last bit, and filling bits that are not 0."""
    filling = -at & 7
    partly = filling > 0
    if ((at + 7) >> 3 != ends).any() or (data[at[partly] >> 3] & ((1 << filling[partly]) - 1)).any():
        raise CodingError("a Huffman chunk does not end where its symbols do")
