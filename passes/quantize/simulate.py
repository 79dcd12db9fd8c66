"""Static INT8 simulated in float, every quantizer with a switch: one session tells what any choice of nodes would do.

Before, after (``s`` is the added input, one element per quantizer)::

    x -> Conv(W) -> y      x -> Where(s[0], DQ(Q(x)), x) -> Conv(Where(s[1], DQ(W8), W)) -> Where(s[2], DQ(Q(y)), y)

Which quantizers a choice of nodes needs is asked of ``placement``, as for the real thing; scales do not depend on it.
Left out: the rounding of biases to int32, far finer than int8, and what onnxruntime will not fuse.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.placement import Placement, activations, constant, scaled_axis
from onnxcomp.statistics import Range
from onnxcomp.target import Role, Target
from onnxcomp.thresholds import affine, quantize_weights

__all__ = ["SWITCHES", "quantizers", "simulate"]

SWITCHES = "onnxcomp.switches"


def quantizers(placement: Placement) -> set[str]:
    """Name the tensors that a placement rounds: activations, and weights of anchors."""
    found: set[str] = set()
    for node, role in placement.roles.items():
        for value in activations(node, role):
            producer = value.producer()
            if producer is None or placement.roles.get(producer) not in (Role.MOVE, Role.SCALE):
                found.add(str(value.name))
        if role is Role.ANCHOR:
            found.add(str(_weight(node).name))
        if role in (Role.ANCHOR, Role.JOIN) and placement.rounds_output(node):
            found.add(str(placement.output(node).name))
    return found


def simulate(
    model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, Range],
    target: Target,
    *,
    per_channel: bool,
    method: str = "minmax",
) -> list[str]:
    """Give a model switchable quantizers; return the tensors that they round, in the order of the switches.

    Args:
        model: Typed; changed in place.
        placement: Of all nodes of ``model`` that may become integer.
        ranges: By tensor name.
        target: Integer types.
        per_channel: One scale per output channel of a weight.
        method: How they are chosen, of ``thresholds.WEIGHT_METHODS``.
    """
    return _Writer(model.graph, ranges, target, per_channel=per_channel, method=method).write(placement)


class _Writer:
    """Puts a quantizer and its switch behind tensors of one graph."""

    def __init__(
        self, graph: ir.Graph, ranges: Mapping[str, Range], target: Target, *, per_channel: bool, method: str
    ) -> None:
        self._graph = graph
        self._editor = GraphEditor(graph)
        self._ranges = ranges
        self._dtype, self._symmetric = np.dtype(target.activations), target.symmetric
        self._bits = 7 if target.reduce_range else 8
        self._per_channel = per_channel
        self._method = method

    def write(self, placement: Placement) -> list[str]:
        names = sorted(quantizers(placement))
        switches = ir.val(SWITCHES, dtype=ir.DataType.BOOL, shape=[len(names)])
        self._graph.inputs.append(switches)
        readers = {_weight(node).name: node for node, role in placement.roles.items() if role is Role.ANCHOR}
        ends = (value for node in placement.roles for value in (*node.inputs, placement.output(node)))
        values = {value.name: value for value in ends if value is not None}
        for index, name in enumerate(names):
            value, editor = values[name], self._editor
            rounded = self._weight(value, readers[name]) if name in readers else self._activation(value)
            pick = editor.node("Gather", [switches, editor.constant(np.int64(index))])
            chosen = editor.node("Where", [pick.outputs[0], rounded[-1].outputs[0], value])
            self._replace(value, [*rounded, pick, chosen])
        self._graph.sort()
        return names

    def _weight(self, value: ir.Value, reader: ir.Node) -> list[ir.Node]:
        weight = constant(value)
        assert weight is not None
        axis = scaled_axis(reader) if self._per_channel else None
        levels, scale = quantize_weights(weight.numpy(), axis=axis, bits=self._bits, method=self._method)
        inputs: list[ir.Value | None] = [self._editor.constant(levels), self._editor.constant(scale)]
        return [self._editor.node("DequantizeLinear", inputs, **({} if axis is None else {"axis": axis}))]

    def _activation(self, value: ir.Value) -> list[ir.Node]:
        span = self._ranges[str(value.name)]
        quantizer = affine(span.low, span.high, self._dtype, symmetric=self._symmetric)
        parameters = [self._editor.constant(quantizer.scale), self._editor.constant(quantizer.zero_point)]
        levels = self._editor.node("QuantizeLinear", [value, *parameters])
        return [levels, self._editor.node("DequantizeLinear", [levels.outputs[0], *parameters])]

    def _replace(self, value: ir.Value, new: list[ir.Node]) -> None:
        """Insert nodes behind a tensor and let all its other readers read the last one's result."""
        result = new[-1].outputs[0]
        for reader, index in list(value.uses()):
            if reader not in new:
                reader.replace_input_with(index, result)
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                result.name, value.name = value.name, result.name
                result.shape, result.type = value.shape, value.type
                self._graph.outputs[index] = result
        if value.is_initializer():
            self._graph.insert_before(next(iter(self._graph)), new)
        else:
            self._editor.after(value, new)


def _weight(node: ir.Node) -> ir.Value:
    weight = node.inputs[1]
    assert weight is not None
    return weight
