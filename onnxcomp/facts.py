"""What a model is, read from its graph: inputs and their bounds, parameters, outputs, whether it is quantized."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import InputSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "all_nodes",
    "feature_outputs",
    "foreign_domains",
    "initializers",
    "input_bounds",
    "input_specs",
    "is_quantized",
    "is_quantized_op",
    "name_nodes",
    "opset",
    "parameter_count",
    "unfinite_weights",
    "weights",
    "weights_listed_as_inputs",
]

_KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training",
                  "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}  # fmt: skip
_QUANTIZED_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
                            "ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})  # fmt: skip
_MOVES = frozenset({"Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
                    "Unsqueeze"})  # fmt: skip
_LAYERS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_FEATURE_OPS = frozenset({"Div", "DynamicQuantizeLSTM", "GRU", "LSTM", "LayerNormalization", "LpNormalization", "Mul",
                          "RMSNormalization", "RNN", "ReduceMean", "SimplifiedLayerNormalization",
                          "SkipLayerNormalization"})  # fmt: skip
# Operators whose output holds the same integers as their first input
_INDEX_PRESERVING = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
                               "Unsqueeze"})  # fmt: skip


def all_nodes(model: "ir.Model") -> Iterator["ir.Node"]:
    """Yield every node: of the graph, its subgraphs and the model's own functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def initializers(model: "ir.Model") -> Iterator["ir.Value"]:
    """Yield the initializers of the graph and of every subgraph."""
    for graph in model.graphs():
        yield from graph.initializers.values()


def opset(model: "ir.Model") -> int:
    """Return the version of the default operator set (0 where the model imports none)."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def weights(model: "ir.Model") -> Iterator["ir.TensorProtocol"]:
    """Yield the tensor of every initializer, and of each Constant node that holds more than 64 elements."""
    for value in initializers(model):
        if value.const_value is not None:
            yield value.const_value
    for node in all_nodes(model):
        if node.op_type == "Constant" and (held := node.attributes.get("value")) is not None:
            tensor = held.as_tensor()
            if tensor.size > 64:
                yield tensor


def foreign_domains(model: "ir.Model") -> list[str]:
    """Name the domains of operators that neither ONNX and onnxruntime nor the model's own functions define."""
    own = {function.domain for function in model.functions.values()}
    return sorted({node.domain for node in all_nodes(model)} - own - _KNOWN_DOMAINS)


def parameter_count(model: "ir.Model") -> int:
    """Count the elements of all weights."""
    return sum(tensor.size for tensor in weights(model))


def unfinite_weights(model: "ir.Model") -> list[str]:
    """Name the float initializers that hold NaN, or infinity where it is no bound of a Clip, no mask and the like."""
    found = []
    for value in initializers(model):
        if value.const_value is None or not value.const_value.dtype.is_floating_point():
            continue
        array = value.const_value.numpy()
        multiplied = any(node.op_type in _LAYERS or node.op_type == "Mul" for node, _ in value.uses())
        if np.isnan(array).any() or (multiplied and np.isinf(array).any()):
            found.append(str(value.name))
    return found


def weights_listed_as_inputs(model: "ir.Model") -> "list[ir.Value]":
    """Return the initializers where all are inputs as well, weights of layers among them: as once was the rule."""
    listed = list(model.graph.initializers.values())
    if not all(value.is_graph_input() for value in listed):
        return []  # those that are inputs are so on purpose
    weighs = any(node.op_type in _LAYERS and place > 0 for value in listed for node, place in value.uses())
    return listed if weighs else []


def is_quantized(model: "ir.Model") -> bool:
    """Say whether the model holds quantized operators already."""
    return any(is_quantized_op(node.op_type) for node in all_nodes(model))


def is_quantized_op(op_type: str) -> bool:
    """Say whether an operator of that type computes with integers, or turns floats to them or back."""
    return op_type in _QUANTIZED_OPS or op_type.startswith("QLinear")


def name_nodes(graph: "ir.Graph") -> None:
    """Give every node a name of its own, bodies included: plans, recipes and reports refer to nodes by name."""
    seen: set[str] = set()
    inner = (node for node in graph.all_nodes() if node.graph is not graph)
    for index, node in enumerate((*graph, *inner)):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}.{index}"
        seen.add(node.name)


def input_specs(model: "ir.Model") -> tuple[InputSpec, ...]:
    """Return name, dtype and shape of every input, in order; one with an initializer is optional."""
    return tuple(
        InputSpec(
            name=str(value.name),
            dtype=_numpy_dtype(value),
            shape=None if value.shape is None else tuple(_dimension(d) for d in value.shape),
            optional=value.name in model.graph.initializers,
            names=tuple(getattr(d, "value", None) for d in value.shape or ()),
        )
        for value in model.graph.inputs
    )


def input_bounds(model: "ir.Model") -> dict[str, int]:
    """Return, for integer inputs that index constant tables, the size of the smallest table: values must be below."""
    bounds: dict[str, int] = {}
    for graph_input in model.graph.inputs:
        reached, queue = {graph_input}, [graph_input]
        while queue:
            value = queue.pop()
            for node, index in value.uses():
                if node.op_type == "Gather" and index == 1 and (table := node.inputs[0]) is not None:
                    if table.const_value is not None and len(table.const_value.shape) > 0:
                        rows = int(table.const_value.shape.numpy()[node.attributes.get_int("axis", 0)])
                        bounds[str(graph_input.name)] = min(rows, bounds.get(str(graph_input.name), rows))
                elif node.op_type in _INDEX_PRESERVING and index == 0 and node.outputs[0] not in reached:
                    reached.add(node.outputs[0])
                    queue.append(node.outputs[0])
    return bounds


def feature_outputs(model: "ir.Model") -> frozenset[str]:
    """Name the outputs that are vectors to compare, not scores to choose from: their operator normalizes or pools.

    An embedding ends in a normalization or a mean, a recurrent state in its LSTM or GRU; scores end in a product, a sum
    or a softmax (which may be a Div of what Exp makes). A last scaling by a constant number (a temperature)
    tells nothing: what it scales counts.
    """
    found = set()
    for output in model.graph.outputs:
        value: ir.Value | None = output
        while value is not None and (before := _carried(value)) is not None:
            value = before
        node = value.producer() if value is not None else None
        if node is not None and node.op_type in _FEATURE_OPS and not _is_softmax(node):
            found.add(str(output.name))
    return frozenset(found)


def _carried(value: "ir.Value") -> "ir.Value | None":
    """Return the value that this one is a moved or scaled copy of; None: it is made anew."""
    node = value.producer()
    if node is None:
        return None
    if node.op_type in _MOVES:
        return node.inputs[0]
    if node.op_type in ("Div", "Mul") and any(_is_constant_number(operand) for operand in node.inputs):
        return next((operand for operand in node.inputs if not _is_constant_number(operand)), None)
    return None


def _is_softmax(node: "ir.Node") -> bool:
    share = node.inputs[0].producer() if node.op_type == "Div" and node.inputs[0] is not None else None
    return share is not None and share.op_type == "Exp"


def _is_constant_number(value: "ir.Value | None") -> bool:
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1


def _dimension(dimension: object) -> int | None:
    # Exporters write 0 and -1 where they mean "any"
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def _numpy_dtype(value: "ir.Value") -> "np.dtype[np.generic] | None":
    import onnx_ir as ir

    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return np.dtype(value.dtype.numpy())
