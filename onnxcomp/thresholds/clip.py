"""Where to clip: from a histogram to the range that a quantizer spans.

Every solver takes bin centers and counts and returns (low, high). Values outside saturate: clipping errors against
rounding errors is the trade that they make.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "minmax", "mmse", "percentile", "solve"]

_Array = npt.NDArray[np.float64]
_STEPS = 64  # thresholds tried on each side
_ROUNDS = 3  # of alternating between the two sides


def minmax(centers: _Array, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the outermost bins that hold anything."""
    used = np.flatnonzero(counts)
    return (float(centers[used[0]]), float(centers[used[-1]])) if used.size else (0.0, 0.0)


def percentile(centers: _Array, counts: npt.NDArray[np.int64], share: float = 0.9999) -> tuple[float, float]:
    """Return the range left when at most half of ``1 - share`` of the values is cut off on either side."""
    total = counts.sum()
    if not total:
        return 0.0, 0.0
    cumulative = np.cumsum(counts) / total
    tail = (1 - share) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left"))
    return float(centers[min(low, len(centers) - 1)]), float(centers[min(high, len(centers) - 1)])


def mmse(centers: _Array, counts: npt.NDArray[np.int64], levels: int = 256) -> tuple[float, float]:
    """Return the range whose uniform quantizer has the least squared error on the histogram.

    Upper and lower bound are moved in turn over a grid, from wide to narrow (Nagel et al. 2021, section 3.1).

    Args:
        centers: Middle of each bin, [bins], ascending.
        counts: [bins].
        levels: Of the quantizer; one of them is exactly 0.
    """
    low, high = minmax(centers, counts)
    low, high = min(low, 0.0), max(high, 0.0)
    shares = np.linspace(1.0, 1.0 / _STEPS, _STEPS)
    used = counts > 0
    centers, weights = centers[used], counts[used].astype(np.float64)
    widest = (low, high)
    for _ in range(_ROUNDS):
        before = (low, high)
        if widest[1] > 0:
            high = widest[1] * _best(centers, weights, [(low, widest[1] * s) for s in shares], shares, levels)
        if widest[0] < 0:
            low = widest[0] * _best(centers, weights, [(widest[0] * s, high) for s in shares], shares, levels)
        if (low, high) == before:
            break
    return low, high


METHODS = {"minmax": minmax, "mmse": mmse, "percentile": percentile}


def solve(method: str, centers: _Array, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the range that a method chooses.

    Raises:
        KeyError: There is no such method.
    """
    return METHODS[method](centers, counts)


def _best(centers: _Array, weights: _Array, ranges: list[tuple[float, float]], shares: _Array, levels: int) -> float:
    errors = [_squared_error(centers, weights, low, high, levels) for low, high in ranges]
    return float(shares[int(np.argmin(errors))])


def _squared_error(centers: _Array, weights: _Array, low: float, high: float, levels: int) -> float:
    """Return the summed squared error of quantizing the bin centers to ``levels`` steps over [low, high]."""
    scale = (high - low) / (levels - 1)
    if scale <= 0:
        return float(weights @ centers**2)
    zero_point = np.rint(-low / scale)
    quantized = np.clip(np.rint(centers / scale) + zero_point, 0, levels - 1)
    return float(weights @ (centers - scale * (quantized - zero_point)) ** 2)
