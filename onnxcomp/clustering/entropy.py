"""Entropy-constrained scalar quantization: least error at so many bits of entropy, for what an entropy coder follows.

Lloyd's algorithm with the length of a code, ``-log2 p``, in the cost: ``w (x - c)^2 + L l`` (Chou, Lookabaugh and Gray
1989; Choi et al. 2017, section 4.2). In one dimension the clusters are intervals: ``x`` goes where the line
``2 c x - c^2 - L l`` is highest. Centroids whose line is highest nowhere are dropped.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from onnxcomp.clustering.cells import Cells
from onnxcomp.clustering.codebook import Codebook
from onnxcomp.clustering.kmeans import kmeans

__all__ = ["entropy_clusters"]

_ITERATIONS = 30
_SEARCHES = 24
_CLOSE = 0.005  # bits
_CELLS = 1 << 13
_TAILS = 8.0  # powers of two by which the step may be less than the range over the centroids, for long tails

Floats = npt.NDArray[np.float64]


def entropy_clusters(cells: Cells, bits: float, *, most: int = 256, zero: bool = False) -> Codebook:
    """Find a codebook whose indices have about so much entropy, and whose error is least.

    Args:
        cells: Histogram of the numbers.
        bits: Of entropy per number, at most; what is found is within a hundredth of a bit where that is possible.
        most: Centroids.
        zero: Whether 0 is one of them, whatever the others are.
    """
    fine = cells.reduced(_CELLS)
    places = fine.means
    low, high = float(places[0]), float(places[-1])
    if low == high:
        return Codebook.nearest(np.zeros(1) if zero and low == 0 else places[:1])
    # A uniform quantizer of step s has about the entropy of the numbers less log2 s: the step is found first
    densest = cache(lambda: kmeans(fine, most))
    small, large = math.log2((high - low) / most) - _TAILS, math.log2(high - low)
    best = _settled(fine, 2.0**large, most, densest, zero=zero)
    for _ in range(_SEARCHES):
        middle = (small + large) / 2
        found = _settled(fine, 2.0**middle, most, densest, zero=zero)
        reached = found.bits(fine)
        if reached > bits:
            small = middle
        else:
            large, best = middle, found
            if bits - reached < _CLOSE:
                break
    return best


def _settled(cells: Cells, step: float, most: int, densest: Callable[[], Codebook], *, zero: bool) -> Codebook:
    """Iterate from multiples of a step; from the most centroids that there may be, where that gives more.

    At high rates the slope of error over bits, dD/dR = -2 ln 2 D with D = step^2 / 12, is that of this step.
    """
    places = cells.means
    slope = math.log(2) / 6 * step**2
    levels = np.unique(np.rint(places / step))
    book = Codebook.nearest(levels * step) if len(levels) <= most else densest()
    for _ in range(_ITERATIONS):
        owner = np.searchsorted(book.thresholds, places)
        counts = np.bincount(owner, cells.counts, minlength=len(book))
        kept = counts > 0
        weights = np.bincount(owner, cells.weights, minlength=len(book))[kept]
        centroids = np.bincount(owner, cells.sums, minlength=len(book))[kept] / weights
        if zero:
            centroids[np.argmin(np.abs(centroids))] = 0.0
        lengths = -np.log2(counts[kept] / counts.sum())
        found = _highest(centroids, slope * lengths)
        if len(found) == len(book) and np.allclose(found.centroids, book.centroids, rtol=1e-5, atol=1e-6 * step):
            return found
        book = found
    return book


def _highest(centroids: Floats, costs: Floats) -> Codebook:
    """Return the centroids whose line ``2 c x - c^2 - cost`` is highest somewhere, and where each begins to be."""
    kept: list[int] = []
    begins: list[float] = []
    for index in range(len(centroids)):
        begin = -math.inf
        while kept:
            last = kept[-1]
            gap = centroids[index] - centroids[last]
            if gap > 0:
                rise = centroids[index] ** 2 + costs[index] - centroids[last] ** 2 - costs[last]
                begin = float(rise / (2 * gap))
                if begin > begins[-1]:
                    break
            elif costs[index] >= costs[last]:
                begin = math.nan
                break
            begin = -math.inf
            kept.pop()
            begins.pop()
        if not math.isnan(begin):
            kept.append(index)
            begins.append(begin)
    return Codebook(centroids[kept], np.array(begins[1:]))
