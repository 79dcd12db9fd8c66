"""Weighted histograms of numbers: cells so narrow that clusters of them are clusters of the numbers.

The digits of a float32, as an integer, are in the order of the numbers; without the last 12 they are the number of its
cell: 1/2048 of a number wide, whatever outliers there are. Where the numbers are few, each distinct one is a cell.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "tally"]

_FEW = 1 << 16  # numbers that are sorted
_DROPPED = 12  # digits of a float32
_KEYS = 1 << (32 - _DROPPED)
_CHUNK = 1 << 20  # numbers that are counted at once
_SIGN = np.uint32(1 << 31)
_LEVELLINGS = 8
_FLOOR = 1e-6  # of the mean: the least weight of a number, so that none is free


@dataclass(frozen=True, slots=True)
class Cells:
    """A histogram; its cells are in the order of their numbers, and none is empty.

    Attributes:
        counts: Numbers in each cell, float64 [cells].
        weights: Sum of their weights, [cells].
        sums: Sum of the numbers times their weights, [cells].
    """

    counts: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    sums: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Where each cell is, [cells], ascending."""
        return self.sums / self.weights

    @property
    def zeros(self) -> float:
        """How many numbers are exactly zero."""
        return float(self.counts[self.sums == 0].sum())

    def without_zeros(self) -> "Cells":
        """Return the cells of all other numbers."""
        return self._at(self.sums != 0)

    @staticmethod
    def joined(parts: Iterable["Cells"]) -> "Cells":
        """Return the cells of several histograms, in order."""
        counts, weights, sums = (
            np.concatenate(column) for column in zip(*((p.counts, p.weights, p.sums) for p in parts), strict=True)
        )
        found = Cells(counts, weights, sums)
        return found._at(np.argsort(found.means, kind="stable"))

    def reduced(self, most: int) -> "Cells":
        """Return at most so many cells, neighbours merged.

        They are the narrower the denser they are, as clusters are: so that each cluster gets about as many (their
        density is that of the numbers to the power of 1/3: Panter and Dite 1951).
        """
        if len(self) <= most:
            return self
        places = self.means
        gaps = np.empty(len(self))
        gaps[1:-1] = (places[2:] - places[:-2]) / 2
        gaps[0], gaps[-1] = places[1] - places[0], places[-1] - places[-2]
        measure = np.cbrt(gaps * gaps * self.weights)
        for _ in range(_LEVELLINGS):  # a cell far from all others needs one for itself, not more
            measure = np.minimum(measure, measure.sum() / most)
        reached = np.cumsum(measure) - measure / 2
        number = np.minimum(reached / (measure.sum() / most), most - 1).astype(np.int64)
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        return Cells(*(np.add.reduceat(part, starts) for part in (self.counts, self.weights, self.sums)))

    def _at(self, index: npt.NDArray[np.generic]) -> "Cells":
        return Cells(self.counts[index], self.weights[index], self.sums[index])


def tally(numbers: npt.NDArray[np.floating], weights: npt.NDArray[np.floating] | None = None) -> Cells:
    """Count numbers.

    Args:
        numbers: Finite; float32 or narrower, any shape.
        weights: Of each number, not negative, of a shape that fits the numbers'; None: all are 1.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    flat = np.ascontiguousarray(numbers, np.float32).reshape(-1) + np.float32(0)  # without -0
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError("no numbers" if not flat.size else "a number is not finite")
    given = None
    if weights is not None:
        given = np.broadcast_to(np.asarray(weights, np.float64), numbers.shape).reshape(-1)
        least = _FLOOR * float(given.mean()) or 1.0
        given = np.maximum(given, least)
    if flat.size <= _FEW:
        distinct, where, counts = np.unique(flat, return_inverse=True, return_counts=True)
        summed = counts.astype(np.float64)
        if given is not None:
            summed = np.bincount(where.reshape(-1), given).astype(np.float64, copy=False)
        return Cells(counts.astype(np.float64), summed, distinct.astype(np.float64) * summed)
    counts, sums = np.zeros(_KEYS, np.int64), np.zeros(_KEYS)
    summed = np.zeros(_KEYS)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        digits = part.view(np.uint32)
        keys = np.where(digits & _SIGN, ~digits, digits | _SIGN) >> _DROPPED
        keys = keys.astype(np.int64)
        counts += np.bincount(keys, minlength=_KEYS)
        if given is None:
            sums += np.bincount(keys, part, minlength=_KEYS)
        else:
            heavy = given[start : start + _CHUNK]
            summed += np.bincount(keys, heavy, minlength=_KEYS)
            sums += np.bincount(keys, heavy * part, minlength=_KEYS)
    there = np.flatnonzero(counts)
    found = counts[there].astype(np.float64)
    return Cells(found, found if given is None else summed[there], sums[there])
