"""How far apart two scores on the same samples are, with a 95 % interval: what one set of samples can tell.

Both models answer the same samples, so that most of what makes a score vary is common to both and cancels out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "Mcnemar", "bootstrap_difference", "hit_difference", "mcnemar"]

_Z = 1.959963984540054  # of the normal distribution, 97.5 % are below


class Interval(NamedTuple):
    """A difference with its 95 % confidence interval."""

    difference: float
    low: float
    high: float


def hit_difference(reference: np.ndarray, candidate: np.ndarray) -> Interval:
    """Difference of two shares of right answers to the same questions: the candidate's minus the reference's.

    Wilson's intervals of both shares are joined with regard to how often both models are right together. Unlike the
    usual interval by the normal distribution it holds for few samples and for shares near 1. Source: Newcombe,
    "Improved confidence intervals for the difference between binomial proportions based on paired data", Statistics in
    Medicine 17, 1998, method 10.

    Args:
        reference: Whether each answer of the one is right, [samples], at least one.
        candidate: Whether each answer of the other is right, [samples].
    """
    n = reference.size
    both = int(np.count_nonzero(candidate & reference))
    gained = int(np.count_nonzero(candidate & ~reference))
    lost = int(np.count_nonzero(~candidate & reference))
    neither = n - both - gained - lost
    first, second = (both + gained) / n, (both + lost) / n
    (low1, high1), (low2, high2) = _wilson(first, n), _wilson(second, n)
    phi = _correlation(both, gained, lost, neither)
    down, up = first - low1, high2 - second
    below = math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    down, up = second - low2, high1 - first
    above = math.sqrt(max(0.0, up**2 - 2 * phi * up * down + down**2))
    difference = first - second
    return Interval(difference, max(-1.0, difference - below), min(1.0, difference + above))


class Mcnemar(NamedTuple):
    """Answers that only one of two models has right, and how likely so uneven a split of them is by chance."""

    gained: int
    lost: int
    p_value: float


def mcnemar(reference: np.ndarray, candidate: np.ndarray) -> Mcnemar:
    """Test whether two models are right equally often, by the answers that only one of them has right.

    Where neither is better, each such answer is as likely to be the one's as the other's. The two-sided p-value is
    exact, by the binomial distribution: it holds for few of them, too. Source: McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", Psychometrika 12, 1947.

    Args:
        reference: Whether each answer of the one is right, [samples].
        candidate: Whether each answer of the other is right, [samples].
    """
    gained, lost = int(np.count_nonzero(candidate & ~reference)), int(np.count_nonzero(~candidate & reference))
    n = gained + lost
    ways = way = 1
    for k in range(min(gained, lost)):
        way = way * (n - k) // (k + 1)
        ways += way
    return Mcnemar(gained, lost, min(1.0, 2 * ways / 2**n))


def bootstrap_difference(
    difference: Callable[[np.ndarray], float], runs: int, *, resamples: int, rng: np.random.Generator
) -> Interval:
    """Difference of two scores on the same runs, for any kind of score.

    The runs are drawn again and again, with replacement and the same ones for both models; the interval holds the
    middle 95 % of the differences. Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        difference: The candidate's score minus the reference's on the runs of the given numbers.
        runs: How many there are. Below about 20 the interval is too narrow.
        resamples: How often they are drawn.
        rng: Draws them.
    """
    drawn = [difference(rng.integers(0, runs, runs)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(difference(np.arange(runs)), float(low), float(high))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Interval of a share. Source: Wilson, "Probable inference", JASA 22, 1927."""
    centre = share + _Z**2 / (2 * n)
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return (centre - spread) / scale, (centre + spread) / scale


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Correlation of being right, drawn towards 0 where it is positive, as Newcombe's method 10 does."""
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if product == 0:
        return 0.0
    excess = float(both * neither - gained * lost)
    if excess > 0:
        excess = max(excess - (both + gained + lost + neither) / 2, 0.0)
    return excess / math.sqrt(product)
