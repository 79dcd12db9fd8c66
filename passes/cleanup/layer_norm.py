"""Fuse decomposed LayerNormalization into one operator.

::

    d = Sub(x, ReduceMean(x))
    v = ReduceMean(Pow(d, 2))
    y = Add(Mul(Div(d, Sqrt(Add(v, eps))), g), b)   ==>   y = LayerNormalization<epsilon=eps>(x, g, b)

Also with ``Mul(d, d)``, with ``Mul(d, Reciprocal(..))``, with the subtraction written twice, and without ``b``.

Declines: models of an opset below 17, which has no LayerNormalization; axes that are not the last ones; no constant
scale of the normalized shape; an intermediate value that is used elsewhere too.

Correct by definition of the operator; it sums in float32 even where the model is in float16.

Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import (
    Names,
    constant,
    float_constant,
    graphs,
    int_attribute,
    ints_attribute,
    is_op,
    opset_of,
    set_constant,
    sole_consumer,
)
from ._match import close, plus, replace, scalar
from ._shapes import Shapes, infer

__all__ = ["FuseLayerNorm"]


@dataclass(frozen=True, slots=True)
class _Normalized:
    """``(x - mean) / sqrt(variance + epsilon)`` over the last ``depth`` axes."""

    x: ir.Value
    depth: int
    epsilon: float


class FuseLayerNorm(Pass[NoConfig]):
    """Fuse decomposed LayerNormalization."""

    name: ClassVar[str] = "fuse-layer-norm"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if not any(is_op(node, "ReduceMean") for graph in graphs(model) for node in graph):
            return PassStats(modified=False)
        names, shapes, count = Names(model), infer(model), 0
        for graph in graphs(model):
            for node in tuple(graph):
                found = _normalized(node, shapes) if node.graph is graph else None
                if found is None:
                    continue
                if opset_of(model) < 17:
                    ctx.skip(node, "LayerNormalization needs opset 17")
                elif reason := _fuse(node, found, names):
                    ctx.skip(node, reason)
                else:
                    count += 1
        return PassStats(count > 0, {"LayerNormalization fused": count} if count else {})


def _fuse(node: ir.Node, found: _Normalized, names: Names) -> str | None:
    """Fuse one normalization with the scale and bias that follow, or say why not."""
    scaled = sole_consumer(node.outputs[0])
    scale = _parameter(scaled, "Mul", node.outputs[0], found.depth)
    if scaled is None or scale is None:
        return "no constant scale of the normalized shape follows"
    root, bias = scaled, None
    shifted = sole_consumer(scaled.outputs[0])
    if shifted is not None:
        bias = _parameter(shifted, "Add", scaled.outputs[0], found.depth)
        root = scaled if bias is None or bias[1].shape != scale[1].shape else shifted
    attributes = [ir.AttrInt64("axis", -found.depth), ir.AttrFloat32("epsilon", found.epsilon)]
    inputs = [found.x, scale[0]] + ([bias[0]] if bias is not None and root is shifted else [])
    new = ir.Node("", "LayerNormalization", inputs, attributes)
    if not replace(root, new, names):
        return "a graph output needs its name"
    for index, parameter in enumerate((scale, bias)[: len(inputs) - 1], start=1):
        if parameter is not None and parameter[0].shape != ir.Shape(parameter[1].shape):
            dtype = parameter[0].dtype
            assert dtype is not None
            set_constant(new, index, parameter[1].astype(dtype.numpy()), names=names, base=str(parameter[0].name))
    return None


def _parameter(node: ir.Node | None, op: str, beside: ir.Value, depth: int) -> tuple[ir.Value, np.ndarray] | None:
    """Return the constant that meets ``beside`` in the node, and as an array of ``depth`` axes."""
    if node is None or not is_op(node, op):
        return None
    other = node.inputs[1] if node.inputs[0] is beside else node.inputs[0]
    array = float_constant(other)
    if other is None or array is None or array.ndim < depth or any(size != 1 for size in array.shape[:-depth]):
        return None
    if array.size == 1 or 1 in array.shape[-depth:]:
        return None  # it may be broadcast, and the operator wants the whole shape
    return other, array.reshape(array.shape[-depth:])


def _normalized(node: ir.Node, shapes: Shapes) -> _Normalized | None:
    """Recognise the last step of a normalization."""
    split = _deviation_and_spread(node)
    if split is None:
        return None
    deviation, spread = split
    centred, variance = _centred(deviation, shapes), _variance(spread, shapes)
    if centred is None or variance is None:
        return None
    mean, epsilon = variance
    square = _squared(mean.inputs[0], shapes)
    if square is None or _centred(square, shapes) != centred or _depth(mean, shapes) != centred[1]:
        return None
    return _Normalized(*centred, epsilon) if _all_private(deviation, square, node) else None


def _variance(spread: ir.Value, shapes: Shapes) -> tuple[ir.Node, float] | None:
    """Take a value apart as ``sqrt(mean + epsilon)``; return the node that takes the mean, and epsilon."""
    root = spread.producer()
    if root is None or not is_op(root, "Sqrt") or root.inputs[0] is None:
        return None
    shifted = plus(root.inputs[0], shapes)
    if shifted is None or not shifted[1] > 0:
        return None
    values = (spread, root.inputs[0], shifted[0])
    mean = shifted[0].producer()
    private = all(sole_consumer(value) is not None for value in values)
    return (mean, shifted[1]) if mean is not None and private else None


def _deviation_and_spread(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Take a node apart as ``deviation / spread``."""
    if not is_op(node, "Div", "Mul") or node.inputs[0] is None or node.inputs[1] is None:
        return None
    if node.op_type == "Div":
        return node.inputs[0], node.inputs[1]
    for deviation, inverse in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        before = inverse.producer()
        if before is not None and is_op(before, "Reciprocal") and sole_consumer(inverse) is node and before.inputs[0]:
            return deviation, before.inputs[0]
    return None


def _centred(value: ir.Value, shapes: Shapes) -> tuple[ir.Value, int] | None:
    """Return ``x`` and the number of axes if the value is ``x - mean(x)``."""
    node = value.producer()
    if node is None or not is_op(node, "Sub") or node.inputs[0] is None or node.inputs[1] is None:
        return None
    mean = node.inputs[1].producer()
    if mean is None or mean.inputs[0] is not node.inputs[0] or node.inputs[1].is_graph_output():
        return None
    depth = _depth(mean, shapes)
    return None if depth is None else (node.inputs[0], depth)


def _squared(value: ir.Value | None, shapes: Shapes) -> ir.Value | None:
    """Return ``d`` if the value is its square."""
    node = None if value is None else value.producer()
    if node is None or value is None or sole_consumer(value) is None:
        return None
    if is_op(node, "Mul") and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return node.inputs[0] if is_op(node, "Pow") and close(scalar(node.inputs[1], node.inputs[0], shapes), 2) else None


def _depth(node: ir.Node, shapes: Shapes) -> int | None:
    """Return how many of the last axes a ReduceMean takes, ``None`` where it takes others or drops them."""
    if not is_op(node, "ReduceMean") or not int_attribute(node, "keepdims", 1):
        return None
    axes = ints_attribute(node, "axes")
    if axes is None and len(node.inputs) > 1:
        array = constant(node.inputs[1])
        axes = None if array is None else tuple(array.reshape(-1).tolist())
    rank = shapes.rank(node.inputs[0])
    if not axes or (rank is None and max(axes) >= 0):
        return None
    counted = sorted(axis if axis < 0 else axis - (rank or 0) for axis in axes)
    return len(axes) if counted == list(range(-len(axes), 0)) else None


def _all_private(deviation: ir.Value, square: ir.Value, node: ir.Node) -> bool:
    """Say whether deviation and mean serve nothing but this normalization."""
    users = {user for value in {deviation, square} for user in value.consumers()}
    subtractions = {value.producer() for value in (deviation, square)}
    means = {sub.inputs[1] for sub in subtractions if sub is not None}
    outputs = {deviation, square} | {value for value in means if value is not None}
    if any(value.is_graph_output() for value in outputs):
        return False
    return (
        len(users) == 2
        and node in users
        and all(set(mean.consumers()) <= subtractions for mean in means if mean is not None)
    )
