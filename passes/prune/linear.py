"""Linear layers whose weights may be fitted: how each reads its input, where its bias is, what it should give.

The tensor that a layer should give is taken behind its bias, and, where only an Add reads it, behind that: what the
other operand of the Add lost can be made up for there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import (
    Names,
    constant,
    float_attribute,
    int_attribute,
    ints_attribute,
    is_op,
    onnx_domain,
    set_constant,
    sole_consumer,
)
from onnxcomp.statistics import Columns, Window, columns_of, draw

__all__ = ["OPS", "Kept", "Layer", "alone", "layer_of", "left"]

Kept = Mapping[str, Mapping[int, np.ndarray]]  # see `Origin.kept`
OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A node with a constant weight: ``y = W x + b``, at every position.

    Attributes:
        node: The node.
        columns: How it reads x.
        shape: Of the weight.
        spread: Zeros that are put between the inputs of a ConvTranspose, and what is added around them, by axis.
        holder: The node whose constant input the bias is, or may become; None: there is no place for one.
        place: Which input of the holder.
        result: The tensor y.
        axis: Of y's channels.
        skip: The tensor that an Add adds to y, and nothing else reads y; None: there is none.
        bounds: What the activation behind that, which alone reads it, cuts off: values below and above.
    """

    node: ir.Node
    columns: Columns
    shape: tuple[int, ...]
    spread: tuple[tuple[int, int, int], ...] | None
    holder: ir.Node | None
    place: int
    result: ir.Value
    axis: int
    skip: ir.Value | None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.node.name)

    @property
    def source(self) -> str:
        """Name of the tensor that it reads."""
        return self.columns.tensor

    @property
    def mine(self) -> set[str]:
        """Name the tensors of the smaller model that fitting takes."""
        return {self.source} | (set() if self.skip is None else {str(self.skip.name)})

    @property
    def theirs(self) -> set[str]:
        """Name the tensors of the original that fitting takes."""
        return {str(self.result.name)} | (set() if self.skip is None else {str(self.skip.name)})

    @property
    def size(self) -> tuple[int, int, int]:
        """Groups, outputs of each, inputs of each."""
        return self.columns.groups, self.width // self.columns.groups, self.columns.length

    def vectors(
        self,
        wanted: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
        kept: Kept,
        most: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return some positions of a run.

        Args:
            wanted: Tensors of the original.
            found: Tensors of the smaller model.
            kept: What is left of the original's tensors.
            most: Positions at most.
            rng: Draws them.

        Returns:
            What the layer reads, [groups, positions, K]; what its sum with a skip should be, [groups, positions,
            outputs / groups]; that skip.
        """
        name = str(self.result.name)
        source = self.prepared(found[self.source])
        places = draw(self.columns.count(source), most, rng)
        whole = left(wanted[name], kept.get(name, {}))
        x, target = self.columns.at(source, places), self.outputs(whole, places)
        if self.skip is None:
            return x, target, np.zeros((), np.float32)
        name = str(self.skip.name)
        theirs, mine = left(wanted[name], kept.get(name, {})), found[name]
        added, around = (self.outputs(np.broadcast_to(skip, whole.shape), places) for skip in (theirs, mine))
        return x, target + added, around

    def prepared(self, values: np.ndarray) -> np.ndarray:
        """Return the input of a run as `Columns` wants it: that of a ConvTranspose with zeros between its positions."""
        values = np.asarray(values, np.float32)
        if self.spread is None:
            return values
        sizes = [
            (size - 1) * step + 1 + before + behind
            for size, (step, before, behind) in zip(values.shape[2:], self.spread, strict=True)
        ]
        places = tuple(
            slice(before, before + (size - 1) * step + 1, step)
            for size, (step, before, _) in zip(values.shape[2:], self.spread, strict=True)
        )
        result = np.zeros((*values.shape[:2], *sizes), np.float32)
        result[(slice(None), slice(None), *places)] = values
        return result

    def outputs(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return what y, or a tensor of its shape, has at these positions: [groups, positions, outputs / groups]."""
        rows: np.ndarray = np.moveaxis(values, self.axis, -1).reshape(-1, values.shape[self.axis])[places]
        return rows.reshape(len(places), self.columns.groups, -1).transpose(1, 0, 2)

    def weight(self) -> np.ndarray:
        """Return the weight, [groups, outputs / groups, K], in float64."""
        array = constant(self.node.inputs[1])
        assert array is not None
        array = array.astype(np.float64)
        if self.spread is None:
            return self.columns.rows(array)
        groups = self.columns.groups
        turned = np.flip(array, tuple(range(2, array.ndim))).reshape(groups, -1, *array.shape[1:])
        return np.moveaxis(turned, 2, 1).reshape(groups, array.shape[1], -1)

    def bias(self) -> np.ndarray | None:
        """Return the bias, [groups, outputs / groups]; zeros where there could be one, None where there can't."""
        if self.holder is None:
            return None
        array = constant(self.holder.inputs[self.place]) if self.place < len(self.holder.inputs) else None
        size = self.width
        flat = np.zeros(size) if array is None else np.broadcast_to(array.astype(np.float64).reshape(-1), size)
        return flat.reshape(self.columns.groups, -1)

    @property
    def width(self) -> int:
        """Number of outputs."""
        if self.spread is not None:
            return self.shape[1] * self.columns.groups
        return self.shape[1] if self.columns.weight_transposed else self.shape[0]

    def write(self, weight: np.ndarray, bias: np.ndarray | None, names: Names) -> None:
        """Give the layer a weight and a bias, in the shapes that `weight` and `bias` return."""
        groups = self.columns.groups
        if self.spread is None:
            array = self.columns.weight(weight, self.shape)
        else:
            turned = weight.reshape(groups, self.shape[1], -1, *self.shape[2:])
            array = np.flip(np.moveaxis(turned, 1, 2).reshape(self.shape), tuple(range(2, len(self.shape))))
        set_constant(self.node, 1, array.astype(np.float32), names=names, base=f"{self.name}.weight")
        if bias is None or self.holder is None:
            return
        old = constant(self.holder.inputs[self.place]) if self.place < len(self.holder.inputs) else None
        if old is None and not bias.any():
            return
        shape = old.shape if old is not None and old.size == bias.size else (bias.size,)
        set_constant(
            self.holder, self.place, bias.reshape(shape).astype(np.float32), names=names, base=f"{self.name}.bias"
        )


def layer_of(node: ir.Node) -> Layer | str | None:
    """Return the layer that a node is, why its weights can't be fitted, or None: it is no linear layer."""
    if node.op_type not in OPS or not onnx_domain(node) or constant(node.inputs[1]) is None:
        return None
    value = node.inputs[1]
    weight = constant(value)
    assert weight is not None
    assert value is not None
    if weight.dtype != np.float32:
        return "its weight is not float32"
    if len(value.uses()) > 1 or value.is_graph_output():
        return "its weight is used elsewhere too"
    if not weight.size or not np.isfinite(weight).all():
        return "its weight is empty, or holds NaN or infinity"
    if any(float_attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "alpha or beta is set"
    turned = _transposed(node, weight.shape) if node.op_type == "ConvTranspose" else (columns_of(node), None)
    columns, spread = (None, None) if turned is None else turned
    if columns is None:
        return "its weight is no matrix, or its output has a size of its own"
    axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
    layer = Layer(node, columns, weight.shape, spread, None, 2, node.outputs[0], axis, None)
    found = _with_bias(layer)
    if isinstance(found, str):
        return found
    skip = _skip(found.result)
    return replace(found, skip=skip, bounds=_bounds(found.result if skip is None else _sum(found.result)))


def left(values: np.ndarray, kept: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return what is left of a tensor of the original; ``kept`` are indices by axis."""
    for axis, places in kept.items():
        values = np.take(values, places, axis=axis)
    return values


def alone(layer: Layer) -> Layer:
    """Return a layer that makes up for nothing but what it lost itself."""
    return replace(layer, skip=None, bounds=(-math.inf, math.inf))


def _with_bias(layer: Layer) -> Layer | str:
    """Find the place of the bias."""
    node = layer.node
    outputs = layer.width
    if node.op_type != "MatMul":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is None:
            return replace(layer, holder=node)
        return replace(layer, holder=node) if _is_bias(value, outputs) else "its bias is computed, or no vector"
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_op(reader, "Add"):
        return layer
    place = 1 if reader.inputs[0] is node.outputs[0] else 0
    if not _is_bias(reader.inputs[place], outputs, vector=True):
        return layer
    return replace(layer, holder=reader, place=place, result=reader.outputs[0])


def _is_bias(value: ir.Value | None, outputs: int, *, vector: bool = False) -> bool:
    """Whether a constant is one number per output, along the last axis; a single number for all will do."""
    array = constant(value)
    if array is None or array.dtype != np.float32 or not np.isfinite(array).all():
        return False
    if array.size == 1 and array.ndim <= 1 and not vector:
        return True
    return array.ndim > 0 and array.size == outputs == array.shape[-1]


def _skip(value: ir.Value) -> ir.Value | None:
    """Return the computed tensor that an Add adds to a value, where nothing else reads it."""
    reader = sole_consumer(value)
    if reader is None or not is_op(reader, "Add"):
        return None
    other = reader.inputs[1 if reader.inputs[0] is value else 0]
    return None if other is None or other is value or other.is_initializer() or other.producer() is None else other


def _sum(value: ir.Value) -> ir.Value:
    """Return the result of the node that alone reads a value."""
    reader = sole_consumer(value)
    assert reader is not None
    return reader.outputs[0]


def _bounds(value: ir.Value) -> tuple[float, float]:
    """Return between which bounds the one reader of a value, a Relu or a Clip, leaves it as it is."""
    reader = sole_consumer(value)
    if is_op(reader, "Relu"):
        return 0.0, math.inf
    if reader is None or not is_op(reader, "Clip"):
        return -math.inf, math.inf
    ends = [-math.inf, math.inf]
    for place, name in enumerate(("min", "max")):
        given = reader.inputs[place + 1] if place + 1 < len(reader.inputs) else None
        array = constant(given)
        if given is not None and (array is None or array.size != 1):
            return -math.inf, math.inf
        ends[place] = float_attribute(reader, name, ends[place]) if array is None else float(array.reshape(()))
    return ends[0], ends[1]


def _transposed(node: ir.Node, shape: tuple[int, ...]) -> tuple[Columns, tuple[tuple[int, int, int], ...]] | None:
    """Write a ConvTranspose as a convolution over its input with zeros between; None: its output has a size of its own.

    Each input puts its multiple of the kernel into the output: an output position reads the inputs around it, through
    the kernel backwards.
    """
    source = node.inputs[0]
    if source is None or "output_shape" in node.attributes:
        return None
    if (mode := node.attributes.get("auto_pad")) is not None and mode.as_string() not in ("NOTSET", "VALID"):
        return None
    axes, groups = len(shape) - 2, int_attribute(node, "group", 1)
    strides = ints_attribute(node, "strides") or (1,) * axes
    dilations = ints_attribute(node, "dilations") or (1,) * axes
    pads = ints_attribute(node, "pads") or (0,) * (2 * axes)
    extra = ints_attribute(node, "output_padding") or (0,) * axes
    spread = []
    for k in range(axes):
        reach = dilations[k] * (shape[2 + k] - 1)
        before, behind = reach - pads[k], reach - pads[axes + k] + extra[k]
        if before < 0 or behind < 0:
            return None
        spread.append((strides[k], before, behind))
    window = Window(shape[2:], (1,) * axes, dilations, (0,) * (2 * axes), groups=groups)
    length = shape[0] // groups * math.prod(shape[2:])
    return Columns(str(source.name), length, window), tuple(spread)
