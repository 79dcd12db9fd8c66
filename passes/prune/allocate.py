"""How many channels each group keeps, so that the whole costs no more than asked and loses the least.

Every group has a ladder: the numbers of channels that it may keep, and what each step down loses. The step that loses
least for what it saves goes first, again and again, until the goal is met: the greedy form of minimising
``error + lambda * cost`` for a lambda that grows. Costs depend on each other (a convolution costs its inputs times its
outputs), so what a step saves is told anew each time. What one step too many has saved is given back in the end.

Source: the Lagrangian of a resource allocation (Everett 1963) along the lower convex hull of each group's error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .pricing import Counted

__all__ = ["Ladder", "allocated", "evenly"]

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """What a group may keep.

    Attributes:
        counts: Of channels, all of them first, descending, [steps + 1].
        errors: What each loses, ascending, [steps + 1].
    """

    counts: _Counts
    errors: npt.NDArray[np.float64]

    def losses(self) -> npt.NDArray[np.float64]:
        """Return what a channel less loses on each step, [steps]: the slopes of the lower convex hull."""
        removed = (self.counts[0] - self.counts).astype(np.float64)
        hull = [0]
        for k in range(1, len(removed)):
            while len(hull) > 1 and self._slope(hull[-2], hull[-1]) >= self._slope(hull[-1], k):
                hull.pop()
            hull.append(k)
        found = np.zeros(len(removed) - 1)
        for a, b in pairwise(hull):
            found[a:b] = self._slope(a, b)
        return found

    def _slope(self, a: int, b: int) -> float:
        return float((self.errors[b] - self.errors[a]) / (self.counts[a] - self.counts[b]))


def allocated(ladders: Sequence[Ladder], cost: Counted, goal: float) -> _Counts:
    """Return how many channels each group keeps so that the cost is at most the goal and the error small.

    Where no choice is as cheap as that, all groups are at the bottom of their ladders.

    Args:
        ladders: Of each group, in the order of the cost; one of a single step stays as it is.
        cost: Of numbers of channels.
        goal: In its unit.
    """
    losses = [ladder.losses() for ladder in ladders]

    def worth(steps: _Counts, counts: _Counts) -> npt.NDArray[np.float64]:
        slopes = np.maximum(cost.slopes(counts), 1e-9)
        return np.array([loss[k] if k < len(loss) else np.inf for loss, k in zip(losses, steps, strict=True)]) / slopes

    return _descend(ladders, cost.of, goal, worth)


def evenly(ladders: Sequence[Ladder], cost: Counted, goal: float) -> _Counts:
    """Return how many channels each group keeps so that the cost is at most the goal and all keep like shares.

    Arguments and result are those of `allocated`.
    """

    def worth(steps: _Counts, _: _Counts) -> npt.NDArray[np.float64]:
        return np.array(
            [
                1 - ladder.counts[k + 1] / ladder.counts[0] if k + 1 < len(ladder.counts) else np.inf
                for ladder, k in zip(ladders, steps, strict=True)
            ]
        )

    return _descend(ladders, cost.of, goal, worth)


def _descend(
    ladders: Sequence[Ladder],
    cost: Callable[[_Counts], float],
    goal: float,
    worth: Callable[[_Counts, _Counts], npt.NDArray[np.float64]],
) -> _Counts:
    """Take the step of least worth until the goal is met; give back what was not needed.

    Args:
        ladders: Of each group.
        cost: Of numbers of channels.
        goal: In its unit.
        worth: Of the next step of each group, given how many steps each took and what each keeps; infinite: no more.
    """
    steps = np.zeros(len(ladders), np.int64)
    counts = np.array([ladder.counts[0] for ladder in ladders], np.int64)
    taken: list[int] = []
    while cost(counts) > goal:
        values = worth(steps, counts)
        best = int(np.argmin(values))
        if not np.isfinite(values[best]):
            return counts
        steps[best] += 1
        counts[best] = ladders[best].counts[steps[best]]
        taken.append(best)
    for group in dict.fromkeys(reversed(taken)):  # the last steps lose most
        while steps[group]:
            trial = counts.copy()
            trial[group] = ladders[group].counts[steps[group] - 1]
            if cost(trial) > goal:
                break
            counts, steps[group] = trial, steps[group] - 1
    return counts
