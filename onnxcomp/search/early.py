"""When to stop judging a candidate: a group-sequential test on parts of the evaluation samples.

A candidate is judged on some runs first, drawn by lot, then on more. After each such look its runs are dealt
to ten groups. It is hopeless where the groups' mean miss of one bound is certain to stay above 0 on all runs: a
one-sided t test (Student 1908) on the ten misses, whose error is narrowed as the runs that are left get few (Cochran,
*Sampling Techniques*, 1977, section 2.6) and whose level is shared out to looks and bounds (Bonferroni): a candidate
that keeps the budget is refused once in a thousand times at most. Nothing is ever accepted early.
"""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["GROUPS", "hopeless", "looks"]

GROUPS = 10
_SHARES = (1 / 8, 1 / 3)  # of the runs that a look has seen
_FEWEST = 20  # runs of a look: two of each group
_QUANTILE = 5.61  # of t with nine degrees of freedom at 1 - 0.001 / 6: two looks at three bounds


def looks(runs: int) -> list[list[int]]:
    """Return the numbers of the runs that each look adds, ascending, all of them together; the last adds the rest.

    They are drawn by lot: labels may repeat in any rhythm.
    """
    ends = [max(_FEWEST * (i + 1), math.ceil(share * runs)) for i, share in enumerate(_SHARES)]
    drawn = np.split(np.random.default_rng(0).permutation(runs), [end for end in ends if end <= runs / 2])
    return [sorted(part.tolist()) for part in drawn]


def hopeless(misses: Sequence[float], seen: float) -> bool:
    """Whether what a candidate misses on the runs seen is certain to be missed on all.

    Args:
        misses: By how much each group misses a bound; negative: it keeps it.
        seen: Share of all runs that they are from.
    """
    values = np.asarray(misses, np.float64)
    if np.isnan(values).any() or np.isneginf(values).any():
        return False
    if np.isposinf(values).any():  # not a number somewhere: nothing that follows mends it
        return True
    error = float(values.std(ddof=1)) * math.sqrt((1 - seen) / len(values))
    return float(values.mean()) > _QUANTILE * error
