"""What the nodes of a model make and cost in one run: measured by running it, or inferred where it does not run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.costs import macs
from onnxcomp.data import Feed
from onnxcomp.errors import OnnxCompError
from onnxcomp.model import executions, infer_shapes, load

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Costs", "count_costs"]


@dataclass(frozen=True, slots=True)
class Costs:
    """A model whose values have the shapes of one run.

    Attributes:
        model: The model with its functions inlined.
        macs: Multiply-accumulate operations of each node, over all its executions; None: they can't be told.
        ran: Whether it was run for that (else all follows from inferred shapes).
    """

    model: "ir.Model"
    macs: "dict[ir.Node, int | None]"
    ran: bool


def count_costs(model: "ir.Model", feed: Feed, notes: list[str] | None = None) -> Costs:
    """Count what each node costs in a run on a feed.

    Args:
        model: Not changed.
        feed: One run; where it is empty, or the model does not run on it, shapes are inferred. What bodies of If, Loop
            and Scan cost is unknown then: nobody knows how often they run.
        notes: Gets a sentence for what goes wrong.
    """
    notes = [] if notes is None else notes
    flat = _flat(model, notes)
    _infer(flat, feed, notes)
    inferred = {node: macs(node) for node in flat.graph.all_nodes()}
    for node, count in inferred.items():
        if node.graph is not flat.graph and count:
            inferred[node] = None
    measured = _measure(flat, feed, notes) if feed else None
    return Costs(flat, inferred | measured if measured else inferred, ran=measured is not None)


def _measure(flat: "ir.Model", feed: Feed, notes: list[str]) -> "dict[ir.Node, int | None] | None":
    """Run the model once, and set shapes and sum up costs execution by execution; None where it does not run."""
    nodes = list(flat.graph.all_nodes())
    try:
        copy = load(flat)
        for index, node in enumerate(copy.graph.all_nodes()):
            node.name = f"n{index}"
        found = executions(copy, feed)
    except OnnxCompError as err:
        notes.append(f"it does not run on this sample, so that less is known: {err}")
        return None
    by_name = {f"n{index}": node for index, node in enumerate(nodes)}
    counts: dict[ir.Node, int | None] = {}
    for execution in found:
        if execution.node not in by_name:  # part of an operator that onnxruntime takes apart, or a cast that it adds
            continue
        node = by_name[execution.node]
        _set_shapes([value for value in node.outputs if value.name], execution.outputs)
        inputs = [value for value in node.inputs if value is not None]
        if len(inputs) != len(execution.inputs):
            inputs = inputs[:1]  # weights that were packed away are missing from the record; the data comes first
        free = [v.producer() is None and v.const_value is None for v in inputs]  # inputs of bodies
        _set_shapes(inputs, execution.inputs[: len(inputs)], free)
        before, cost = counts.get(node, 0), macs(node)
        counts[node] = None if cost is None or before is None else before + cost
    for node in nodes:  # the bodies that did not run cost nothing
        if node.graph is not flat.graph and node not in counts:
            counts[node] = 0
    return counts


def _set_shapes(
    values: "list[ir.Value]", shapes: tuple[tuple[int, ...], ...], wanted: list[bool] | None = None
) -> None:
    """Set the shapes of values, where the record tells which is whose."""
    import onnx_ir as ir

    if len(values) == len(shapes):
        for index, (value, shape) in enumerate(zip(values, shapes, strict=True)):
            if wanted is None or wanted[index]:
                value.shape = ir.Shape(shape)


def _flat(model: "ir.Model", notes: list[str]) -> "ir.Model":
    """Copy a model with its functions inlined and without what the file claims about values in between."""
    from onnx_ir.passes.common import InlinePass

    flat = model.clone()
    try:
        if flat.functions:
            InlinePass()(flat)
    except Exception as err:  # onnx-ir raises many kinds on malformed functions
        notes.append(f"the model's functions can't be inlined: {str(err)[:200]}")
        flat = model.clone()
    for graph in flat.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = None  # it may be wrong, or hold for other inputs
    return flat


def _infer(flat: "ir.Model", feed: Feed, notes: list[str]) -> None:
    import onnx_ir as ir

    for value in flat.graph.inputs:
        if value.name in feed:
            value.shape = ir.Shape(feed[str(value.name)].shape)
    try:
        infer_shapes(flat)
    except OnnxCompError as err:
        notes.append(f"{err}; what depends on shapes may be unknown")
