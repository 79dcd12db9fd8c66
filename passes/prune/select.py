"""Which channels of a group stay, given how much each matters."""

import math
from collections.abc import Mapping

import numpy as np

from .groups import Channels, Group, Kept

__all__ = ["choose", "kept_count", "protected"]


def kept_count(group: Group, ratio: float, multiple: int) -> int:
    """Return how many channels of a group stay: the rest rounded up to a multiple, heads one by one.

    Args:
        group: The group.
        ratio: Share that is removed.
        multiple: Of the positions that a layer keeps; a channel may have several.
    """
    kept = max(1, group.channels - int(ratio * group.channels + 1e-9))
    if group.kind == "head":
        return kept
    positions = int(np.isin(group.producers[0].labels, group.labels).sum())
    each = max(1, positions // group.channels)
    step = multiple // math.gcd(multiple, each)
    return min(group.channels, -(-kept // step) * step)


def choose(scores: np.ndarray, count: int) -> np.ndarray:
    """Return a mask of the channels with the largest scores, [channels]; of equal ones the first stay."""
    mask = np.zeros(scores.size, np.bool_)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask


def protected(channels: Channels, kept: Kept, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give back the best channel of each tensor that would be left without any.

    Args:
        channels: Of the model.
        kept: A mask per group.
        scores: What each channel of these groups matters.
    """
    result = {name: np.array(mask) for name, mask in kept.items()}
    table = channels.table(result)
    worth = np.zeros(channels.count)
    owner: dict[int, tuple[str, int]] = {}
    for group in channels.groups:
        if group.name in scores:
            worth[group.labels] = scores[group.name]
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
