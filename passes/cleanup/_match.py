"""Recognise arithmetic in whatever order an exporter wrote it, and put one node in its place."""

import math
from dataclasses import dataclass

import onnx_ir as ir

from ._graph import Names, bypass, float_constant, is_op, remove_if_unused, sole_consumer
from ._shapes import Shapes

__all__ = ["Product", "clipped", "close", "plus", "product", "replace", "scalar"]

_TOLERANCE = 1e-3  # exporters write 1.4142 for the square root of 2; float16 keeps three digits


@dataclass(frozen=True, slots=True)
class Product:
    """A value as a product: ``scale`` times the ``factors``, which are no scalar constants."""

    factors: tuple[ir.Value, ...]
    scale: float


def close(value: float | None, wanted: float) -> bool:
    """Say whether a constant is the wanted one, up to what exporters round."""
    return value is not None and math.isclose(value, wanted, rel_tol=_TOLERANCE, abs_tol=0.0 if wanted else 1e-12)


def scalar(value: ir.Value | None, beside: ir.Value | None, shapes: Shapes) -> float | None:
    """Return a floating-point constant of one element that can't change the shape of what it meets."""
    array = float_constant(value)
    if array is None or array.size != 1:
        return None
    rank = shapes.rank(beside)
    return float(array.reshape(-1)[0]) if array.ndim == 0 or (rank is not None and array.ndim <= rank) else None


def plus(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Value, float] | None:
    """Take ``value`` apart as a sum with a scalar constant."""
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "Add"):
        return None
    for source, other in (node.inputs, tuple(reversed(node.inputs))):
        constant = scalar(other, source, shapes)
        if source is not None and constant is not None:
            return source, constant
    return None


def product(value: ir.Value, shapes: Shapes) -> Product:
    """Take ``value`` apart as far as its parts are used nowhere else."""
    node = value.producer()
    if node is None or not is_op(node, "Mul", "Div"):
        return Product((value,), 1.0)
    left, right = node.inputs
    if left is None or right is None:
        return Product((value,), 1.0)
    divisor = scalar(right, left, shapes)
    if node.op_type == "Div":
        if not divisor:
            return Product((value,), 1.0)
        inner = _inside(left, node, shapes)
        return Product(inner.factors, inner.scale / divisor)
    for source, factor in ((left, divisor), (right, scalar(left, right, shapes))):
        if factor is not None:
            inner = _inside(source, node, shapes)
            return Product(inner.factors, inner.scale * factor)
    first, second = _inside(left, node, shapes), _inside(right, node, shapes)
    return Product(first.factors + second.factors, first.scale * second.scale)


def clipped(value: ir.Value, shapes: Shapes) -> tuple[ir.Value, float | None, float | None] | None:
    """Take ``value`` apart as a Clip; its bounds are attributes up to opset 10."""
    node = value.producer()
    if node is None or not is_op(node, "Clip") or node.inputs[0] is None:
        return None
    bounds = [scalar(bound, node.inputs[0], shapes) for bound in node.inputs[1:]]
    if not bounds:
        bounds = [node.attributes[name].as_float() if name in node.attributes else None for name in ("min", "max")]
    low, high = (*bounds, None, None)[:2]
    return node.inputs[0], low, high


def replace(root: ir.Node, new: ir.Node, names: Names) -> bool:
    """Put one node in the place of the expression that ends in ``root``; what it leaves unused goes too."""
    graph = root.graph
    if not isinstance(graph, ir.Graph):
        return False
    new.name, new.outputs[0].name = root.name, names.fresh(f"{root.outputs[0].name}_fused")
    new.outputs[0].shape, new.outputs[0].type = root.outputs[0].shape, root.outputs[0].type
    inputs = list(root.inputs)
    graph.insert_before(root, new)
    if not bypass(root, new.outputs[0]):
        graph.remove(new, safe=True)
        return False
    for value in inputs:
        _sweep(value)
    return True


def _inside(value: ir.Value, consumer: ir.Node, shapes: Shapes) -> Product:
    """Take a part apart, unless it is used elsewhere too."""
    private = sole_consumer(value) is consumer
    return product(value, shapes) if private else Product((value,), 1.0)


def _sweep(value: ir.Value | None) -> None:
    """Remove the nodes that computed a value for nobody any more."""
    remove_if_unused(value)
    node = None if value is None else value.producer()
    if node is None or node.graph is None or any(out.uses() or out.is_graph_output() for out in node.outputs):
        return
    inputs = list(node.inputs)
    node.graph.remove(node, safe=True)
    for source in inputs:
        _sweep(source)
