"""Write HardSwish in operators that have integer kernels, for the static quantization that follows.

::

    h = HardSigmoid<alpha=1/6, beta=0.5>(x)      a = Add(x, 3)
    y = Mul(x, h)                          ==>   b = Clip(a, 0, 6)
                                                 h = Mul(b, 1/6)
                                                 y = Mul(x, h)

In integers the Clip is the saturation of the sum, the factor 1/6 is a change of scale, and two integer operators are
left. In float this form is slower: it is for models that are quantized next. The operator HardSwish is treated alike.

Declines: other slopes, types other than float32, opsets below 11 (whose Clip takes attributes).

Correct because ``clip(x / 6 + 1 / 2, 0, 1) = clip(x + 3, 0, 6) / 6``.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.facts import opset
from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats, Skip

from ._graph import Names, is_op, sole_consumer
from ._match import close
from ._shapes import infer

__all__ = ["ExpandHardSwish"]

_MINIMUM_OPSET = 11  # Clip takes its bounds as inputs


class ExpandHardSwish(Pass[NoConfig]):
    """Write HardSwish as Add, Clip, Mul and Mul."""

    name: ClassVar[str] = "expand-hard-swish"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the main graph in place."""
        gates = [found for node in model.graph if (found := _gate(node)) is not None]
        if not gates:
            return PassStats(modified=False)
        if opset(model) < _MINIMUM_OPSET:
            return PassStats(modified=False, skipped=(Skip("", "HardSwish", f"needs opset {_MINIMUM_OPSET}"),))
        shapes, writer = infer(model), _Writer(model)
        count = 0
        for node, x in gates:
            if shapes.dtype(x) != ir.DataType.FLOAT:
                ctx.skip(node, "not float32")
                continue
            writer.expand(node, x)
            count += 1
        return PassStats(count > 0, {"HardSwish expanded": count} if count else {})


def _gate(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Return the node that makes the gate (or the whole of it, for HardSwish), and its input."""
    x = node.inputs[0] if node.inputs else None
    if x is None:
        return None
    if is_op(node, "HardSwish"):
        return node, x
    if not is_op(node, "HardSigmoid"):
        return None
    slope, offset = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    product = sole_consumer(node.outputs[0])
    multiplied = product is not None and is_op(product, "Mul") and any(value is x for value in product.inputs)
    return (node, x) if multiplied and close(slope, 1 / 6) and close(offset, 0.5) else None


class _Writer:
    """Writes the expanded form; its four constants are shared."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._names = Names(model)
        self._constants: dict[float, ir.Value] = {}

    def expand(self, node: ir.Node, x: ir.Value) -> None:
        shifted = self._node("Add", x, self._constant(3.0), base=f"{node.name}_shifted")
        bounds = (self._constant(0.0), self._constant(6.0))
        clipped = self._node("Clip", shifted.outputs[0], *bounds, base=f"{node.name}_clipped")
        scaled = self._node("Mul", clipped.outputs[0], self._constant(1 / 6), base=f"{node.name}_scaled")
        new = [shifted, clipped, scaled]
        if is_op(node, "HardSwish"):
            new.append(self._node("Mul", x, scaled.outputs[0], base=f"{node.name}_product"))
        old, result = node.outputs[0], new[-1].outputs[0]
        for value in (made.outputs[0] for made in new):
            value.type, value.shape = x.type, x.shape
        result.type, result.shape = old.type or x.type, old.shape or x.shape
        self._graph.insert_before(node, new)
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        old.name, result.name = None, old.name

    def _node(self, op_type: str, *inputs: ir.Value, base: str) -> ir.Node:
        node = ir.Node("", op_type, inputs, name=self._names.fresh(base))
        node.outputs[0].name = self._names.fresh(f"{base}_output")
        return node

    def _constant(self, number: float) -> ir.Value:
        if number not in self._constants:
            name = self._names.fresh("hard_swish")
            value = ir.val(name, const_value=ir.tensor(np.float32(number), name=name))
            self._graph.register_initializer(value)
            self._constants[number] = value
        return self._constants[number]
