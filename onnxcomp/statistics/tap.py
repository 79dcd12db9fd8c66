"""Reading inner tensors of a model: a copy whose outputs they are."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnxcomp.model import infer_shapes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["float_tensors", "inner_values", "tapped"]


def tapped(model: "ir.Model", names: Iterable[str]) -> "ir.Model":
    """Return a copy of the model that outputs the named float tensors and nothing else.

    Raises:
        KeyError: The graph has no such tensor.
    """
    import onnx_ir as ir

    copy = model.clone()
    values = inner_values(copy)
    copy.graph.outputs.clear()
    for name in names:
        value = values[name]
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        copy.graph.outputs.append(value)
    return copy


def inner_values(model: "ir.Model") -> "dict[str, ir.Value]":
    """Return the inputs and the node outputs of the main graph by name."""
    values = {str(value.name): value for value in model.graph.inputs}
    return values | {str(value.name): value for node in model.graph for value in node.outputs}


def float_tensors(model: "ir.Model") -> list[str]:
    """Name the float32 tensors of the main graph that are computed at run time or given as inputs, in graph order."""
    import onnx_ir as ir

    typed = model.clone()
    infer_shapes(typed)
    found = inner_values(typed).items()
    return [
        name
        for name, value in found
        if isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT and value.name
    ]
