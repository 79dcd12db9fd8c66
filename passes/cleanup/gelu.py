"""Fuse the error-function form of Gelu into one operator.

::

    a = Erf(Div(x, sqrt(2)))
    b = Mul(x, Add(a, 1))
    y = Mul(b, 0.5)            ==>    y = Gelu(x)

The factors may come in any order. onnxruntime fuses the common orders itself when it loads a model; this pass takes the
others too, and shows later passes one operator where there were five.

Declines: models of an opset below 20, which has no Gelu; an intermediate value that is used elsewhere too; other
constants. The tanh form is another function and is left alone.

Correct by definition: ``gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))``.

Source: Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
"""

import math
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import Names, graphs, is_op, opset_of, sole_consumer
from ._match import close, plus, product, replace
from ._shapes import Shapes, infer

__all__ = ["FuseGelu"]


class FuseGelu(Pass[NoConfig]):
    """Fuse the error-function form of Gelu."""

    name: ClassVar[str] = "fuse-gelu"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if not any(is_op(node, "Erf") for graph in graphs(model) for node in graph):
            return PassStats(modified=False)
        names, shapes, count = Names(model), infer(model), 0
        for graph in graphs(model):
            for node in reversed(tuple(graph)):  # the outermost product first
                if node.graph is not graph or not is_op(node, "Mul", "Div"):
                    continue
                x = _gelu(node, shapes)
                if x is None:
                    continue
                if opset_of(model) < 20:
                    ctx.skip(node, "Gelu needs opset 20")
                else:
                    count += replace(node, ir.Node("", "Gelu", [x]), names)
        return PassStats(count > 0, {"Gelu fused": count} if count else {})


def _gelu(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Return ``x`` if the node computes ``x * (1 + erf(x / sqrt(2))) / 2``."""
    found = product(node.outputs[0], shapes)
    if len(found.factors) != 2 or not close(found.scale, 0.5):
        return None
    for x, gate in (found.factors, tuple(reversed(found.factors))):
        shifted = plus(gate, shapes)
        if shifted is None or not close(shifted[1], 1) or sole_consumer(gate) is None:
            continue
        erf = shifted[0].producer()
        if erf is None or not is_op(erf, "Erf") or sole_consumer(shifted[0]) is None or erf.inputs[0] is None:
            continue
        inner = product(erf.inputs[0], shapes)
        if inner.factors == (x,) and close(inner.scale, math.sqrt(0.5)) and sole_consumer(erf.inputs[0]) is not None:
            return x
    return None
