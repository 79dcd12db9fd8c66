"""Where the channels of a tensor go: what a factor per channel meets between the node that makes it and its readers.

::

    Conv(W1, b1) -> Relu -> MaxPool -> Conv(W2)
    Conv(W1 / s, b1 / s) -> Relu -> MaxPool -> Conv(s W2)

Correct because ``f(x / s) = f(x) / s`` for a positive ``s`` and every ``f`` that is positively homogeneous: Relu,
LeakyRelu, PRelu, pooling, products with constants (Nagel et al. 2019, equation 4). A constant that is added is divided,
too.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import Names, constant, float_constant, int_attribute, ints_attribute, is_op
from onnxcomp.passes.cleanup._match import clipped
from onnxcomp.passes.cleanup._shapes import Shapes
from onnxcomp.passes.quantize.layers import Edit, Layer, layer_of

__all__ = ["Chain", "Clip", "Place", "Reader", "follow", "made_by", "rename"]

_ELEMENTWISE = ("Identity", "LeakyRelu", "PRelu", "Relu")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
_NO_BOUND = 1e38  # exporters write the largest float32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor holds its channels.

    Attributes:
        axis: From the right: -1 is last.
        rank: Of the tensor; None: not known.
        repeat: How many neighbours on the axis belong to one channel: those that Flatten put beside each other.
    """

    axis: int
    rank: int | None
    repeat: int = 1

    @property
    def index(self) -> int | None:
        """The axis from the left; None: not known."""
        return None if self.rank is None else self.axis + self.rank

    def spread(self, factors: np.ndarray) -> np.ndarray:
        """Return factors, [channels], in a shape that broadcasts over the tensor."""
        return np.repeat(factors, self.repeat).reshape(-1, *[1] * (-self.axis - 1))


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that takes the channels as its input: its weights may take a factor for each."""

    layer: Layer
    place: Place


@dataclass(frozen=True, slots=True)
class Clip:
    """A Clip from 0 to a bound, which is homogeneous only where it never cuts anything off."""

    source: ir.Value
    high: float
    place: Place


@dataclass(slots=True)
class Chain:
    """What lies between the node that makes a tensor and the layers that read it.

    Attributes:
        readers: The layers, at least one.
        steps: The nodes between.
        tensors: All that hold the channels, the first one first.
        operands: Node and input index of each constant that meets the channels, and where it meets them.
        clips: Those of the steps that have an upper bound.
    """

    readers: list[Reader] = field(default_factory=list)
    steps: list[ir.Node] = field(default_factory=list)
    tensors: list[ir.Value] = field(default_factory=list)
    operands: list[tuple[ir.Node, int, Place]] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)

    def offset_edits(self, scale: np.ndarray) -> list[Edit]:
        """Return the constants that are added on the way, divided by a scale per channel."""
        edits = []
        for node, index, place in self.operands:
            array = float_constant(node.inputs[index]) if is_op(node, "Add") else None
            if array is not None:
                edits.append(Edit(node, index, array / place.spread(scale)))
        return edits


def made_by(layer: Layer, shapes: Shapes) -> Place:
    """Return where a layer's output holds its channels."""
    return Place(layer.channel_axis, layer.rank or shapes.rank(layer.node.outputs[0]))


def follow(value: ir.Value, place: Place, channels: int, shapes: Shapes, *, also: Collection[str] = ()) -> Chain | str:
    """Follow the channels of a tensor to every layer that reads them, or say what stands in the way.

    Args:
        value: The tensor.
        place: Of its channels.
        channels: How many there are.
        shapes: Of the model as it is.
        also: More operators that work on each element of their only input by itself.
    """
    found = Chain()
    queue = [(value, place)]
    while queue:
        tensor, here = queue.pop()
        found.tensors.append(tensor)
        if tensor.is_graph_output():
            return f"{tensor.name} is an output of the model"
        for node, index in tensor.uses():
            if node.graph is not value.graph:
                return f"{tensor.name} is read inside a subgraph"
            reader = _reader(node, index, here, channels)
            if isinstance(reader, str):
                return reader
            if reader is not None:
                found.readers.append(reader)
                continue
            after = here if node.op_type in also and index == 0 else _after(node, index, here, channels, shapes)
            if after is None:
                return f"{node.op_type} {node.name} takes no factor per channel"
            if is_op(node, "Clip") and node.op_type not in also and (high := _bound(node, shapes)) is not None:
                if not high > 0:
                    return f"Clip {node.name} does not reach from 0 up"
                if high < _NO_BOUND:
                    found.clips.append(Clip(tensor, high, here))
            if is_op(node, "Add", "Div", "Mul", "PRelu"):
                found.operands.append((node, 1 - index, here))
            found.steps.append(node)
            queue.append((node.outputs[0], after))
    return found if found.readers else "no layer with constant weights reads it"


def rename(values: Collection[ir.Value], mark: str, names: Names) -> None:
    """Give tensors whose values changed names of their own: what was measured by name stays true.

    Args:
        values: The tensors.
        mark: Differs for each change, so that what is measured after one is not taken for another's.
        names: Of the model.
    """
    for value in values:
        value.name = names.fresh(f"{value.name}.{mark}")


def _reader(node: ir.Node, index: int, place: Place, channels: int) -> Reader | str | None:
    """Return a layer that takes the channels, why it does not, or None: it is no layer."""
    layer = layer_of(node)
    if layer is None or isinstance(layer, str):
        return layer
    if node.op_type == "MatMul":
        fits = place.axis == -1
    elif node.op_type == "Gemm":
        fits = place.axis == -1 and not int_attribute(node, "transA", 0)
    else:
        fits = place.index == 1 and place.rank == layer.rank
    if index != 0 or not fits or layer.inputs != channels * place.repeat:
        return f"{node.op_type} {node.name} reads the channels in another way"
    if layer.shared:
        return f"the weights of {node.op_type} {node.name} are used elsewhere too"
    return Reader(layer, place)


def _after(node: ir.Node, index: int, place: Place, channels: int, shapes: Shapes) -> Place | None:
    """Return where the channels are behind a node, or None where they do not pass it one by one."""
    if is_op(node, "Add", "Mul", "Div"):
        return _beside_constant(node, index, place, channels)
    if index != 0:
        return None
    if is_op(node, *_ELEMENTWISE) or (is_op(node, "Clip") and _bound(node, shapes) is not None):
        return place
    if is_op(node, *_POOLS):
        return place if place.index == 1 and place.repeat == 1 else None
    if is_op(node, "Flatten", "Reshape"):
        return _flattened(node, place, shapes)
    if is_op(node, "Transpose") and place.rank is not None:
        order = ints_attribute(node, "perm") or tuple(reversed(range(place.rank)))
        return replace(place, axis=order.index(place.rank + place.axis) - place.rank)
    if is_op(node, "Squeeze", "ReduceMean", "ReduceMax"):
        return _reduced(node, place)
    return None


def _beside_constant(node: ir.Node, index: int, place: Place, channels: int) -> Place | None:
    """Take an operation with a constant that leaves the shape as it is."""
    if len(node.inputs) != 2 or (is_op(node, "Div") and index != 0):
        return None
    array = float_constant(node.inputs[1 - index])
    if array is None or array.ndim > (place.rank or 1):
        return None
    wide = array.shape[place.axis] if array.ndim >= -place.axis else 1
    return place if wide in (1, channels * place.repeat) else None


def _flattened(node: ir.Node, place: Place, shapes: Shapes) -> Place | None:
    """Take what makes [N, C H W] of [N, C, H, W]."""
    dims, after = shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0])
    if place.index != 1 or place.repeat != 1 or dims is None or None in dims[1:]:
        return None
    inner = [size for size in dims[2:] if size is not None]
    if is_op(node, "Flatten"):
        flat = int_attribute(node, "axis", 1) == 1
    else:  # the first axis is what is left
        flat = after is not None and len(after) == 2 and after[1] == math.prod([dims[1] or 0, *inner])
    return Place(-1, 2, math.prod(inner)) if flat else None


def _reduced(node: ir.Node, place: Place) -> Place | None:
    """Take a reduction, or a Squeeze, of axes that do not hold the channels."""
    axes = ints_attribute(node, "axes")
    if axes is None and len(node.inputs) > 1 and (array := constant(node.inputs[1])) is not None:
        axes = tuple(int(axis) for axis in array.reshape(-1))
    if not axes or place.rank is None or place.index is None:
        return None
    gone = {axis % place.rank for axis in axes}
    if place.index in gone:
        return None
    if not is_op(node, "Squeeze") and int_attribute(node, "keepdims", 1):
        return place
    left = [axis for axis in range(place.rank) if axis not in gone]
    return replace(place, axis=left.index(place.index) - len(left), rank=len(left))


def _bound(clip: ir.Node, shapes: Shapes) -> float | None:
    """Return the upper bound of a Clip from 0, infinity where it has none; None: it is no such Clip."""
    bounds = clipped(clip.outputs[0], shapes)
    given = [index for index in (1, 2) if index < len(clip.inputs) and clip.inputs[index] is not None]
    if bounds is None or any(bounds[index] is None for index in given):
        return None
    _, low, high = bounds
    if low is None or low != 0:
        return None
    return math.inf if high is None else high
