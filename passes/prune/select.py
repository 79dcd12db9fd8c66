"""Which channels of a group stay, given the order in which they go."""

import math
from collections.abc import Mapping

import numpy as np

from .allocate import Ladder
from .groups import Channels, Group, Kept
from .obs import Curve

__all__ = ["kept_count", "ladder", "masks", "protected"]


def kept_count(group: Group, ratio: float, multiple: int) -> int:
    """Return how many channels of a group stay: the rest rounded up to a multiple, heads one by one.

    Args:
        group: The group.
        ratio: Share that is removed.
        multiple: Of the positions that a layer keeps; a channel may have several.
    """
    kept = max(1, group.channels - int(ratio * group.channels + 1e-9))
    step = _step(group, multiple)
    return min(group.channels, -(-kept // step) * step)


def ladder(group: Group, curve: Curve, multiple: int) -> Ladder:
    """Return what a group may keep: all, and what `kept_count` rounds to."""
    step = _step(group, multiple)
    counts = [group.channels, *range((group.channels - 1) // step * step, 0, -step)]
    return Ladder(np.array(counts, np.int64), curve.error[group.channels - np.array(counts)])


def masks(channels: Channels, curves: Mapping[str, Curve], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return which channels stay when groups keep so many, by group; without the groups that stay whole."""
    sizes = {group.name: group.channels for group in channels.groups}
    kept = {name: curves[name].kept(count) for name, count in counts.items() if count < sizes[name]}
    return protected(channels, kept, curves)


def _step(group: Group, multiple: int) -> int:
    """Return how many channels make a multiple of the positions that a layer keeps; heads go one by one."""
    if group.kind == "head":
        return 1
    positions = int(np.isin(group.producers[0].labels, group.labels).sum())
    each = max(1, positions // group.channels)
    return multiple // math.gcd(multiple, each)


def protected(channels: Channels, kept: Kept, curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """Give back the best channel of each tensor that would be left without any.

    Args:
        channels: Of the model.
        kept: A mask per group.
        curves: Of these groups: the best channel goes last.
    """
    result = {name: np.array(mask) for name, mask in kept.items()}
    table = channels.table(result)
    worth = np.zeros(channels.count)
    owner: dict[int, tuple[str, int]] = {}
    for group in channels.groups:
        if group.name in curves:
            worth[group.labels[curves[group.name].order]] = np.arange(1, group.channels + 1)
            owner |= {int(label): (group.name, place) for place, label in enumerate(group.labels)}
    columns = [item.labels for item in channels.slices]
    columns += [
        channels.positions(name, axis) for name, labels in channels.labels.items() for axis in range(labels.ndim)
    ]
    for column in columns:
        if column.size and not table[column].any():
            best = int(column[np.argmax(worth[column])])
            name, place = owner[best]
            result[name][place] = table[best] = True
    return result
