"""From what was asked for (a share of each group, of the MACs, of the parameters) to a number of channels per group."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from .allocate import Ladder, allocated, evenly
from .groups import Kept
from .pricing import Counted, Measure, price
from .select import kept_count
from .study import Study

__all__ = ["NAMES", "Allocation", "Counts", "allocate", "by_cost", "by_ratio", "share_of"]

Allocation = Literal["global", "uniform"]
Counts = Mapping[str, int]  # by group: channels that stay
NAMES: Mapping[Measure, str] = {"macs": "MACs", "params": "parameters"}


def by_ratio(study: Study, ladders: Mapping[str, Ladder], ratio: float, multiple: int) -> Counts:
    """Return what each group keeps when a share of its channels goes; see `select.kept_count`."""
    return {group.name: kept_count(group, ratio, multiple) for group in study.channels.groups if group.name in ladders}


def by_cost(
    study: Study, ladders: Mapping[str, Ladder], measure: Measure, share: float, allocation: Allocation
) -> Counts:
    """Return what each group keeps so that a share of the cost is left, less at most what one step saves.

    Args:
        study: Of the model.
        ladders: Of the groups that may lose channels.
        measure: The cost.
        share: Of it, at most, in (0, 1].
        allocation: Whether groups lose what costs least for what it saves, or like shares.
    """
    cost = Counted(price(study.model, study.channels, measure), study.channels)
    every = np.array([group.channels for group in study.channels.groups], np.int64)
    return allocate(study, ladders, cost, share * cost.of(every), allocation)


def allocate(study: Study, ladders: Mapping[str, Ladder], cost: Counted, goal: float, allocation: Allocation) -> Counts:
    """Return what each group keeps so that a cost is at most a goal in its unit; else as in `by_cost`."""
    groups = study.channels.groups
    steps = [ladders.get(group.name, Ladder(np.array([group.channels]), np.zeros(1))) for group in groups]
    choose: Callable[..., np.ndarray] = allocated if allocation == "global" else evenly
    counts = choose(steps, cost, goal)
    return {group.name: int(n) for group, n in zip(groups, counts, strict=True) if group.name in ladders}


def share_of(study: Study, measure: Measure, kept: Kept) -> float:
    """Return the share of a cost that is left with these masks."""
    cost = price(study.model, study.channels, measure)
    whole = cost.of(study.channels.table({}))
    return cost.of(study.channels.table(kept)) / whole if whole else 1.0
