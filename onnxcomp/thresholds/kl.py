"""The threshold that loses the least information (Migacz, GTC 2017, S7310; Zhao et al. 2019, section 5).

For every i, the first i of 2048 bins of the magnitudes become a distribution P, what lies beyond added to its last bin,
and Q: the same bins *without* what lies beyond, merged to as many groups as there are levels and spread again over each
group's bins that are not empty. The i of the least KL(P || Q) wins. Settled here, as the talk leaves it open:

- the bin at 0, which holds padding and what ReLU has cut off, gets the count of its neighbour;
- groups begin at ``floor(g * i / levels)``, so that remainders are spread evenly; counts are never rounded;
- where Q is empty and P is not (outliers beyond an empty bin), KL is infinite and that i is out;
- two-sided tensors have half the levels for the magnitudes, one-sided ones all of them, unless the quantizer is
  symmetric; an asymmetric quantizer gets the threshold on both sides, cut off at the extremes.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from onnxcomp.thresholds.histogram import Array, Grid, Histogram, Range

__all__ = ["BINS", "kl"]

BINS = 2048
_Indices = npt.NDArray[np.intp]
_TINY = np.finfo(np.float64).tiny  # in place of 0 under a logarithm that is multiplied by 0


def kl(histogram: Histogram, grid: Grid) -> Range:
    """Return the range of least Kullback-Leibler divergence; all of it where there are more levels than bins."""
    extremes = histogram.extremes
    largest = max(-extremes.low, extremes.high)
    levels = 2**grid.bits if histogram.one_sided and not grid.symmetric else 2 ** (grid.bits - 1)
    if levels >= BINS:
        return extremes
    bins = histogram.magnitudes(BINS)
    bins[0] = bins[1]
    if not bins.any():
        return extremes
    divergence = divergences(bins, levels)
    if not np.isfinite(divergence).any():
        return extremes
    kept = levels + int(np.argmin(divergence))
    threshold = min((kept + 0.5) / len(bins), 1.0) * largest
    return Range(-threshold, threshold) & extremes


def divergences(bins: Array, levels: int) -> Array:
    """Return KL(P || Q) when the first ``levels``, ``levels + 1``, ... of the bins are kept, [candidates].

    Written with prefix sums: inside a group Q is the same wherever it is not 0, so only sums over groups matter.

    Args:
        bins: Counts, [bins].
        levels: Number of groups.
    """
    total = bins.sum()
    kept = np.arange(levels, len(bins) + 1)  # [candidates]
    below, used, entropy = (
        np.concatenate([[0.0], np.cumsum(values)])
        for values in (bins, bins > 0, bins * np.log(np.maximum(bins, _TINY)))
    )
    last = bins[kept - 1]
    outliers = total - below[kept]
    full = last + outliers  # P's last bin
    own = entropy[kept - 1] + full * np.log(np.maximum(full, _TINY))
    starts, ends, groups = _groups(len(bins), levels)
    sums = below[ends] - below[starts]
    logs = np.log(np.maximum(sums / np.maximum(used[ends] - used[starts], 1), _TINY))  # of Q, not normalised
    cross = (sums * logs).take(groups).sum(axis=1) + outliers * logs[groups[:, -1]]
    found = (own - cross) / total + np.log(np.maximum(below[kept], _TINY) / total)
    return np.asarray(np.where(last > 0, found, np.inf), np.float64)


@cache
def _groups(bins: int, levels: int) -> tuple[_Indices, _Indices, _Indices]:
    """Return where groups begin and end, [groups] each, and which are those of each candidate, [candidates, levels].

    Candidates share most of theirs: 256 levels of 2048 bins use 10 thousand groups 459 thousand times.
    """
    kept = np.arange(levels, bins + 1)[:, None]
    edges = np.arange(levels + 1) * kept // levels
    pairs, groups = np.unique(edges[:, :-1] * (bins + 1) + edges[:, 1:], return_inverse=True)
    return pairs // (bins + 1), pairs % (bins + 1), groups.reshape(len(kept), levels)
