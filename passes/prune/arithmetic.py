"""Rules for arithmetic, activation functions, normalizations and reductions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant, int_attribute, ints_attribute

from .atoms import spread
from .walk import Walk

__all__ = ["ARITHMETIC"]

_UNARY = ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu",
          "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "HardSigmoid",
          "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "QuickGelu",
          "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
          "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")  # fmt: skip
_JOINS = ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
          "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor")  # fmt: skip
_SUMS = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")  # where 0 changes nothing
_STATISTICS = ("ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")
_Rule = Callable[[Walk, ir.Node], None]


def _unary(walk: Walk, node: ir.Node) -> None:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        walk.freeze(node, f"the mask of {node.op_type} is used")
    walk.set(node.outputs[0], walk.of(node.inputs[0]))


def _join(walk: Walk, node: ir.Node) -> None:
    walk.join(node, range(len(node.inputs)), node.outputs[0])


def _parameters(walk: Walk, node: ir.Node, last: int, labels: np.ndarray) -> None:
    for index in range(1, last):
        if index < len(node.inputs) and node.inputs[index] is not None:
            if walk.weight(node, index) is None:
                walk.atoms.freeze(labels, f"a parameter of {node.op_type} is computed")
            walk.cut(node, index, 0, labels, "parameter")


def _per_channel(walk: Walk, node: ir.Node) -> None:
    """BatchNormalization and InstanceNormalization: X [N, C, ...], a parameter [C] each; C by itself."""
    labels = walk.of(node.inputs[0])
    column = walk.atoms.column(labels, 1, "positions of one channel differ")
    _parameters(walk, node, 5, column)
    walk.set(node.outputs[0], spread(column, 1, labels.shape))


def _group_norm(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...]: whole groups go, since each has statistics of its own."""
    labels, groups = walk.of(node.inputs[0]), int_attribute(node, "num_groups", 1)
    column = walk.atoms.column(labels, 1, "positions of one channel differ")
    if groups == 1:
        walk.atoms.freeze(column, "it is normalized with all others")
    walk.atoms.tie(column.reshape(groups, -1), [1], "it is normalized with others")
    size = walk.shape(node.inputs[1])[0]
    _parameters(walk, node, 3, column if size == column.size else column.reshape(groups, -1)[:, 0])
    walk.set(node.outputs[0], spread(column, 1, labels.shape))


def _over(walk: Walk, node: ir.Node, axes: list[int], why: str) -> None:
    """A statistic over some axes, in the shape of the input."""
    labels = walk.of(node.inputs[0])
    if walk.settle(labels, axes, why):
        walk.set(node.outputs[0], labels)


def _layer_norm(walk: Walk, node: ir.Node) -> None:
    rank = len(walk.shape(node.inputs[0]))
    axes = list(range(int_attribute(node, "axis", -1) % rank, rank))
    _over(walk, node, axes, f"{node.op_type} normalizes it with all others")
    for output in node.outputs[1:]:
        if output.uses():
            walk.freeze(node, "statistics of a normalization are used")


def _softmax(walk: Walk, node: ir.Node) -> None:
    rank = len(walk.shape(node.inputs[0]))
    new = node.graph is None or _opset(node) >= 13
    axis = int_attribute(node, "axis", -1 if new else 1) % rank
    axes = [axis] if new or node.op_type == "LpNormalization" else list(range(axis, rank))
    _over(walk, node, axes, f"{node.op_type} is taken over it and others")


def _opset(node: ir.Node) -> int:
    """Return the version of the standard operators where a node is."""
    graph = node.graph
    return 13 if graph is None else graph.opset_imports.get("", 13)


def _reduce(walk: Walk, node: ir.Node) -> None:
    labels = walk.of(node.inputs[0])
    axes = ints_attribute(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        if (array := constant(node.inputs[1])) is None:
            walk.freeze(node, "what it is reduced over is computed")
            return
        axes = tuple(array.reshape(-1).tolist())
    if not axes and int_attribute(node, "noop_with_empty_axes", 0):
        walk.set(node.outputs[0], labels)
        return
    over = sorted({axis % labels.ndim for axis in axes or range(labels.ndim)})
    varying = walk.atoms.vary(labels)
    summed = node.op_type in _SUMS or (node.op_type == "ReduceMean" and _is_square(node.inputs[0]))
    if summed and len(varying) == 1 and varying[0] in over:
        walk.read(node, 0, varying[0])
        return
    if not walk.settle(labels, over, f"{node.op_type} is taken over it and others"):
        return
    small = labels[tuple(slice(0, 1) if axis in over else slice(None) for axis in range(labels.ndim))]
    walk.set(node.outputs[0], small.reshape(walk.shape(node.outputs[0])))


def _is_square(value: ir.Value | None) -> bool:
    """Whether a mean over it is a root mean square's: exact without some of them, when it is scaled (`shrink`)."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in ("Mul", "Pow"):
        return False
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    exponent = constant(node.inputs[1])
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2


ARITHMETIC: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY, _unary),
        **dict.fromkeys(_JOINS, _join),
        **dict.fromkeys((*_SUMS, *_STATISTICS), _reduce),
        **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _per_channel),
        **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _layer_norm),
        **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "Softmax"), _softmax),
        "GroupNormalization": _group_norm,
    }
)
