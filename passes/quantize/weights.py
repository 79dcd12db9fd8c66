"""The float weights of a model and the nodes that read them, wherever they are kept: initializers, Constant nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.editor import drop_unused_initializers

__all__ = ["Weight", "drop_unread", "replace_weight", "weights_of"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(slots=True)
class Weight:
    """A constant that nodes read as their weight.

    Attributes:
        value: Of the graph.
        tensor: What it holds.
        readers: The nodes, in graph order; others may read it too.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    readers: list[ir.Node] = field(default_factory=list)

    @property
    def array(self) -> np.ndarray:
        """The numbers."""
        return self.tensor.numpy()

    @property
    def why_not(self) -> str | None:
        """Why it must stay as it is, whatever the readers are; None where it need not."""
        if self.value.is_graph_output():
            return "the weight is an output of the model"
        if self.tensor.dtype not in _FLOATS:
            return "the weight is neither float32 nor float16"
        return None if np.isfinite(self.array).all() else "the weight holds NaN or infinity"


def weights_of(model: ir.Model, inputs: Mapping[str, tuple[int, ...]], ctx: PassContext) -> list[Weight]:
    """Return the constants of floating-point type that nodes read as weights, in graph order, subgraphs included.

    Args:
        model: Not changed.
        inputs: Which inputs of an operator hold weights, by type.
        ctx: Gets the nodes whose weight is computed, or may be given by the caller.
    """
    found: dict[ir.Value, Weight] = {}
    for node in model.graph.all_nodes():
        for index in inputs.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ():
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None:
                continue
            tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
            if tensor is None:
                if node.op_type != "Gather":  # which mostly looks up shapes
                    ctx.skip(node, "the weight is not constant")
            elif tensor.dtype.is_floating_point():
                weight = found.setdefault(value, Weight(value, tensor))
                if node not in weight.readers:
                    weight.readers.append(node)
    return list(found.values())


def replace_weight(model: ir.Model, value: ir.Value, nodes: list[ir.Node]) -> None:
    """Let all readers of a constant read the result of the last of these nodes, which come first in the main graph."""
    result = nodes[-1].outputs[0]
    result.type, result.shape = value.type, value.shape
    value.replace_all_uses_with(result)
    model.graph.insert_before(next(iter(model.graph)), nodes)


def drop_unread(model: ir.Model) -> None:
    """Remove the constants that nothing reads any more, in every graph."""
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Constant" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                graph.remove(node, safe=True)
        drop_unused_initializers(graph)
