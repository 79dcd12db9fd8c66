"""Which nodes of a graph compute in float16, and why the others do not: decided in one walk, before any changes."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.facts import opset
from onnxcomp.metrics import sqnr
from onnxcomp.passes.quantize.half_facts import (
    AGNOSTIC,
    BOUNDS,
    COUNTING,
    LARGEST,
    MASKING,
    MOVERS,
    OVERFLOWING,
    SMALLEST,
    SPREADING,
    Slots,
    slots_of,
    why_float,
)
from onnxcomp.thresholds import Range

__all__ = ["LEAST_SQNR", "Plan", "float_constant_of", "is_float"]

LEAST_SQNR = 60.0  # dB; rounding to 11 bits leaves 73, subnormal numbers less
_SUMMING = frozenset({"Add", "Max", "Min", "Sub", "Where", *MOVERS})  # that may lie between a mask and its Softmax
# Inputs that a softmax reads
_SOFTMAX_READS: Mapping[str, int] = {"Softmax": 0, "LogSoftmax": 0, "Attention": 3, "MultiHeadAttention": 5}
_UNKNOWN_RANGE = "may leave float16's range, and no calibrated range is known"
_PROBABILITY = "gives probabilities: in float16 those near 1 would be equal"
_DELICATE = "reads numbers that float16 may not hold"


def is_float(value: ir.Value | None) -> bool:
    """Say whether a value is a float32 tensor."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def float_constant_of(value: ir.Value) -> np.ndarray | None:
    """Return a float32 constant that no caller can override."""
    tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None


@dataclass(slots=True)
class Plan:
    """Decides, node by node in graph order, who computes in float16.

    Attributes:
        model: With inferred types. It is not changed.
        ranges: Of float32 tensors, as far as they were measured.
        limit: Largest absolute value that is trusted to float16.
        exclude: Names of nodes that stay float32.
        keep_io: Whether the graph's inputs stay float32.
        half: The nodes that compute in float16, with their tensors that do.
        why: The nodes with float32 tensors that stay float32, and the reason.
        halves: Values that will be float16.
        masks: Values that are added up, or chosen from, on the way to a softmax: what is very negative is a mask.
    """

    model: ir.Model
    ranges: Mapping[str, Range]
    limit: float
    exclude: Collection[str] = ()
    keep_io: bool = True
    half: dict[ir.Node, Slots] = field(default_factory=dict)
    why: dict[ir.Node, str] = field(default_factory=dict)
    halves: set[ir.Value] = field(default_factory=set)
    masks: set[ir.Value] = field(default_factory=set)
    _masked: set[ir.Value] = field(default_factory=set)
    _counting: set[ir.Value] = field(default_factory=set)
    _delicate: set[ir.Value] = field(default_factory=set)
    _exact: dict[ir.Value, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.masks = _masks(graph)
        if not self.keep_io:
            self.halves = {v for v in graph.inputs if is_float(v) and v.name not in graph.initializers}
        version = opset(self.model)
        for node in graph:
            self._decide(node, version)

    def runtime_floats(self, node: ir.Node) -> list[ir.Value]:
        """Return the float32 inputs of a node that are no constants."""
        return [v for v in node.inputs if v is not None and is_float(v) and float_constant_of(v) is None]

    def beyond(self, value: ir.Value) -> bool:
        """Say whether a mask, still in float32, may be larger than float16: nobody measured it, or it was."""
        extremes = self.ranges.get(str(value.name))
        return value in self.masks and (extremes is None or _reach(extremes) > LARGEST)

    def _decide(self, node: ir.Node, version: int) -> None:
        if node.op_type == "Constant":
            return
        if node.op_type in AGNOSTIC and node.domain == "":
            if node.op_type == "Cast" and _from_integers(node):
                self._counting.add(node.outputs[0])
            return
        if not any(map(is_float, (*node.inputs, *node.outputs))) and not _has_body(node):
            return
        slots = slots_of(node, version)
        slots = Slots(
            frozenset(i for i in slots.inputs if is_float(node.inputs[i])),
            frozenset(i for i in slots.outputs if is_float(node.outputs[i])),
        )
        counts = self._counts(node)
        reason = self._why_not(node, slots, version, counts=counts)
        if reason is None:
            self.half[node] = slots
            self.halves |= {node.outputs[i] for i in slots.outputs}
            if self._carries_mask(node):
                self._masked |= set(node.outputs)
        else:
            self.why[node] = reason
        if counts:
            self._counting |= set(node.outputs)
        if self._is_delicate(node):
            self._delicate |= set(node.outputs)

    def _why_not(self, node: ir.Node, slots: Slots, version: int, *, counts: bool) -> str | None:
        """Say why a node stays float32, or None."""
        if node.name in self.exclude:
            return "excluded"
        if reason := why_float(node):
            return reason
        if any(v is not None and v.name and v.type is None for v in (*node.inputs, *node.outputs)):
            return "the types of its tensors are not known"
        if not slots.inputs:
            return f"opset {version} has no float16 form of it"
        if self.keep_io and node.op_type == "Sigmoid" and _goes_out(node.outputs[0]):
            return _PROBABILITY
        if counts:
            return "computes with what was an integer: float16 counts to 2048 only"
        floats = self.runtime_floats(node)
        still = bool(floats) and not self.halves & set(floats)
        if still and (node.op_type in MOVERS or _guards_cast(node)):
            return "hands on what is float32 before it"
        if self._delicate & set(floats):
            return _DELICATE
        return self._why_not_constants(node, slots) or self._why_not_ranges(node, slots)

    def _counts(self, node: ir.Node) -> bool:
        floats = self.runtime_floats(node)
        return node.domain == "" and node.op_type in COUNTING and bool(floats) and set(floats) <= self._counting

    def _why_not_constants(self, node: ir.Node, slots: Slots) -> str | None:
        for _, value, array in _constants(node, slots):
            if np.isnan(array).any():
                return "a constant is NaN"
            finite = array[np.isfinite(array)]
            reach = float(np.abs(finite).max(initial=0.0))
            if reach > LARGEST and node.op_type not in BOUNDS and not self._masking(node):
                return f"a constant, {reach:.3g}, exceeds float16"
            if reach <= LARGEST and not self._fits(value, finite):
                return f"a constant, {reach:.3g}, is too small for float16"
        return None

    def _why_not_ranges(self, node: ir.Node, slots: Slots) -> str | None:
        made = [node.outputs[i] for i in slots.outputs]
        values = [*(v for v in self.runtime_floats(node)), *made]
        for value in values:
            extremes = self.ranges.get(str(value.name))
            if extremes is None:
                continue
            reach = _reach(extremes)
            if reach > self.limit and not (extremes.high <= self.limit and self._may_mask(node, value)):
                return f"tensor {value.name} reaches {reach:.3g}"
            if 0 < reach < SMALLEST:
                return f"tensor {value.name} is within {reach:.3g}: too small for float16"
        return _UNKNOWN_RANGE if self._overflows(node, made) else None

    def _overflows(self, node: ir.Node, made: Collection[ir.Value]) -> bool:
        """Say whether a node may leave float16's range for all that is known."""
        square = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
        kind = node.domain == "" and (node.op_type in OVERFLOWING or square)
        return kind and any(str(value.name) not in self.ranges for value in made)

    def _may_mask(self, node: ir.Node, value: ir.Value) -> bool:
        """Say whether the large negative numbers of a value are a mask, which is clipped where it becomes float16."""
        if value not in self.masks:
            return False
        if value.producer() is node:
            return self._carries_mask(node)
        return value in self._masked or value not in self.halves

    def _masking(self, node: ir.Node) -> bool:
        return node.op_type in MASKING and node.outputs[0] in self.masks

    def _carries_mask(self, node: ir.Node) -> bool:
        """Say whether a node puts a mask, clipped, into what leads to a softmax."""
        if not node.outputs or node.outputs[0] not in self.masks:
            return False
        large = any(
            np.abs(array).max(initial=0.0) > LARGEST
            for value in node.inputs
            if value is not None and (array := float_constant_of(value)) is not None
        )
        before = self.runtime_floats(node)
        return large or any(v in self._masked or (v in self.masks and v not in self.halves) for v in before)

    def _is_delicate(self, node: ir.Node) -> bool:
        """Say whether readers of a node's results must stay float32: they may be too small, or too large."""
        if node not in self.why:
            return False
        for _, value, array in _constants(node, Slots(frozenset(range(len(node.inputs))))):
            large = np.abs(array).max(initial=0.0) > LARGEST
            if large and any(v not in self.masks and str(v.name) not in self.ranges for v in node.outputs):
                return True
            if not large and node.op_type in COUNTING and not self._fits(value, array):
                return True
        if self._overflows(node, node.outputs) and not self._counts(node):
            return True
        return node.op_type in SPREADING and bool(self._delicate & set(self.runtime_floats(node)))

    def _fits(self, value: ir.Value, finite: np.ndarray) -> bool:
        """Say whether a constant keeps its digits in float16."""
        if value not in self._exact:
            with np.errstate(over="ignore"):
                half = finite.astype(np.float16).astype(np.float32)
            self._exact[value] = finite.size == 0 or sqnr(finite, half) >= LEAST_SQNR
        return self._exact[value]


def _masks(graph: ir.Graph) -> set[ir.Value]:
    reads = ((node, _SOFTMAX_READS.get(node.op_type)) for node in graph)
    queue = [node.inputs[i] for node, i in reads if i is not None and i < len(node.inputs)]
    found: set[ir.Value] = set()
    while queue:
        value = queue.pop()
        if value is None or value in found or not is_float(value):
            continue
        found.add(value)
        maker = value.producer()
        if maker is not None and maker.domain == "" and maker.op_type in _SUMMING and maker.graph is graph:
            queue += maker.inputs
    return found


def _constants(node: ir.Node, slots: Slots) -> Iterator[tuple[int, ir.Value, np.ndarray]]:
    for index in sorted(slots.inputs):
        value = node.inputs[index]
        if value is not None and (array := float_constant_of(value)) is not None:
            yield index, value, array


def _from_integers(cast: ir.Node) -> bool:
    source = cast.inputs[0]
    kind = None if source is None else source.dtype
    return is_float(cast.outputs[0]) and kind is not None and (kind.is_integer() or kind == ir.DataType.BOOL)


def _has_body(node: ir.Node) -> bool:
    """Say whether a node may read more tensors than its inputs."""
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def _guards_cast(node: ir.Node) -> bool:
    """Say whether a Clip keeps a Cast to float16 from overflow."""
    casts = [use.node for use in node.outputs[0].uses()]
    return node.op_type == "Clip" and all(
        n.op_type == "Cast" and n.attributes.get_int("to", 0) == ir.DataType.FLOAT16 for n in casts
    )


def _goes_out(value: ir.Value) -> bool:
    """Say whether the graph gives out a value, moved perhaps."""
    movers = (use.node for use in value.uses() if use.node.op_type in MOVERS)
    return value.is_graph_output() or any(_goes_out(output) for node in movers for output in node.outputs)


def _reach(extremes: Range) -> float:
    return max(abs(extremes.low), abs(extremes.high))
