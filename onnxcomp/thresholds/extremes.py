"""Ranges that keep all values, or all but a share: minmax, ema, percentile."""

import numpy as np

from onnxcomp.thresholds.histogram import Grid, Histogram, Range

__all__ = ["ema", "minmax", "percentile"]

SHARE = 0.9999


def minmax(histogram: Histogram, _grid: Grid) -> Range:
    """Return the smallest and largest value."""
    return histogram.extremes


def ema(histogram: Histogram, _grid: Grid) -> Range:
    """Return the moving average of each run's extremes, momentum 0.99 (Jacob et al. 2018, section 3.1)."""
    return histogram.average


def percentile(histogram: Histogram, _grid: Grid, share: float = SHARE) -> Range:
    """Return the range left when at most half of ``1 - share`` of the values is cut off on either side.

    Raises:
        ValueError: The share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of values must be in (0, 1], got {share}")
    centers, counts = histogram.points
    if not counts.size:
        return histogram.extremes
    cumulative = np.cumsum(counts) / counts.sum()
    tail = (1 - share) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left"))
    last = len(centers) - 1
    return Range(
        histogram.extremes.low if low == 0 else float(centers[min(low, last)]),
        histogram.extremes.high if high >= last else float(centers[high]),
    )
