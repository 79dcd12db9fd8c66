"""The best range of a fitted distribution, in closed form (Banner et al. 2019, "ACIQ", section 3).

For M bits the threshold alpha around the mean is least noisy where, with b = E|x - mean| and sigma the deviation,

- Laplace: ``alpha / b = W(3 * 4^M)``, W being Lambert's function: a + ln a = ln(3 * 4^M);
- Gauss: a = alpha / sigma solves ``a (1 - erf(a / sqrt 2)) - sqrt(2 / pi) exp(-a^2 / 2) + a / (3 * 4^M) = 0``.

A one-sided tensor is taken for what ReLU has left of a distribution around 0, whose b and sigma follow from the values
that are not 0. Its levels all lie on one side: the constants are those of M + 1 bits.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np

from onnxcomp.thresholds.histogram import Grid, Histogram, Range

__all__ = ["aciq", "gauss_constant", "laplace_constant"]

# Geary's ratio b / sigma (Geary 1935) is 0.798 for Gauss and 0.707 for Laplace: what is nearer to which is told by the
# geometric mean of the two
_BETWEEN = math.sqrt(math.sqrt(2 / math.pi) * math.sqrt(1 / 2))


def aciq(histogram: Histogram, grid: Grid, fit: Literal["gauss", "laplace", "closer"] = "closer") -> Range:
    """Return the best range for a Gauss or a Laplace distribution; never beyond the extremes.

    Args:
        histogram: Of the values.
        grid: The quantizer.
        fit: Which of the two; the one that is closer to the values, unless it is named.
    """
    extremes = histogram.extremes
    points, counts = histogram.points
    one_sided = histogram.one_sided
    if one_sided:
        points, counts = points[points != 0], counts[points != 0]
    if not points.size:
        return extremes
    mean = 0.0 if one_sided else float(np.average(points, weights=counts))
    b = float(np.average(np.abs(points - mean), weights=counts))
    sigma = math.sqrt(float(np.average((points - mean) ** 2, weights=counts)))
    bits = grid.bits + int(one_sided and not grid.symmetric)
    gauss = b > _BETWEEN * sigma if fit == "closer" else fit == "gauss"
    alpha = gauss_constant(bits) * sigma if gauss else laplace_constant(bits) * b
    if grid.symmetric:
        return Range(-abs(mean) - alpha, abs(mean) + alpha) & extremes
    return Range(mean - alpha, mean + alpha) & extremes


@cache
def laplace_constant(bits: int) -> float:
    """Return alpha / b: 9.897 at 8 bits, 11.163 at 9."""
    wanted = math.log(3) + bits * math.log(4)
    return _root(lambda a: a + math.log(a) - wanted)


@cache
def gauss_constant(bits: int) -> float:
    """Return alpha / sigma: 3.924 at 8 bits, 4.216 at 9."""
    return _root(
        lambda a: a * math.erfc(a / math.sqrt(2)) - math.sqrt(2 / math.pi) * math.exp(-(a**2) / 2) + a / (3 * 4.0**bits)
    )


def _root(rising: Callable[[float], float]) -> float:
    """Return where a function between 0.01 and 100 passes from below 0 to above, by halving."""
    low, high = 0.01, 100.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return high
