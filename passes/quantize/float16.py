"""Keep weights in float16, and compute in float32: half the size on disk. Needs no calibration data.

Before, after::

    Conv(x, W)    Conv(x, Cast(W16))

A CPU has no float16 kernels worth the name: a model that computes in float16 is converted back and forth in every run.
Here onnxruntime does the Casts once, when it loads the model: speed and memory stay what they were. No activation can
overflow, and no operator has to be known. Declines: weights that are no float32, beyond float16's range, or so small
that float16 would lose more than rounding (below 6e-8 it knows but 0); weights of quantized operators, outputs of the
model, what a caller may override. Source: IEEE 754 binary16.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import is_quantized_op, name_nodes
from onnxcomp.metrics import sqnr
from onnxcomp.passbase import Pass, PassContext, PassStats, Unit
from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.weights import Weight, drop_unread, replace_weight

__all__ = ["StoreFloat16", "StoreFloat16Config"]

_LEAST_SQNR = 60.0  # dB; rounding to 11 bits leaves 73, subnormal numbers less
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class StoreFloat16Config:
    """Settings of weights in float16.

    Attributes:
        min_elements: Smaller weights stay float32.
        exclude: Names of nodes whose weights stay float32.
    """

    min_elements: int = 256
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.min_elements < 0:
            raise RecipeError(f"min_elements must not be negative, got {self.min_elements}")


class StoreFloat16(Pass[StoreFloat16Config]):
    """Keep weights in float16."""

    name: ClassVar[str] = "store-float16"
    Config = StoreFloat16Config
    exact: ClassVar[bool] = False

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the weights, by the nodes that read them."""
        found = (tuple(weight.readers) for weight in self._weights(model.clone(), ctx))
        return [
            Unit(str(readers[0].name), readers[0].op_type, tuple(str(node.name) for node in readers))
            for readers in dict.fromkeys(found)
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Store every weight that float16 can hold."""
        editor = GraphEditor(model.graph)
        weights = self._weights(model, ctx)
        for weight in weights:
            half = editor.constant(weight.array.astype(np.float16))
            replace_weight(model, weight.value, [editor.node("Cast", [half], to=int(ir.DataType.FLOAT))])
        drop_unread(model)
        return PassStats(modified=bool(weights), counters={"float16 weights": len(weights)} if weights else {})

    def _weights(self, model: ir.Model, ctx: PassContext) -> list[Weight]:
        """Return the weights that are to be stored; the others are recorded in ``ctx``, with the reason."""
        for graph in model.graphs():
            name_nodes(graph)
        found = []
        for weight in _constants(model):
            if reason := self._why_not(weight):
                for node in weight.readers:
                    ctx.skip(node, reason)
            elif weight.tensor.size >= max(self.config.min_elements, 1):
                found.append(weight)
        return found

    def _why_not(self, weight: Weight) -> str | None:
        if any(node.name in self.config.exclude for node in weight.readers):
            return "excluded"
        if weight.tensor.size < self.config.min_elements:
            return None  # biases and scalars: of no interest
        if reason := weight.why_not:
            return reason
        if any(is_quantized_op(node.op_type) for node in weight.readers):
            return "the operator is quantized already"
        if np.abs(weight.array).max(initial=0.0) > _LARGEST:
            return "the weight exceeds float16"
        half = weight.array.astype(np.float16).astype(np.float32)
        return "the weight is too small for float16" if sqnr(weight.array, half) < _LEAST_SQNR else None


def _constants(model: ir.Model) -> list[Weight]:
    """Return the float32 constants that nodes read, in graph order, subgraphs included."""
    found: dict[ir.Value, Weight] = {}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.is_graph_input():
                continue
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is None or tensor.dtype != ir.DataType.FLOAT:
                continue
            weight = found.setdefault(value, Weight(value, tensor))
            if node not in weight.readers:
                weight.readers.append(node)
    return list(found.values())
