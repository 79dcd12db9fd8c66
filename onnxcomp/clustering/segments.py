"""The best cut of an ordered histogram into k runs of cells: dynamic programming, for numba and for numpy.

What is minimised is the weighted squared error of each cell against the mean of its run. The sum of the squares is the
same for every cut, so that the gain ``S^2 / W`` of a run is all that counts. Where the best last cut moves, it moves to
the right with the end: positions are solved from coarse to fine, each between the cuts of its neighbours (divide and
conquer; Wang and Song 2011 have the recurrence). Both implementations compare the same sums in the same order.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["best_segments"]

Floats = npt.NDArray[np.float64]
Cuts = npt.NDArray[np.int32]


def best_segments(weights: Floats, sums: Floats, k: int) -> npt.NDArray[np.int64]:
    """Cut cells into k runs of least squared error.

    Args:
        weights: Of the cells, positive, [n].
        sums: Of the cells, [n]; ``sums / weights`` ascends.
        k: From 1 to n.

    Returns:
        Where each run begins, int64 [k], ascending from 0.
    """
    n = len(weights)
    mean = sums.sum() / weights.sum()  # sums of what lies around 0 keep more digits
    upto_weights = np.concatenate([[0.0], np.cumsum(weights)])
    upto_sums = np.concatenate([[0.0], np.cumsum(sums - mean * weights)])
    gains = np.zeros(n + 1)
    gains[1:] = upto_sums[1:] ** 2 / upto_weights[1:]
    cuts = np.zeros((k + 1, n + 1), np.int32)
    layer = _compiled() or _layer_by_levels
    for runs in range(2, k + 1):
        found = np.zeros(n + 1)
        layer(upto_weights, upto_sums, gains, runs, found, cuts[runs])
        gains = found
    starts = np.zeros(k, np.int64)
    end = n
    for runs in range(k, 1, -1):
        end = int(cuts[runs, end])
        starts[runs - 1] = end
    return starts


@cache
def _compiled() -> Callable[..., Any] | None:
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        return njit(_layer, nogil=True, cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder where a cache can be written
        return njit(_layer, nogil=True)  # type: ignore[no-any-return]


def _layer(weights, sums, gains, runs, found, cuts):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Find, for every end from ``runs`` on, the best beginning of the last run."""
    n = len(weights) - 1
    ends = n - runs + 1
    step = 1
    while 2 * step <= ends:
        step *= 2
    while step:
        for at in range(step, ends + 1, 2 * step):
            end = at + runs - 1
            low = cuts[end - step] if at > step else runs - 1
            high = min(end - 1, cuts[end + step]) if at + step <= ends else end - 1
            best, where = -1.0, low
            for start in range(low, high + 1):
                total = sums[end] - sums[start]
                gain = gains[start] + total * total / (weights[end] - weights[start])
                if gain > best:
                    best, where = gain, start
            found[end] = best
            cuts[end] = where
        step //= 2


def _layer_by_levels(  # noqa: PLR0917  (as the compiled one)
    weights: Floats, sums: Floats, gains: Floats, runs: int, found: Floats, cuts: Cuts
) -> None:
    """Do what `_layer` does, all positions of a step at once."""
    n = len(weights) - 1
    ends = n - runs + 1
    step = 1 << (ends.bit_length() - 1)
    while step:
        at = np.arange(step, ends + 1, 2 * step)
        end = at + runs - 1
        low = np.where(at > step, cuts[end - step], runs - 1)
        high = np.minimum(end - 1, np.where(at + step <= ends, cuts[np.minimum(end + step, n)], n))
        lengths = (high - low + 1).astype(np.int64)
        firsts = np.cumsum(lengths) - lengths
        owner = np.repeat(np.arange(len(at)), lengths)
        start = np.arange(len(owner)) - firsts[owner] + low[owner]
        total = sums[end[owner]] - sums[start]
        gain = gains[start] + total * total / (weights[end[owner]] - weights[start])
        best = np.maximum.reduceat(gain, firsts)
        hits = np.flatnonzero(gain == best[owner])[::-1]
        cuts[end[owner[hits]]] = start[hits]  # the first of equals is written last
        found[end] = best
        step //= 2
