"""The statistics of a comparison: one time for a block of runs, and an interval for the median of paired ratios."""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["block_time", "median_interval"]


def block_time(times: ArrayLike, *, level: float) -> float:
    """Reduce the runs of one block to one time: their quantile at `level`, estimated without bias from the block size.

    Other programs only ever make a run slower, so a low quantile is far steadier than the median or the mean. The
    minimum is steady too, but it is lower the more runs a block has, and a fast contender has more runs in a block
    than a slow one: that would make it look faster still. The median-unbiased quantile (definition 8 of Hyndman and
    Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50(4), 1996) means the same for any
    block of at least `2 / (3 * level) - 1 / 3` runs: at level 0.2 it is the minimum of three runs.

    Args:
        times: `[runs]`, the time of every run, in any unit.
        level: The quantile, in (0, 1).

    Returns:
        The time per run, in the unit of `times`.
    """
    return float(np.quantile(np.asarray(times, dtype=np.float64), level, method="median_unbiased"))


def median_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the median and a confidence interval for it that holds for any distribution.

    The interval reaches from one order statistic to another, chosen by the binomial distribution of the number of
    values below the true median (David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1; Le Boudec,
    "Performance Evaluation of Computer and Communication Systems", 2010, section 2.2). Heavy tails can't harm it, and
    it never covers less than `confidence` for independent values; a percentile bootstrap of the median does, with the
    few values there are in the first rounds.

    Args:
        values: `[n]`, at least one.
        confidence: The wanted coverage, in (0, 1).

    Returns:
        Median, low and high; low and high are infinite where `n` is too small for `confidence` (below 6 for 0.95).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = ordered.size
    # the r-th smallest value is above the median with probability P(Binomial(n, 1/2) <= r - 1): the largest r allowed
    # (whole numbers, by the standard library alone: this runs on other machines, too)
    tails = itertools.accumulate(math.comb(n, below) for below in range((n + 1) // 2))
    rank = sum(tail / 2**n <= (1.0 - confidence) / 2.0 for tail in tails)
    if rank == 0:
        return float(np.median(ordered)), -np.inf, np.inf
    return float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[n - rank])
