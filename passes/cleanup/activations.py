"""Write activation functions as the operators that have fast kernels, in float and in integers.

::

    r = Max(x, 0)                                PRelu(x, slope)   every slope 0.25
    y = Min(r, 6)      ==>   Clip(x, 0, 6)                 ==>     LeakyRelu<alpha=0.25>(x)

A Clip behind a convolution is absorbed by its quantizer and LeakyRelu has an integer kernel; Min, Max and PRelu would
stay float between two integer operators.

Declines: bounds that are no scalar constants, slopes that differ, types other than float32.

Correct because ``clip(x, a, b) = min(max(x, a), b)`` where ``a <= b``, and PRelu with one slope is LeakyRelu.

Source: the definitions of the operators in the ONNX specification.
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.facts import opset
from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import Names, float_constant, graphs, is_op, sole_consumer
from ._match import replace, scalar
from ._shapes import Shapes, infer

__all__ = ["SimplifyActivations"]

_BOUNDS_AS_INPUTS = 11  # opset from which Clip takes them so
_LARGEST = float(np.finfo(np.float32).max)


class SimplifyActivations(Pass[NoConfig]):
    """Write Min and Max as Clip, PRelu with one slope as LeakyRelu."""

    name: ClassVar[str] = "simplify-activations"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        found = [node for graph in graphs(model) for node in graph if is_op(node, "Min", "Max", "PRelu")]
        if not found:
            return PassStats(modified=False)
        writer = _Writer(model)
        counts = {"Clip": 0, "LeakyRelu": 0}
        for node in reversed(found):  # the outermost first: it takes in the one before it
            if node.graph is None:
                continue
            made = writer.leaky_relu(node) if node.op_type == "PRelu" else writer.clip(node)
            if made is None:
                ctx.skip(node, "the slopes differ" if node.op_type == "PRelu" else "no scalar bound of float32")
            else:
                counts[made] += 1
        return PassStats(any(counts.values()), {f"{name} written": count for name, count in counts.items() if count})


class _Writer:
    """Puts the plain operators in their places."""

    def __init__(self, model: ir.Model) -> None:
        self._names = Names(model)
        self._shapes: Shapes = infer(model)
        self._opset = opset(model)

    def leaky_relu(self, node: ir.Node) -> str | None:
        x, slopes = node.inputs[0], float_constant(node.inputs[1])
        if x is None or slopes is None or slopes.size == 0 or self._shapes.dtype(x) != ir.DataType.FLOAT:
            return None
        if np.ptp(slopes) != 0:
            return None
        slope = ir.AttrFloat32("alpha", float(slopes.reshape(-1)[0]))
        return "LeakyRelu" if replace(node, ir.Node("", "LeakyRelu", [x], [slope]), self._names) else None

    def clip(self, node: ir.Node) -> str | None:
        """Replace a Min or Max, together with the other one (or a Relu) before it."""
        found = self._bounded(node)
        if found is None:
            return None
        x, low, high = found
        before = x.producer()
        if before is not None and before.graph is node.graph and sole_consumer(x) is node:
            inner = self._bounded(before)
            if inner is not None and max(low, inner[1]) <= min(high, inner[2]):
                x, low, high = inner[0], max(low, inner[1]), min(high, inner[2])
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        if self._opset < _BOUNDS_AS_INPUTS:
            bounds = [ir.AttrFloat32("min", max(low, -_LARGEST)), ir.AttrFloat32("max", min(high, _LARGEST))]
            new = ir.Node("", "Clip", [x], bounds)
        else:
            inputs = [self._constant(graph, number) for number in (low, high)]
            new = ir.Node("", "Clip", [x, *(inputs if inputs[1] is not None else inputs[:1])])
        return "Clip" if replace(node, new, self._names) else None

    def _bounded(self, node: ir.Node) -> tuple[ir.Value, float, float] | None:
        """Take a node apart as a value with bounds."""
        if is_op(node, "Relu") and node.inputs[0] is not None:
            return node.inputs[0], 0.0, np.inf
        if not is_op(node, "Min", "Max") or len(node.inputs) != 2:
            return None
        for x, other in (node.inputs, tuple(reversed(node.inputs))):
            number = scalar(other, x, self._shapes)
            if x is None or number is None or np.isnan(number) or self._shapes.dtype(x) != ir.DataType.FLOAT:
                continue
            return (x, number, np.inf) if node.op_type == "Max" else (x, -np.inf, number)
        return None

    def _constant(self, graph: ir.Graph, number: float) -> ir.Value | None:
        if np.isinf(number):
            return None
        name = self._names.fresh("bound")
        value = ir.val(name, const_value=ir.tensor(np.float32(number), name=name))
        graph.register_initializer(value)
        return value
