"""Rules for arithmetic, activation functions and reductions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant, int_attribute, ints_attribute

from .walk import Walk

__all__ = ["ARITHMETIC"]

_UNARY = ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu",
          "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "HardSigmoid",
          "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "QuickGelu",
          "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
          "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")  # fmt: skip
_JOINS = ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
          "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor")  # fmt: skip
# where 0 changes nothing; a mean over fewer values is scaled (`shrink`)
_SUMS = ("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare")
_EXTREMES = ("ReduceMax", "ReduceMin")  # where the mean changes nothing
_STATISTICS = ("ReduceLogSum", "ReduceLogSumExp", "ReduceProd")
_Rule = Callable[[Walk, ir.Node], None]


def _unary(walk: Walk, node: ir.Node) -> None:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        walk.freeze(node, f"the mask of {node.op_type} is used")
    walk.set(node.outputs[0], walk.of(node.inputs[0]))


def _join(walk: Walk, node: ir.Node) -> None:
    walk.join(node, range(len(node.inputs)), node.outputs[0])


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
    if len(varying) == 1 and varying[0] in over and node.op_type not in _STATISTICS:
        of_what_stays = node.op_type in _EXTREMES or _centres(node)
        walk.read(node, 0, varying[0], over=over if of_what_stays else ())
        return
    if not walk.settle(labels, over, f"{node.op_type} is taken over it and others"):
        return
    small = labels[tuple(slice(0, 1) if axis in over else slice(None) for axis in range(labels.ndim))]
    walk.set(node.outputs[0], small.reshape(walk.shape(node.outputs[0])))


def _centres(node: ir.Node) -> bool:
    """Say whether it is the mean that is subtracted from what it is of: the first half of a normalization."""
    return node.op_type == "ReduceMean" and any(
        use.node.op_type == "Sub" and use.idx == 1 and use.node.inputs[0] is node.inputs[0]
        for use in node.outputs[0].uses()
    )


ARITHMETIC: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY, _unary),
        **dict.fromkeys(_JOINS, _join),
        **dict.fromkeys((*_SUMS, *_EXTREMES, *_STATISTICS), _reduce),
    }
)
