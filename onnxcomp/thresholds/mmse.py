"""The range whose quantizer has the least squared error (Zhao et al. 2019, sec. 5; Nagel et al. 2021, sec. 3.1)."""

import numpy as np

from onnxcomp.thresholds.histogram import Array, Grid, Histogram, Range
from onnxcomp.thresholds.noise import Noise

__all__ = ["mmse"]

# About 100 thresholds on each side: shares of the extreme from wide to narrow, then more of them around the best
_COARSE = np.geomspace(1.0, 1 / 512, 60)
_FINE = np.append(np.linspace(_COARSE[1], 1 / _COARSE[1], 40), 1.0)
_ROUNDS = 4  # of alternating between the two sides


def mmse(histogram: Histogram, grid: Grid) -> Range:
    """Return the range of least squared error on the histogram.

    Symmetric: one threshold for both signs. Asymmetric: from the best pair of coarse thresholds, which is found first,
    upper and lower bound are moved in turn.
    """
    widest = Range(min(histogram.extremes.low, 0.0), max(histogram.extremes.high, 0.0))
    noise = Noise(histogram, grid)
    if grid.symmetric:
        both = max(-widest.low, widest.high)
        coarse = both * _COARSE
        fine = (coarse[np.argmin(noise.of(-coarse, coarse, rough=True))] * _FINE).clip(None, both)
        best = float(fine[np.argmin(noise.of(-fine, fine))])
        return Range(-best, best) & widest
    lows, highs = _pairs(widest)
    first = int(np.argmin(noise.of(lows, highs, rough=True)))
    found = Range(float(lows[first]), float(highs[first]))
    for _ in range(_ROUNDS):
        before = found
        highs = (found.high * _FINE).clip(None, widest.high)
        found = Range(found.low, float(highs[np.argmin(noise.of(np.array([found.low]), highs))]))
        lows = (found.low * _FINE).clip(widest.low, None)
        found = Range(float(lows[np.argmin(noise.of(lows, np.array([found.high])))]), found.high)
        if found == before or not widest.low < 0 < widest.high:
            break
    return found


def _pairs(widest: Range) -> tuple[Array, Array]:
    """Return all pairs of coarse bounds, [pairs] each; a side without values has one bound, 0."""
    lows = widest.low * _COARSE if widest.low < 0 else np.zeros(1)
    highs = widest.high * _COARSE if widest.high > 0 else np.zeros(1)
    pairs = np.meshgrid(lows, highs)
    return pairs[0].ravel(), pairs[1].ravel()
