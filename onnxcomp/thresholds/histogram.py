"""What the solvers are given: how a tensor's values are distributed, and what kind of quantizer is wanted."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Counts", "Grid", "Histogram", "Range"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Range:
    """Two bounds: the smallest and largest value that a tensor took, or that a quantizer spans."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the bounds lie apart."""
        return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __or__(self, other: "Range") -> "Range":
        return Range(min(self.low, other.low), max(self.high, other.high))

    def __and__(self, other: "Range") -> "Range":
        return Range(max(self.low, other.low), min(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Grid:
    """The quantizer that a range is wanted for.

    Attributes:
        bits: Of an integer; ``2**bits`` levels.
        symmetric: Zero is the middle level, both signs have the same number of levels (one level stays unused); else
            any level may stand for zero.
    """

    bits: int = 8
    symmetric: bool = False

    @property
    def levels(self) -> int:
        """Levels between the bounds, both included."""
        return (1 << self.bits) - int(self.symmetric)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often a tensor's values fell into each of equal bins; each bin holds its right edge and not its left.

    Zero is an edge, so that the zeros of a tensor without negative values (after ReLU) have a bin of their own; in a
    tensor without positive values the last bin is taken for zeros.

    Attributes:
        counts: [bins].
        start: Left edge of the first bin.
        width: Of a bin.
        extremes: Exact smallest and largest value.
        average: Exponential moving average of each run's extremes.
    """

    counts: Counts
    start: float
    width: float
    extremes: Range
    average: Range

    @property
    def centers(self) -> Array:
        """A value for each bin, ascending, [bins]: its middle, but never outside the extremes."""
        middle = self.start + self.width * (np.arange(len(self.counts)) + 0.5)
        inside = np.asarray(middle.clip(self.extremes.low, self.extremes.high), np.float64)
        if self.extremes.high == 0:
            inside[-1] = 0.0
        return inside

    @property
    def points(self) -> tuple[Array, Array]:
        """Centers and counts of the bins that hold anything, ascending, [used] each."""
        used = self.counts > 0
        return self.centers[used], self.counts[used].astype(np.float64)

    @property
    def one_sided(self) -> bool:
        """Whether all values have the same sign, or are zero."""
        return self.extremes.low >= 0 or self.extremes.high <= 0

    def magnitudes(self, bins: int) -> Array:
        """Return the counts of the magnitudes in equal bins between 0 and the largest, [bins].

        A bin that straddles an edge is shared out by its overlap; counts are not whole numbers then.
        """
        edges = self.start + self.width * np.arange(len(self.counts) + 1)
        edges = edges.clip(self.extremes.low, self.extremes.high)
        below = np.concatenate([[0.0], np.cumsum(self.counts, dtype=np.float64)])
        wanted = np.linspace(0.0, max(abs(self.extremes.low), abs(self.extremes.high)), bins + 1)
        inside = np.interp(wanted, edges, below) - np.interp(-wanted, edges, below)
        inside[0], inside[-1] = 0.0, below[-1]  # values at the very ends belong to the outer bins
        return np.asarray(np.diff(inside), np.float64)
