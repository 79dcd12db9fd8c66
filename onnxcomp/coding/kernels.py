"""The inner loops of the coders for numba, compiled when they are first needed; None where numba is not installed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = ["Kernels", "kernels"]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Compiled loops; each releases the interpreter lock.

    Attributes:
        huffman_decode: See `huffman.decode`.
        rans_decode: See `rans.decode`.
        rans_encode: See `rans.encode`.
    """

    huffman_decode: Callable[..., Any]
    rans_decode: Callable[..., Any]
    rans_encode: Callable[..., Any]


@cache
def kernels() -> Kernels | None:
    """Compile the loops, or take them from numba's cache; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    loops = (_huffman_decode, _rans_decode, _rans_encode)
    try:
        return Kernels(*(njit(loop, nogil=True, cache=True) for loop in loops))
    except RuntimeError:  # no folder where a cache can be written
        return Kernels(*(njit(loop, nogil=True) for loop in loops))


def _huffman_decode(data, starts, table, out):  # type: ignore[no-untyped-def]
    """Decode lanes in turns; ``starts`` [lanes] are bit positions and end where the lanes did."""
    last = len(data) - 3
    lanes = len(starts)
    count = len(out)
    for base in range(0, count, lanes):
        for lane in range(min(lanes, count - base)):
            at = starts[lane]
            byte = min(at >> 3, last)
            window = (np.int64(data[byte]) << 16) | (np.int64(data[byte + 1]) << 8) | np.int64(data[byte + 2])
            entry = table[(window >> (12 - (at & 7))) & 4095]
            out[base + lane] = entry & 255
            starts[lane] = at + (entry >> 8)


def _rans_decode(words, states, table, classes, out):  # type: ignore[no-untyped-def]
    """Decode lanes in turns; return how many words that took, or -1 where there are too few.

    ``words`` ends with as many that are not read as there are lanes; ``classes`` are those of the symbols, or empty.
    """
    lanes = len(states)
    last = len(words) - lanes
    count = len(out)
    several = len(classes) > 0
    used = 0
    for base in range(0, count, lanes):
        if used > last:
            return -1
        for lane in range(min(lanes, count - base)):
            state = np.int64(states[lane])
            slot = state & 4095
            if several:
                slot |= np.int64(classes[base + lane]) << 12
            entry = np.int64(table[slot])
            out[base + lane] = entry & 255
            grown = (((entry >> 8) & 4095) + 1) * (state >> 12) + (entry >> 20)
            small = grown < 65536
            word = np.int64(words[used])
            states[lane] = (grown << 16) | word if small else grown
            used += int(small)
    return used


def _rans_encode(symbols, frequencies, starts, classes, states, words):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Encode from the last symbol to the first; return where in ``words``, filled from its end, the result begins."""
    lanes = len(states)
    at = len(words)
    for position in range(len(symbols) - 1, -1, -1):
        lane = position % lanes
        entry = (np.int64(classes[position]) << 8) | np.int64(symbols[position])
        frequency = np.int64(frequencies[entry])
        state = np.int64(states[lane])
        if state >= frequency << 20:
            at -= 1
            words[at] = state & 65535
            state >>= 16
        states[lane] = (state // frequency << 12) + state % frequency + np.int64(starts[entry])
    return at
