"""Reading inner tensors of a model: a copy whose outputs they are."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Feed, Samples
from onnxcomp.model import infer_shapes, open_session
from onnxcomp.runtime import Session

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
    wanted = [values[name] for name in names]
    if any(value.type is None for value in wanted):
        infer_shapes(copy)  # they may be of float16
    copy.graph.outputs.clear()
    for value in wanted:
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        copy.graph.outputs.append(value)
    return copy


def runs(
    model: "ir.Model", samples: Samples, names: Iterable[str], *, threads: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Run a model over all samples and yield the named float tensors of each run, which the caller alone holds.

    The next run is computed while the caller deals with the last one.

    Raises:
        ModelError: The model does not run.
        DataError: The samples do not fit.
        KeyError: The graph has no such tensor.
    """
    wanted = list(dict.fromkeys(names))
    inputs = {str(value.name): value.const_value for value in model.graph.inputs}
    defaults = {name: inputs[name].numpy() for name in wanted if inputs.get(name) is not None}  # type: ignore[union-attr]
    inner = [name for name in wanted if name not in inputs]
    session = _session(model, inner, threads) if inner else None

    def run(feed: Feed) -> dict[str, np.ndarray]:
        found = {**defaults, **feed, **(session.run(feed, inner) if session else {})}
        return {name: np.asarray(found[name]) for name in wanted}

    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[dict[str, np.ndarray]]] = deque()  # of one, taken out before it is given away
        for feed in samples:
            ahead.append(pool.submit(run, feed))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        if ahead:
            yield ahead.popleft().result()


def _session(model: "ir.Model", names: list[str], threads: int) -> Session:
    """Open a session that gives the named tensors, each with the same digits whichever others are named.

    What onnxruntime fuses depends on which tensors are outputs, and with it their last digits: therefore all float
    tensors are, always. One whose type nobody knows is not among them: then nothing is fused.
    """
    every = [name for name in float_tensors(model) if name not in {value.name for value in model.graph.inputs}]
    known = set(names) <= set(every)
    return open_session(tapped(model, every if known else names), threads=threads, optimize=known, spin=False)


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
