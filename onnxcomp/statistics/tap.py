"""Reading inner tensors of a model: a copy whose outputs they are."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.model import infer_shapes, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["float_tensors", "inner_values", "runs", "tapped"]


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


def runs(
    model: "ir.Model", samples: Samples, names: Iterable[str], *, threads: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Run a model over all samples and yield the named float tensors of each run, which the caller alone holds.

    The session's threads sleep between the runs: the cores are the caller's then.

    Raises:
        ModelError: The model does not run.
        DataError: The samples do not fit.
        KeyError: The graph has no such tensor.
    """
    wanted = list(dict.fromkeys(names))
    inputs = {str(value.name): value.const_value for value in model.graph.inputs}
    defaults = {name: inputs[name].numpy() for name in wanted if inputs.get(name) is not None}  # type: ignore[union-attr]
    inner = [name for name in wanted if name not in inputs]
    # Not optimized: what is fused depends on what is asked for, and with it the last digits of every tensor
    session = open_session(tapped(model, inner), threads=threads, optimize=False, spin=False) if inner else None
    for feed in samples:
        found = {**defaults, **feed, **(session.run(feed, inner) if session else {})}
        yield {name: np.asarray(found.pop(name)) for name in wanted}


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
