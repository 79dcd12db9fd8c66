"""Channels as integers: tensors of labels, and which labels stand or fall together.

Every channel that a layer with weights makes is an *atom*, a number from 1 on. A tensor of the model is described by an
array of its shape that names, element by element, the atom that the element goes with; 0 is what can't be removed.
Along axes where labels do not change an array has stride 0, so that an image costs no more than its channels.

Joining atoms is a union-find structure: joined ones are removed together or not at all, and one of them that must stay
keeps all of them.

Source: Tarjan, "Efficiency of a good but not linear set union algorithm", 1975; here by connected components.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Atoms", "Labels", "along", "components", "first", "spread"]

Labels = np.ndarray  # of int32, in the shape of a tensor


def spread(column: Labels, axis: int, shape: Sequence[int]) -> Labels:
    """Return labels of a shape that change along one axis only.

    Args:
        column: A label per index, [shape[axis]].
        axis: Which axis; negative ones count from the end.
        shape: Of the tensor.
    """
    aligned = [1] * len(shape)
    aligned[axis] = column.size
    return np.broadcast_to(column.reshape(aligned), tuple(shape))


def first(labels: Labels, axes: Iterable[int]) -> Labels:
    """Return the labels at index 0 of some axes, which stay as axes of size 1."""
    chosen = set(axes)
    return labels[tuple(slice(0, 1) if axis in chosen else slice(None) for axis in range(labels.ndim))]


def along(labels: Labels, axis: int) -> Labels:
    """Return the labels along one axis at index 0 of all others."""
    return first(labels, set(range(labels.ndim)) - {axis % labels.ndim}).reshape(-1)


def components(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join numbers pair by pair.

    Returns:
        The numbers that occur, and for each the smallest one that it is joined with.
    """
    nodes, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    edges = coo_array((np.ones(a.size, np.int8), (place[: a.size], place[a.size :])), shape=(nodes.size, nodes.size))
    count, found = connected_components(edges, directed=False)
    lowest = np.full(count, np.iinfo(nodes.dtype).max, nodes.dtype)
    np.minimum.at(lowest, found, nodes)
    return nodes, lowest[found]


def _compact(*arrays: Labels) -> list[Labels]:
    """Broadcast arrays against each other, and leave one index of each axis along which none of them changes."""
    same = np.broadcast_arrays(*arrays)
    still = [axis for axis in range(same[0].ndim) if all(array.strides[axis] == 0 for array in same)]
    return [first(array, still) for array in same]


class Atoms:
    """All atoms of a model, which of them are joined, and which must stay."""

    def __init__(self) -> None:
        self._root = np.zeros(1, np.int32)  # of each atom the smallest that it is joined with
        self._stays: dict[int, str] = {}  # roots of what must stay, and why
        self._table: np.ndarray | None = None

    def fresh(self, count: int) -> Labels:
        """Return new atoms, [count]."""
        new = np.arange(self._root.size, self._root.size + count, dtype=np.int32)
        self._root = np.concatenate([self._root, new])
        self._table = None
        return new

    def resolve(self, labels: Labels) -> Labels:
        """Return for each label the one that stands for all that are joined with it; 0: it must stay."""
        if self._table is None:
            self._table = self._root.copy()
            self._table[np.isin(self._root, list(self._stays))] = 0
        small = first(labels, [axis for axis in range(labels.ndim) if labels.strides[axis] == 0])
        return np.broadcast_to(self._table[small], labels.shape)

    def alive(self, labels: Labels) -> bool:
        """Say whether anything of it can be removed."""
        return bool(self.resolve(_compact(labels)[0]).any())

    def vary(self, labels: Labels) -> tuple[int, ...]:
        """Return the axes along which labels change."""
        found = self.resolve(_compact(labels)[0])
        return tuple(axis for axis in range(found.ndim) if (found != first(found, [axis])).any())

    def join(self, a: Labels, b: Labels, reason: str) -> None:
        """Join two arrays of labels, position by position; they are broadcast.

        Args:
            a: Labels.
            b: Labels.
            reason: Why an atom must stay that is joined with what must stay for no better reason.
        """
        pairs = np.stack([self._root[array].reshape(-1) for array in _compact(a, b)], axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        fixed = (pairs == 0).any(axis=1)
        self.freeze(pairs[fixed].max(axis=1), reason)
        pairs = pairs[~fixed]
        if not len(pairs):
            return
        nodes, lowest = components(pairs[:, 0], pairs[:, 1])
        lookup = np.arange(self._root.size, dtype=np.int32)
        lookup[nodes] = lowest
        for node, root in zip(nodes.tolist(), lowest.tolist(), strict=True):
            if node != root and node in self._stays:
                self._stays.setdefault(root, self._stays.pop(node))
        self._root = lookup[self._root]
        self._table = None

    def tie(self, labels: Labels, axes: Iterable[int], reason: str) -> None:
        """Join whatever differs only in its index along some axes."""
        self.join(labels, first(labels, axes), reason)

    def column(self, labels: Labels, axis: int, reason: str) -> Labels:
        """Make labels a function of their index along one axis, and return it, [size of the axis]."""
        axis %= labels.ndim
        self.tie(labels, set(range(labels.ndim)) - {axis}, reason)
        return along(labels, axis)

    def freeze(self, labels: Labels, reason: str) -> None:
        """Let atoms stay; the first reason counts."""
        for root in np.unique(self._root[_compact(labels)[0]]).tolist():
            if root:
                self._stays.setdefault(root, reason)
        self._table = None

    def reason(self, label: int) -> str | None:
        """Return why an atom must stay, or None."""
        return self._stays.get(int(self._root[label]))
