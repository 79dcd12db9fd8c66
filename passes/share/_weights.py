"""The weights of a model that may share values: float matrices that nodes read, wherever they are kept."""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant_node_tensor, graphs, is_op

__all__ = ["Weight", "drop_unread", "weights_of"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(slots=True)
class Weight:
    """A constant that nodes read.

    Attributes:
        value: Of the graph.
        tensor: What it holds.
        readers: The nodes that read it, in graph order.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    readers: list[ir.Node] = field(default_factory=list)

    @property
    def array(self) -> np.ndarray:
        """The numbers."""
        return self.tensor.numpy()

    @property
    def name(self) -> str:
        """Of the first node that reads it."""
        return str(self.readers[0].name)

    @property
    def why_not(self) -> str | None:
        """Why it must stay as it is; None where it need not."""
        if self.value.is_graph_output():
            return "the weight is an output of the model"
        return None if np.isfinite(self.array).all() else "the weight holds NaN or infinity"

    @property
    def channels_last(self) -> bool | None:
        """Whether output channels are the last axis of the weight, or the first; None: neither, or both."""
        found = {_channels_last(node) for node in self.readers}
        return found.pop() if len(found) == 1 else None


def weights_of(model: ir.Model) -> list[Weight]:
    """Return the constant float matrices that nodes read, in graph order, subgraphs included; no codebooks."""
    found: dict[ir.Value, Weight] = {}
    for node in model.graph.all_nodes():
        if _looks_up_a_codebook(node) or _widens_a_codebook(node):
            continue
        for value in node.inputs:
            tensor = None if value is None else _tensor(value)
            if value is None or tensor is None or tensor.dtype not in _FLOATS or len(tensor.shape) < 2:
                continue
            weight = found.setdefault(value, Weight(value, tensor))
            if node not in weight.readers:
                weight.readers.append(node)
    return list(found.values())


def drop_unread(model: ir.Model) -> None:
    """Remove the constants that nothing reads any more, in every graph."""
    for graph in graphs(model):
        for node in list(graph):
            if is_op(node, "Constant") and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                graph.remove(node, safe=True)
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    if value.is_graph_input():
        return None  # a default that the caller may replace
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    return constant_node_tensor(node) if node is not None and is_op(node, "Constant") else None


def _looks_up_a_codebook(node: ir.Node) -> bool:
    """Whether a node is a Gather by constant indices: what this pass writes."""
    index = node.inputs[1] if is_op(node, "Gather") else None
    maker = None if index is None else index.producer()
    if maker is not None and is_op(maker, "Add") and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    source = maker.inputs[0] if maker is not None and is_op(maker, "Cast") else None
    return source is not None and _tensor(source) is not None


def _widens_a_codebook(node: ir.Node) -> bool:
    """Whether a node is a Cast of such a Gather's table."""
    uses = node.outputs[0].uses() if is_op(node, "Cast") else ()
    return bool(uses) and all(use.idx == 0 and _looks_up_a_codebook(use.node) for use in uses)


def _channels_last(node: ir.Node) -> bool | None:
    if is_op(node, "MatMul"):
        return True
    if is_op(node, "Gemm"):
        return not node.attributes.get_int("transB", 0)
    return False if is_op(node, "Conv", "Gather") else None
