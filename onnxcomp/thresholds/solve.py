"""All methods by name, and the one that chooses among them."""

from collections.abc import Callable, Mapping

import numpy as np

from onnxcomp.thresholds.aciq import aciq
from onnxcomp.thresholds.extremes import ema, minmax, percentile
from onnxcomp.thresholds.histogram import Grid, Histogram, Range
from onnxcomp.thresholds.kl import kl
from onnxcomp.thresholds.mmse import mmse
from onnxcomp.thresholds.noise import noise
from onnxcomp.thresholds.octav import octav

__all__ = ["METHODS", "auto", "solve", "solve_all"]

Solver = Callable[[Histogram, Grid], Range]


def auto(histogram: Histogram, grid: Grid) -> Range:
    """Return the range of least squared error among those that all the other methods choose."""
    return solve_all(histogram, grid)["auto"]


METHODS: Mapping[str, Solver] = {
    "minmax": minmax,
    "ema": ema,
    "percentile": percentile,
    "kl": kl,
    "mmse": mmse,
    "octav": octav,
    "aciq": aciq,
    "auto": auto,
}


def solve(method: str, histogram: Histogram, grid: Grid | None = None, *, share: float | None = None) -> Range:
    """Return the range that a method chooses: never beyond the extremes, widened to hold 0 at most.

    Args:
        method: One of ``METHODS``.
        histogram: Of finite values.
        grid: The quantizer; the default is 8 bits, asymmetric.
        share: Of the values that ``percentile`` keeps; the default is 0.9999. The others take none.

    Raises:
        KeyError: There is no such method.
        ValueError: The share is not in (0, 1].
    """
    if method == "percentile" and share is not None:
        return percentile(histogram, grid or Grid(), share)
    return METHODS[method](histogram, grid or Grid())


def solve_all(histogram: Histogram, grid: Grid | None = None) -> dict[str, Range]:
    """Return the range that each method chooses, by method, at the cost of ``auto``."""
    wanted = grid or Grid()
    ranges = {name: solver(histogram, wanted) for name, solver in METHODS.items() if solver is not auto}
    best = int(np.argmin(noise(histogram, wanted, list(ranges.values()))))
    return {**ranges, "auto": list(ranges.values())[best]}
