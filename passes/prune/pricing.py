"""What a model costs for any choice of channels: multiply-accumulate operations (MACs), or elements of weights.

Every cost is a sum of products: of the kept positions of the axes that a matrix product or a weight has. A group has
some positions on each of these axes; so the cost for any numbers of kept channels is told without making the model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.costs import macs
from onnxcomp.passes.cleanup._graph import is_constant

from .groups import Channels
from .layers import RECURRENT

__all__ = ["Costs", "Counted", "Measure", "costs_by_node", "price", "work"]

Measure = Literal["macs", "params"]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """A sum of products of axes.

    Attributes:
        fixed: What costs the same whatever is removed.
        weights: Of each product, per element, [products].
        labels: Of the axes of each product.
    """

    fixed: float
    weights: npt.NDArray[np.float64]
    labels: Sequence[Sequence[npt.NDArray[np.int32]]]

    def of(self, table: npt.NDArray[np.bool_]) -> float:
        """Return the cost where these labels stay, [labels]; see `Channels.table`."""
        sizes = [math.prod(int(table[axis].sum()) for axis in axes) for axes in self.labels]
        return self.fixed + float(self.weights @ np.array(sizes, np.float64)) if sizes else self.fixed


class Counted:
    """Costs as a function of how many channels of each group are kept.

    Args:
        costs: Of the model.
        channels: Of the model.
    """

    def __init__(self, costs: Costs, channels: Channels) -> None:
        owner = np.full(channels.count, -1)
        for number, group in enumerate(channels.groups):
            owner[group.labels] = number
        sizes = np.array([group.channels for group in channels.groups], np.float64)
        longest = max((len(axes) for axes in costs.labels), default=0)
        shape = len(costs.labels), longest
        self._fixed, self._weights = costs.fixed, costs.weights
        self._base = np.ones(shape)  # positions that always stay; an axis that is not there is one
        self._each = np.zeros((*shape, len(sizes)))  # positions per channel of each group
        for product, axes in enumerate(costs.labels):
            for place, axis in enumerate(axes):
                owners = owner[axis]
                self._base[product, place] = (owners < 0).sum()
                self._each[product, place] = np.bincount(owners[owners >= 0], minlength=len(sizes)) / sizes

    def of(self, counts: npt.NDArray[np.int64]) -> float:
        """Return the cost of keeping so many channels of each group, [groups]."""
        return self._fixed + float(self._weights @ (self._base + self._each @ counts).prod(axis=1))

    def slopes(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return what one channel more of each group costs, [groups]."""
        sizes = self._base + self._each @ counts  # [products, axes]
        found = np.zeros(self._each.shape[2])
        for place in range(sizes.shape[1]):
            others = np.delete(sizes, place, axis=1).prod(axis=1) * self._weights
            found += others @ self._each[:, place]
        return found


def costs_by_node(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int | None]:
    """Return the MACs of each node in a run with tensors of these shapes, by name; None: they can't be told."""
    copy = model.clone()
    for node in copy.graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None and not value.is_initializer() and str(value.name) in shapes:
                value.shape = ir.Shape(shapes[str(value.name)])
    return {str(node.name): macs(node) for node in copy.graph}


def price(model: ir.Model, channels: Channels, measure: Measure) -> Costs:
    """Return what a prepared model costs; nodes whose MACs can't be told cost nothing."""
    products = _parameters(model, channels) if measure == "params" else _operations(model, channels)
    fixed, weights, labels = 0.0, [], []
    for total, axes in products:
        changing = [axis for axis in axes if axis.any()]
        if changing and total:
            weights.append(total / math.prod(axis.size for axis in changing))
            labels.append(changing)
        else:
            fixed += total
    return Costs(fixed, np.array(weights, np.float64), labels)


_Product = tuple[float, list[npt.NDArray[np.int32]]]


def _sliced(channels: Channels) -> dict[tuple[str, int], list[tuple[int, npt.NDArray[np.int32]]]]:
    found: dict[tuple[str, int], list[tuple[int, npt.NDArray[np.int32]]]] = {}
    for item in channels.slices:
        found.setdefault((item.node, item.input), []).append((item.axis, item.labels))
    return found


def _parameters(model: ir.Model, channels: Channels) -> list[_Product]:
    sliced, found, counted = _sliced(channels), list[_Product](), set[str]()
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or value.name in counted:
                continue
            counted.add(str(value.name))
            axes = [labels for _, labels in sliced.get((str(node.name), index), [])]
            found.append((float(value.const_value.size), axes))
    return found


def _operations(model: ir.Model, channels: Channels) -> list[_Product]:
    sliced, found = _sliced(channels), list[_Product]()
    costs = costs_by_node(model, channels.shapes)
    axes = work(model, channels)
    for node in model.graph:
        name = str(node.name)
        total = costs[name]
        if not total:
            continue
        if node.op_type in RECURRENT:  # the products with the input, and with the state
            elements = [math.prod(channels.shape(node.inputs[index])) for index in (1, 2)]
            for index, size in zip((1, 2), elements, strict=True):
                cut = [labels for _, labels in sliced.get((name, index), [])]
                found.append((total * size / sum(elements), cut))
        else:
            found.append((float(total), axes[name]))
    return found


def work(model: ir.Model, channels: Channels) -> dict[str, list[npt.NDArray[np.int32]]]:
    """Return the axes whose sizes, multiplied, tell how much each node computes, by name: a label per position.

    Each element of the output (of the input, where it is spread), times what is summed over.
    """
    sliced, found = _sliced(channels), dict[str, list[npt.NDArray[np.int32]]]()
    for node in model.graph:
        name = str(node.name)
        free = node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]
        axes = [] if free is None or str(free.name) not in channels.shapes else _axes(channels, free)
        if node.op_type in ("Conv", "ConvTranspose"):
            axes += [labels for axis, labels in sliced.get((name, 1), []) if axis == 1]
        elif node.op_type in ("Gemm", "MatMul"):
            data, axis = (node.inputs[1], -2) if is_constant(node.inputs[0]) else (node.inputs[0], -1)
            axes += [] if data is None or not channels.shape(data) else [channels.positions(str(data.name), axis)]
        found[name] = axes
    return found


def _axes(channels: Channels, value: ir.Value) -> list[npt.NDArray[np.int32]]:
    return [channels.positions(str(value.name), k) for k in range(len(channels.shape(value)))]
