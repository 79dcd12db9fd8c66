"""Newton's iteration to the range of least expected error (Sakr et al. 2022, "OCTAV", equation 6).

Inside [l, h] rounding costs ``(h - l)^2 / 12 / 4^B`` per value that is not 0, outside clipping costs its square. With
c = 4^-B / 12 and E, P over the values, the derivative by h is zero where ::

    h = (E[x 1(x > h)] + c l P(l <= x <= h, x != 0)) / (P(x > h) + c P(l <= x <= h, x != 0))

and likewise for l. With l = 0 that is the paper's unsigned iteration, with l = -h its signed one; moving both bounds by
it gives the asymmetric one. That one may stop at a bound that is only best nearby, so it begins twice, narrow and wide.
"""

import numpy as np

from onnxcomp.thresholds.histogram import Array, Grid, Histogram, Range

__all__ = ["octav"]

_MOST_STEPS = 100
_CLOSE = 1e-6


def octav(histogram: Histogram, grid: Grid) -> Range:
    """Return the range where the expected squared error of rounding and clipping is least."""
    extremes = histogram.extremes
    widest = Range(min(extremes.low, 0.0), max(extremes.high, 0.0))
    points, counts = histogram.points
    bounds = widest
    if grid.symmetric:  # the mirror image joins in
        points, counts = np.concatenate([points, -points]), np.concatenate([counts, counts]) / 2
        order = np.argsort(points, kind="stable")
        points, counts = points[order], counts[order]
        both = max(-widest.low, widest.high)
        bounds = Range(-both, both)
    newton = _Newton(points, counts, bounds, grid.bits)
    low, high = _mean(points, counts, points < 0), _mean(points, counts, points > 0)
    starts = [Range(low, high), bounds]
    return min(map(newton.run, starts), key=newton.cost) & widest


class _Newton:
    """The iteration on one tensor.

    Args:
        points: Ascending values, [points].
        counts: [points].
        widest: Extremes, widened to hold 0.
        bits: Of the quantizer.
    """

    def __init__(self, points: Array, counts: Array, widest: Range, bits: int) -> None:
        self._points = points
        self._widest = widest
        self._unit = 4.0**-bits / 12
        powers = [counts * points**power for power in range(3)]
        self._sums = np.concatenate([np.zeros((3, 1)), np.cumsum(powers, axis=1)], axis=1)
        self._zeros = float(counts[points == 0].sum())

    def run(self, found: Range) -> Range:
        """Move both bounds until they stay."""
        for _ in range(_MOST_STEPS):
            below, inside, above = self._parts(found)
            weight = self._unit * inside
            high = (above[1] + found.low * weight) / ((above[0] + weight) or 1.0)
            low = (below[1] + found.high * weight) / ((below[0] + weight) or 1.0)
            new = Range(min(float(low), 0.0), max(float(high), 0.0)) & self._widest
            if abs(new.low - found.low) + abs(new.high - found.high) <= _CLOSE * new.width:
                return new
            found = new
        return found

    def cost(self, found: Range) -> float:
        """Return the squared error that a range is expected to cost."""
        below, inside, above = self._parts(found)
        clipped = sum(
            part[2] - 2 * at * part[1] + at**2 * part[0] for part, at in ((below, found.low), (above, found.high))
        )
        return float(self._unit * inside * found.width**2 + clipped)

    def _parts(self, found: Range) -> tuple[Array, float, Array]:
        """Return the sums of n, n x and n x^2 below the range, n of what is inside and not 0, the sums above."""
        left = np.searchsorted(self._points, found.low, "left")
        right = np.searchsorted(self._points, found.high, "right")
        below, above = self._sums[:, left], self._sums[:, -1] - self._sums[:, right]
        return below, float(self._sums[0, right] - self._sums[0, left]) - self._zeros, above


def _mean(points: Array, counts: Array, where: "np.ndarray") -> float:
    return float(np.average(points[where], weights=counts[where])) if where.any() else 0.0
