"""How much a channel matters, told from the weights alone; for what is measured see `obs` and `criteria`.

- ``l1``, ``l2``: norm of the weights that make it (Li et al. 2017, "Pruning Filters for Efficient ConvNets", sec. 3.1).
- ``fpgm``: sum of its distances to the others of its layer, so that what lies in their middle goes first (He et al.
  2019, "Filter Pruning via Geometric Median", eq. 4).
- ``batch-norm``: the scale that a BatchNormalization gives it (Liu et al. 2017, "Learning Efficient Convolutional
  Networks through Network Slimming").
- ``kmeans``: clusters of filters, half as many; what is not the middle of its cluster goes first, the nearest to it
  before others; then the smallest (after Qin et al. 2018, "Demystifying Neural Network Filter Pruning").
- ``random``: for comparison.

Where several layers make the channels of a group, each counts by its share of the layer's mean.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import float_constant

from .groups import Group

__all__ = ["Criterion", "filters", "fpgm", "importance", "kmeans", "per_channel"]

Criterion = Literal[
    "auto", "obs", "l1", "l2", "fpgm", "batch-norm", "kmeans", "random",
    "energy", "thinet", "lasso", "apoz", "activation-mean", "activation-std",
]  # fmt: skip


def fpgm(rows: np.ndarray) -> np.ndarray:
    """Return for each row, [channels, weights], the sum of its distances to all others, [channels]."""
    squares = np.square(rows).sum(axis=1)
    distances: np.ndarray = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0)).sum(axis=1)
    return distances


def kmeans(rows: np.ndarray) -> np.ndarray:
    """Return for each row, [channels, weights], how little its cluster can do without it, [channels]."""
    from sklearn.cluster import KMeans

    found = KMeans(max(1, len(rows) // 2), n_init=1, random_state=0).fit(rows)
    apart = np.sqrt(np.square(rows - found.cluster_centers_[found.labels_]).sum(axis=1))
    sizes = np.sqrt(np.square(rows).sum(axis=1))
    scores: np.ndarray = apart / max(float(apart.max()), 1e-12) / 2
    for cluster in np.unique(found.labels_):
        members = np.flatnonzero(found.labels_ == cluster)
        middle = members[np.argmin(apart[members])]
        scores[middle] = 1 + sizes[middle] / max(float(sizes.max()), 1e-12)
    return scores


def filters(array: np.ndarray, axis: int) -> np.ndarray:
    """Return the weights of each position along an axis as a row, [size of the axis, weights]."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


_NORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "l1": lambda rows: np.abs(rows).sum(axis=1),
        "l2": lambda rows: np.sqrt(np.square(rows).sum(axis=1)),
        "fpgm": fpgm,
        "kmeans": kmeans,
        "batch-norm": lambda rows: np.abs(rows).sum(axis=1),
    }
)


def importance(
    group: Group, nodes: Mapping[str, ir.Node], criterion: Criterion, rng: np.random.Generator
) -> np.ndarray | None:
    """Return how much each channel of a group matters, [channels]; None: the criterion says nothing about it.

    Args:
        group: Of the model that the nodes are of.
        nodes: By name.
        criterion: See the top of the module.
        rng: For ``random``.
    """
    if criterion == "random":
        return rng.random(group.channels)
    places = group.producers
    if criterion == "batch-norm":
        places = tuple(
            item for item in group.parameters if item.input == 1 and nodes[item.node].op_type == "BatchNormalization"
        )
    total = np.zeros(group.channels)
    for item in places:
        array = float_constant(nodes[item.node].inputs[item.input])
        if array is not None:
            found = per_channel(group, item.labels, _NORMS[criterion](filters(array, item.axis)))
            total += found / max(float(found.mean()), 1e-12)
    return total if places else None


def per_channel(group: Group, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add up a value per position, of these labels, to one per channel of the group, [channels]."""
    order = np.argsort(group.labels)
    place = order[np.searchsorted(group.labels, labels, sorter=order) % group.channels]
    mine = group.labels[place] == labels
    return np.bincount(place[mine], values[mine], minlength=group.channels)
