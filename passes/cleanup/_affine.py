"""Fold ``y * scale + shift`` per output channel into the Conv, ConvTranspose, Gemm or MatMul that computes ``y``.

::

    y = W x + b;  y * s + t   ==>   y = (s W) x + (s b + t)

The one piece of arithmetic behind folding BatchNormalization, biases and scales. It is done in float64 and rounded
once to the type of the weights.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ._graph import (
    Names,
    constant_dtype,
    float_attribute,
    float_constant,
    int_attribute,
    is_op,
    set_constant,
    sole_consumer,
)
from ._shapes import Shapes

__all__ = ["LINEAR_OPS", "Linear", "linear"]

LINEAR_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Linear:
    """A node with constant weights, read once.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        channels: Number of output channels.
        rank: Rank of the output; ``None`` where it is not known (MatMul).
        channel_axis: Axis of the output that holds the channels, from the right (-1 is last).
        weight: In float64, in the node's own layout.
        bias: ``[channels]`` in float64; zeros where there is none.
        dtype: Type to round to.
    """

    node: ir.Node
    channels: int
    rank: int | None
    channel_axis: int
    weight: np.ndarray
    bias: np.ndarray
    dtype: np.dtype[np.generic]

    def channel_vector(self, array: np.ndarray) -> np.ndarray | None:
        """Return a constant that broadcasts over the output as ``[channels]``.

        ``None`` where it varies along another axis, or where broadcasting would change the output's shape.
        """
        if array.ndim > (1 if self.rank is None else self.rank):
            return None
        axis = array.ndim + self.channel_axis
        if any(size != 1 for i, size in enumerate(array.shape) if i != axis):
            return None
        if array.size not in (1, self.channels):
            return None
        return np.broadcast_to(array.reshape(-1), (self.channels,))

    def fold(self, scale: np.ndarray, shift: np.ndarray, names: Names) -> str | None:
        """Change the node so that it computes ``y * scale + shift``.

        Args:
            scale: ``[channels]``.
            shift: ``[channels]``.
            names: Of the model.

        Returns:
            Why it can't be done, with nothing changed, or ``None``.
        """
        if self.node.op_type == "MatMul" and self.rank != 2 and np.any(shift != 0):
            return f"MatMul {self.node.name} can't take a bias: it is not known to give a matrix"
        weight = _round(self._scaled(scale), self.dtype)
        bias = _round(self.bias * scale + shift, self.dtype)
        if weight is None or bias is None:
            return f"the folded weights would overflow {self.dtype}"
        base = self.node.name or self.node.op_type
        if np.any(scale != 1):
            set_constant(self.node, 1, weight, names=names, base=f"{base}.weight")
        had_bias = len(self.node.inputs) > 2 and self.node.inputs[2] is not None
        if had_bias or np.any(bias != 0):
            if self.node.op_type == "MatMul":
                self.node.op_type = "Gemm"
            self.node.attributes.pop("beta", None)  # of a Gemm: the bias is in terms of the output now
            set_constant(self.node, 2, bias, names=names, base=f"{base}.bias")
        return None

    def _scaled(self, scale: np.ndarray) -> np.ndarray:
        weight, factors = self.weight, scale
        if self.node.op_type == "Conv":  # [out, in / group, *kernel]
            factors = scale.reshape(-1, *[1] * (weight.ndim - 1))
        elif self.node.op_type == "ConvTranspose":  # [in, out / group, *kernel]: inputs of one group lie together
            groups = int_attribute(self.node, "group", 1)
            per_group = scale.reshape(groups, -1, *[1] * (weight.ndim - 2))
            factors = np.repeat(per_group, weight.shape[0] // groups, axis=0)
        elif self.node.op_type == "Gemm" and int_attribute(self.node, "transB", 0):  # [out, in]
            factors = scale[:, None]
        return np.asarray(weight * factors)  # Gemm and MatMul: [in, out]


def linear(value: ir.Value, consumer: ir.Node, shapes: Shapes) -> Linear | str:
    """Read the linear operator that computes ``value`` for ``consumer`` alone, or say why it can't be changed."""
    node = value.producer()
    if node is None or not is_op(node, *LINEAR_OPS):
        return f"no {', '.join(LINEAR_OPS)} comes before it"
    if sole_consumer(value) is not consumer or node.graph is not consumer.graph:
        return f"the output of {node.op_type} {node.name} is used elsewhere too"
    weight, dtype = float_constant(node.inputs[1]), constant_dtype(node.inputs[1])
    if weight is None or dtype is None:
        return f"the weight of {node.op_type} {node.name} is not a floating-point constant"
    if node.op_type == "MatMul":
        return _matmul(node, weight, dtype, shapes.rank(node.inputs[0]))
    channels = _channels(node, weight)
    bias = _bias(node, channels)
    if bias is None:
        return f"the bias of {node.op_type} {node.name} is not one constant per channel"
    rank = 2 if node.op_type == "Gemm" else weight.ndim
    return Linear(node, channels, rank, 1 - rank, weight, bias, dtype)


def _matmul(node: ir.Node, weight: np.ndarray, dtype: np.dtype[np.generic], rank: int | None) -> Linear | str:
    if weight.ndim != 2:  # [in, out]
        return f"the weight of MatMul {node.name} is no matrix"
    return Linear(node, weight.shape[1], rank, -1, weight, np.zeros(weight.shape[1]), dtype)


def _channels(node: ir.Node, weight: np.ndarray) -> int:
    first, second = int(weight.shape[0]), int(weight.shape[1])
    if node.op_type == "ConvTranspose":
        return second * int_attribute(node, "group", 1)
    return second if node.op_type == "Gemm" and not int_attribute(node, "transB", 0) else first


def _bias(node: ir.Node, channels: int) -> np.ndarray | None:
    """Return the bias as it is added to the output, ``None`` where it is not one constant per channel."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(channels)
    bias = float_constant(value)
    if bias is None or bias.size not in (1, channels) or (bias.ndim and bias.shape[-1] != bias.size):
        return None
    factor = float_attribute(node, "beta", 1.0) if is_op(node, "Gemm") else 1.0
    return np.broadcast_to(bias.reshape(-1), (channels,)) * factor


def _round(array: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        rounded = array.astype(dtype)
    return rounded if np.all(np.isfinite(rounded.astype(np.float64))) else None
