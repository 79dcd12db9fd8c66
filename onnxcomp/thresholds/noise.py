"""What a quantizer costs: squared errors on a histogram, for many ranges at once."""

import numpy as np

from onnxcomp.thresholds.histogram import Array, Grid, Histogram, Range

__all__ = ["Noise", "noise"]

_MOST_LEVELS = 1 << 12  # finer quantizers than these resolve more than the bins of a histogram do
_ROUGH_LEVELS = 48  # from so many on, a rough answer is good enough to begin a search with


class Noise:
    """Squared errors of uniform quantizers on one histogram.

    With levels q_0 ... q_L that are s apart, midpoints e_j between them and F(e) = sum n (x - e) over the x below e,
    which prefix sums tell, the error of sending each x to the nearest level is ::

        sum n (x - q)^2 = sum n (x - q_L)^2 + 2 s sum F(e_j)

    (summed by parts). So a range costs one look-up per level, however many bins there are. A quantizer that is
    finer than the bins costs s^2 / 12 per value inside that is not 0, and what clipping costs.

    Args:
        histogram: Its bins count as points at their centers.
        grid: Of the quantizers.
    """

    def __init__(self, histogram: Histogram, grid: Grid) -> None:
        self._points, counts = histogram.centers, histogram.counts
        self._start, self._width = histogram.start, histogram.width
        self._levels = grid.levels
        powers = [counts * self._points**power for power in range(3)]
        self._sums = np.concatenate([np.zeros((3, 1)), np.cumsum(powers, axis=1)], axis=1)  # [3, bins + 1]
        self._zeros = float(counts[self._points == 0].sum())

    def of(self, lows: Array, highs: Array, *, rough: bool = False) -> Array:
        """Return the summed squared error of each range; each must hold 0.

        Args:
            lows: [ranges], or [1].
            highs: [ranges], or [1].
            rough: Whether a close answer will do, as if every value inside fell anywhere between two levels.
        """
        lows, highs = np.broadcast_arrays(lows, highs)
        scales = (highs - lows) / (self._levels - 1)  # [ranges]
        if self._levels > (_ROUGH_LEVELS if rough else _MOST_LEVELS):
            return self._of_fine(lows, highs, scales)
        zero_points = np.rint(-lows / np.where(scales > 0, scales, 1.0))
        edges = (np.arange(self._levels - 1) + 0.5 - zero_points[:, None]) * scales[:, None]  # [ranges, levels - 1]
        below = self._below(edges).sum(axis=1)
        count, first, second = self._sums[:, -1]
        last = (self._levels - 1 - zero_points) * scales
        errors = second - 2 * last * first + last**2 * count + 2 * scales * below
        return np.asarray(errors.clip(0.0), np.float64)

    def _below(self, edges: Array) -> Array:
        """Return F of each edge: all bins before its own count, and its own where its center does."""
        own = ((edges - self._start) / self._width).clip(0, len(self._points) - 1).astype(np.intp)
        upto = own + (edges > self._points[own])
        return np.asarray(self._sums[1][upto] - edges * self._sums[0][upto], np.float64)

    def _of_fine(self, lows: Array, highs: Array, scales: Array) -> Array:
        left = np.searchsorted(self._points, lows, "left")
        right = np.searchsorted(self._points, highs, "right")
        below, upto = self._sums[:, left], self._sums[:, right]
        above = self._sums[:, -1:] - upto
        inside = upto[0] - below[0] - self._zeros
        clipped = sum(part[2] - 2 * at * part[1] + at**2 * part[0] for part, at in ((below, lows), (above, highs)))
        return np.asarray(inside * scales**2 / 12 + clipped, np.float64)


def noise(histogram: Histogram, grid: Grid, ranges: list[Range]) -> Array:
    """Return the summed squared error of each range's quantizer, [ranges], widened to hold 0 as ``affine`` does."""
    lows = np.array([min(found.low, 0.0) for found in ranges])
    highs = np.array([max(found.high, 0.0) for found in ranges])
    if grid.symmetric:
        highs = np.maximum(-lows, highs)
        lows = -highs
    return Noise(histogram, grid).of(lows, highs)
