"""Write HardSwish with the fewest operators that run fast.

::

    a = Add(x, 3)
    b = Clip(a, 0, 6)                 h = HardSigmoid<alpha=1/6, beta=0.5>(x)
    y = Div(Mul(x, b), 6)      ==>    y = Mul(x, h)

The factors may come in any order and 1/6 may be a multiplication. The result is not the operator HardSwish of opset 14:
onnxruntime computes that one as these two, and HardSigmoid is in every opset.

Declines: an intermediate value that is used elsewhere too, other constants.

Correct because ``clip(x + 3, 0, 6) / 6 = clip(x / 6 + 1 / 2, 0, 1)``, which is HardSigmoid with these parameters.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
"""

from typing import ClassVar

import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import Names, graphs, is_op, sole_consumer
from ._match import clipped, close, plus, product, replace
from ._shapes import Shapes, infer

__all__ = ["FuseHardSwish"]


class FuseHardSwish(Pass[NoConfig]):
    """Write decomposed HardSwish as ``x * HardSigmoid(x)``."""

    name: ClassVar[str] = "fuse-hard-swish"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if not any(is_op(node, "Clip") for graph in graphs(model) for node in graph):
            return PassStats(modified=False)
        names, shapes, count = Names(model), infer(model), 0
        for graph in graphs(model):
            for node in reversed(tuple(graph)):  # the outermost product first
                if node.graph is not graph or not is_op(node, "Mul", "Div"):
                    continue
                source = _hard_swish(node, shapes)
                if source is None:
                    continue
                count += _rewrite(node, source, names)
        return PassStats(count > 0, {"HardSwish simplified": count} if count else {})


def _hard_swish(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Return ``x`` if the node computes ``x * clip(x + 3, 0, 6) / 6``."""
    found = product(node.outputs[0], shapes)
    if len(found.factors) != 2 or not close(found.scale, 1 / 6):
        return None
    for x, gate in (found.factors, tuple(reversed(found.factors))):
        clip = clipped(gate, shapes)
        if clip is None or sole_consumer(gate) is None or not (close(clip[1], 0) and close(clip[2], 6)):
            continue
        shifted = plus(clip[0], shapes)
        if shifted is not None and shifted[0] is x and close(shifted[1], 3) and sole_consumer(clip[0]) is not None:
            return x
    return None


def _rewrite(node: ir.Node, x: ir.Value, names: Names) -> bool:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
    gate = ir.Node("", "HardSigmoid", [x], attributes, name=names.fresh(f"{node.name}_gate"))
    gate.outputs[0].name, gate.outputs[0].type = names.fresh(f"{node.outputs[0].name}_gate"), x.type
    graph.insert_before(node, gate)
    return replace(node, ir.Node("", "Mul", [x, gate.outputs[0]]), names)
