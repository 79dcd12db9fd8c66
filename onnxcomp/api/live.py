r"""How much memory the tensors in between take: what is alive at the same time while the nodes run in their order.

    x ---- Conv ---- a ---- Relu ---- b ---- Add ---- y        while Relu runs: x, a and b are alive
     \_________________________________/                        (x is read again by Add)

What is made of weights alone (their dequantized values, for one) counts as they do, not as an activation: onnxruntime
folds it, or reads the integers. A tensor lives from the node that makes it to the last one that reads it, each counted
for itself. onnxruntime may do with less, as some operators write over what they read, and takes more for what its
kernels need and for its arena.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxcomp.api.shapes import Costs
from onnxcomp.report.contents import ActivationMemory

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["activation_memory"]


def activation_memory(costs: Costs) -> ActivationMemory:
    """Return the largest sum of the bytes of tensors that are alive at once, and where; bodies count as one node.

    Args:
        costs: The model with the shapes of one run.
    """
    nodes = _computing(costs.model)
    places = dict(_places(nodes))
    births: dict[int, int] = {}
    deaths: dict[int, int] = {}
    unknown = 0
    for value, born in _values(costs.model, nodes):
        if (size := _bytes(value)) is None:
            unknown += 1
            continue
        reads = [places[use.node] for use in value.uses() if use.node in places]
        last = len(nodes) - 1 if value.is_graph_output() else max(reads, default=born)
        births[born] = births.get(born, 0) + size
        deaths[last] = deaths.get(last, 0) + size
    alive, peak, at = births.get(-1, 0), 0, ""
    for index, node in enumerate(nodes):
        alive += births.get(index, 0)
        if alive > peak:
            peak, at = alive, f"{node.op_type} {node.name or ''}".rstrip()
        alive -= deaths.get(index, 0)
    return ActivationMemory(peak, at, measured=costs.ran, unknown=unknown)


def _computing(model: "ir.Model") -> "list[ir.Node]":
    """Return the nodes of the main graph that depend on an input, or may give something else each time."""
    moving = {value for value in model.graph.inputs if value.name not in model.graph.initializers}
    found = []
    for node in model.graph:
        bodies = any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values())
        source = not node.inputs and node.op_type != "Constant"
        if bodies or source or any(value in moving for value in node.inputs):
            moving.update(node.outputs)
            found.append(node)
    return found


def _values(model: "ir.Model", nodes: "list[ir.Node]") -> "Iterator[tuple[ir.Value, int]]":
    """Yield inputs and results with the place of the node that makes them; -1: they are there from the start."""
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            yield value, -1
    for index, node in enumerate(nodes):
        yield from ((value, index) for value in node.outputs if value.name)


def _places(nodes: "list[ir.Node]") -> "Iterator[tuple[ir.Node, int]]":
    """Yield the place of each node; nodes of a body are where the node that holds it is."""
    for index, node in enumerate(nodes):
        yield node, index
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                yield from ((inner, index) for inner in attribute.as_graph().all_nodes())


def _bytes(value: "ir.Value") -> int | None:
    shape = value.shape
    if shape is None or value.dtype is None or not all(isinstance(size, int) for size in shape):
        return None
    try:
        return math.ceil(math.prod(shape.numpy()) * value.dtype.itemsize)
    except TypeError:  # texts have no size of their own
        return None
