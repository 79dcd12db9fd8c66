"""Which part of a tensor's range its readers can tell apart: the rest need not be represented.

A HardSwish gives 0 for all that is below -3, so a quantizer in front of it that saturates there changes nothing and
has finer steps for what counts. In the form ``x * clip(x + 3, 0, 6) / 6`` the same holds, as the gate is 0 there.
"""

import math
from collections.abc import Mapping

import onnx_ir as ir

from onnxcomp.passes.quantize.placement import constant, scale_factor
from onnxcomp.statistics import Range

__all__ = ["useful_range", "useful_ranges"]

_ALL = Range(-math.inf, math.inf)


def useful_ranges(graph: ir.Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges without what no reader of the tensor can tell apart.

    Args:
        graph: Where the tensors are.
        ranges: By tensor name.
    """
    values = {str(value.name): value for node in graph for value in node.outputs}
    found = {}
    for name, measured in ranges.items():
        useful = useful_range(values[name]) if name in values else _ALL
        low, high = max(measured.low, useful.low), min(measured.high, useful.high)
        found[name] = Range(low, high) if low < high else measured
    return found


def useful_range(value: ir.Value) -> Range:
    """Return the range outside of which a tensor's readers do as on its bounds; infinite where they tell all apart."""
    readers = value.consumers()
    if value.is_graph_output() or not readers:
        return _ALL
    if (offset := _gate_offset(value)) is not None:
        return Range(-offset, math.inf)
    ranges = [_read(node, value) for node in readers]
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _read(node: ir.Node, value: ir.Value) -> Range:
    """Return the range that one reader tells apart."""
    if node.domain != "" or node.inputs[0] is not value or any(v is value for v in node.inputs[1:]):
        return _ALL
    if node.op_type == "HardSwish":
        return Range(-3.0, math.inf)
    if node.op_type == "Relu":
        return Range(0.0, math.inf)
    if node.op_type == "HardSigmoid":
        slope, offset = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        return Range(-offset / slope, (1 - offset) / slope) if slope > 0 else _ALL
    if node.op_type == "Clip":
        low, high = _bound(node, 1, -math.inf), _bound(node, 2, math.inf)
        return Range(low, high) if low <= high else _ALL
    return _ALL


def _gate_offset(x: ir.Value) -> float | None:
    """Return c where ``x`` is read by ``x * (clip(x + c, 0, ...) * positive)`` and by nothing else, else None."""
    readers = x.consumers()
    if len(readers) != 2 or len(x.uses()) != 2:
        return None
    adds = [node for node in readers if node.op_type == "Add" and node.domain == ""]
    products = [node for node in readers if node.op_type == "Mul" and node.domain == ""]
    if len(adds) != 1 or len(products) != 1:
        return None
    offset = next((o for value in adds[0].inputs if (o := _number(value)) is not None), None)
    clip = _sole_reader(adds[0].outputs[0])
    if offset is None or clip is None or clip.op_type not in ("Clip", "Relu"):
        return None
    if clip.op_type == "Clip" and _bound(clip, 1, -math.inf) != 0.0:
        return None
    gate = clip.outputs[0]
    reader = _sole_reader(gate)
    if reader is not None and reader is not products[0] and scale_factor(reader) is not None:
        gate = reader.outputs[0]
        reader = _sole_reader(gate)
    return offset if reader is products[0] else None


def _sole_reader(value: ir.Value) -> ir.Node | None:
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _bound(clip: ir.Node, index: int, absent: float) -> float:
    """Return a bound of a Clip; ``absent`` where there is none, NaN where it is computed."""
    if len(clip.inputs) <= index or clip.inputs[index] is None:
        return absent
    number = _number(clip.inputs[index])
    return math.nan if number is None else number


def _number(value: ir.Value | None) -> float | None:
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or tensor.dtype != ir.DataType.FLOAT:
        return None
    return float(tensor.numpy().reshape(-1)[0])
