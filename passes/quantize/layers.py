"""Conv, ConvTranspose, Gemm and MatMul with constant weights: their weights by channel of input and output."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.passes.cleanup._graph import (
    Names,
    constant_dtype,
    float_constant,
    int_attribute,
    is_op,
    set_constant,
)

__all__ = ["LAYERS", "Edit", "Layer", "Rescaling", "layer_of", "write"]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear operator with constant float32 weights.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        matrix: The weights as [groups, out / group, in / group, kernel positions], float64.
        kernel: Sizes of a convolution's kernel; empty for Gemm and MatMul.
    """

    node: ir.Node
    matrix: NDArray[np.float64]
    kernel: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.matrix.shape[0] * self.matrix.shape[2])

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.matrix.shape[0] * self.matrix.shape[1])

    @property
    def rank(self) -> int | None:
        """Rank of input and output; None: the layer does not tell."""
        return {"Gemm": 2, "MatMul": None}.get(self.node.op_type, 2 + len(self.kernel))

    @property
    def channel_axis(self) -> int:
        """Axis of the output that holds the channels, from the right."""
        return -1 - len(self.kernel)

    @property
    def shared(self) -> bool:
        """Whether somebody else reads the weights, too."""
        value = self.node.inputs[1]
        return value is None or len(value.uses()) > 1 or value.is_graph_output()

    @property
    def bias(self) -> ir.Value | None:
        """The value that is added; None: there is none."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    def stored(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a matrix like the layer's in the layout of the node."""
        groups, outputs, inputs, _ = matrix.shape
        if self.node.op_type == "Conv":
            return matrix.reshape(groups * outputs, inputs, *self.kernel)
        if self.node.op_type == "ConvTranspose":
            return matrix.transpose(0, 2, 1, 3).reshape(groups * inputs, outputs, *self.kernel)
        return matrix[0, :, :, 0] if _outputs_first(self.node) else matrix[0, :, :, 0].T

    def scaled(self, *, outputs: np.ndarray | None = None, inputs: np.ndarray | None = None) -> NDArray[np.float64]:
        """Return the matrix with a factor for each output channel and one for each input channel."""
        groups, per_group, fan_in, _ = self.matrix.shape
        matrix = self.matrix
        if outputs is not None:
            matrix = matrix * outputs.reshape(groups, per_group, 1, 1)
        if inputs is not None:
            matrix = matrix * inputs.reshape(groups, 1, fan_in, 1)
        return matrix


@dataclass(frozen=True, slots=True)
class Edit:
    """A new content for a constant that a node reads, or will."""

    node: ir.Node
    index: int
    array: np.ndarray


@dataclass(slots=True)
class Rescaling:
    """Factors that layers take on, together: one may read what is scaled and make what is scaled as well."""

    _layers: dict[ir.Node, Layer] = field(default_factory=dict)
    _outputs: dict[ir.Node, NDArray[np.float64]] = field(default_factory=dict)
    _inputs: dict[ir.Node, NDArray[np.float64]] = field(default_factory=dict)
    _shifts: dict[ir.Node, NDArray[np.float64]] = field(default_factory=dict)

    def divide_outputs(self, layer: Layer, scale: NDArray[np.float64]) -> None:
        """Divide what a layer makes by a scale per output channel; its bias, if any, is constant."""
        self._layers[layer.node] = layer
        self._outputs[layer.node] = 1 / scale

    def multiply_inputs(self, layer: Layer, factors: NDArray[np.float64]) -> None:
        """Multiply the weights that read each input channel."""
        self._layers[layer.node] = layer
        self._inputs[layer.node] = factors

    def shift(self, layer: Layer, values: NDArray[np.float64]) -> None:
        """Add to the bias, after all factors: [outputs]."""
        self._layers[layer.node] = layer
        self._shifts[layer.node] = self._shifts.get(layer.node, np.zeros(layer.outputs)) + values

    def matrix(self, layer: Layer) -> NDArray[np.float64]:
        """Return the weights with all factors so far."""
        return layer.scaled(outputs=self._outputs.get(layer.node), inputs=self._inputs.get(layer.node))

    def edits(self) -> list[Edit]:
        """Return the new weights and biases."""
        found = []
        for node, layer in self._layers.items():
            if node in self._outputs or node in self._inputs:
                found.append(Edit(node, 1, layer.stored(self.matrix(layer))))
            bias, shift = float_constant(layer.bias), self._shifts.get(node)
            if shift is not None or (bias is not None and node in self._outputs):
                scaled = (np.zeros(1) if bias is None else bias) * self._outputs.get(node, np.ones(1))
                found.append(Edit(node, 2, scaled if shift is None else scaled + shift))
        return found


def layer_of(node: ir.Node | None) -> Layer | str | None:
    """Read a layer; None where the node is none with constant weights, a reason where its weights can't be used."""
    if node is None or not is_op(node, *LAYERS):
        return None
    weight = float_constant(node.inputs[1])
    if weight is None:
        return None
    what = f"of {node.op_type} {node.name}"
    if constant_dtype(node.inputs[1]) != np.float32:
        return f"the weight {what} is not float32"
    if weight.ndim < 2 or (weight.ndim > 2 and node.op_type == "MatMul") or weight.size == 0:
        return f"the weight {what} is no matrix"
    if not np.isfinite(weight).all():
        return f"the weight {what} holds NaN or infinity"
    groups = int_attribute(node, "group", 1)
    if node.op_type == "Conv":
        matrix = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
    elif node.op_type == "ConvTranspose":  # [in, out / group, *kernel]: inputs of one group lie together
        parts = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
        matrix = parts.transpose(0, 2, 1, 3)
    else:
        matrix = (weight if _outputs_first(node) else weight.T)[None, :, :, None]
    return Layer(node, matrix, weight.shape[2:])


def write(edits: Sequence[Edit], names: Names) -> str | None:
    """Give nodes new constants, all or none; return why not.

    Constants that others read too stay as they are for those.
    """
    with np.errstate(over="ignore"):
        arrays = [edit.array.astype(np.float32) for edit in edits]
    if not all(np.isfinite(array).all() for array in arrays):
        return "the scaled weights would overflow"
    for edit, array in zip(edits, arrays, strict=True):
        node = edit.node
        old = node.inputs[edit.index] if edit.index < len(node.inputs) else None
        set_constant(node, edit.index, array, names=names, base=f"{node.name or node.op_type}.{edit.index}")
        maker = None if old is None else old.producer()
        if maker is not None and maker.graph is not None and old is not None and not old.uses():
            maker.graph.remove(maker, safe=True)  # a Constant node
    return None


def _outputs_first(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and bool(int_attribute(node, "transB", 0))
