"""Compute in float16, with float32 islands where float16 would not do. For GPUs; takes calibrated ranges into account.

Before, after::

    x -> Conv(W) -> Exp -> y        x -> Cast -> Conv(W16) -> Cast -> Exp -> y

Inputs and outputs of the graph keep their types. A value has one Cast at most, where it crosses a border. Nodes stay
float32 that are named; whose numbers go beyond float16 or are too small for it, by their constants or calibrated ranges
(without ranges: sums, powers, exponentials, and what reads them); that count; that are quantized, or beside it; that
the specification or onnxruntime has no float16 form of; that have bodies; a last Sigmoid. Operators that only hand
numbers on take the type that is there. Masks, what is added before a softmax, are clipped to -16384: they stay masks,
and their sums stay finite. Declines, per node, with the reason.
Source: IEEE 754 binary16; the types that the ONNX specification lists per operator and version.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import name_nodes, opset
from onnxcomp.model import infer_shapes
from onnxcomp.passbase import Need, Pass, PassContext, PassStats, Unit
from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.half_facts import AGNOSTIC, BOUNDS, LARGEST, MASK, MOVERS
from onnxcomp.passes.quantize.half_plan import Plan, float_constant_of, is_float
from onnxcomp.passes.quantize.weights import drop_unread
from onnxcomp.thresholds import Range

__all__ = ["ConvertFloat16", "ConvertFloat16Config"]

_CLIP_INPUTS = 11  # the opset from which on Clip reads its bounds


@dataclass(frozen=True, slots=True)
class ConvertFloat16Config:
    """Settings of computing in float16.

    Attributes:
        keep_io: Whether inputs and outputs of the graph stay float32.
        margin: Share of float16's range, (0, 1], that calibrated activations may fill.
        exclude: Names of nodes that stay float32.
    """

    keep_io: bool = True
    margin: float = 0.5
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 1:
            raise RecipeError(f"margin must be in (0, 1], got {self.margin}")


class ConvertFloat16(Pass[ConvertFloat16Config]):
    """Compute in float16, with float32 islands where float16 would not do."""

    name: ClassVar[str] = "convert-float16"
    Config = ConvertFloat16Config
    exact: ClassVar[bool] = False
    wants: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the nodes that would compute in float16."""
        plan = self._plan(model.clone(), ctx)
        return [
            Unit(str(node.name), node.op_type, (str(node.name),)) for node in plan.half if node.op_type not in MOVERS
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Convert all nodes that may be."""
        plan = self._plan(model, ctx)
        for node, reason in plan.why.items():
            ctx.skip(node, reason)
        if not plan.half:
            return PassStats(modified=False)
        casts = _Writer(plan).write()
        model.graph.sort()
        drop_unread(model)
        counters = {"float16 nodes": len(plan.half), "Casts": casts}
        return PassStats(modified=True, counters={name: count for name, count in counters.items() if count})

    def _plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        for graph in model.graphs():
            name_nodes(graph)
        infer_shapes(model)
        limit = LARGEST * self.config.margin
        return Plan(model, _ranges(model, ctx), limit, self.config.exclude, self.config.keep_io)


def _ranges(model: ir.Model, ctx: PassContext) -> dict[str, Range]:
    """Return the calibrated ranges of all float32 tensors; none without calibration."""
    if ctx.ranges is None:
        return {}
    made = (value for node in model.graph if node.op_type != "Constant" for value in node.outputs)
    names = [str(v.name) for v in (*model.graph.inputs, *made) if v.name and is_float(v)]
    if ctx.samples is None:  # what a file of statistics does not tell stays unknown
        names = [name for name in names if name in ctx.ranges.known]
    return ctx.ranges.get(names, model)


class _Writer:
    """Changes a model as planned."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._graph = plan.model.graph
        self._editor = GraphEditor(self._graph)
        self._lowered: dict[ir.Value, ir.Value] = {}
        self._casts = 0

    def write(self) -> int:
        """Change it; return how many Casts that took."""
        for node, slots in self._plan.half.items():
            for index in sorted(slots.inputs):
                self._lower_input(node, index)
        for value in self._plan.halves:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        for value in self._ordered_halves():
            self._raise_readers(value)
        if not self._plan.keep_io:
            for output in tuple(self._graph.outputs):
                if is_float(output) and output.producer() is not None:
                    self._replace_output(output, self._cast(output, ir.DataType.FLOAT16))
        return self._casts

    def _ordered_halves(self) -> list[ir.Value]:
        """Return the values that are float16 now, in graph order."""
        values = (*self._graph.inputs, *(value for node in self._graph for value in node.outputs))
        return [value for value in values if value in self._plan.halves]

    def _lower_input(self, node: ir.Node, index: int) -> None:
        value = node.inputs[index]
        assert value is not None
        if value in self._plan.halves:
            return
        array = float_constant_of(value)
        node.replace_input_with(index, self._lower(value) if array is None else self._constant(node, array))

    def _constant(self, node: ir.Node, array: np.ndarray) -> ir.Value:
        bound = LARGEST if node.op_type in BOUNDS else MASK
        if np.abs(array[np.isfinite(array)]).max(initial=0.0) > LARGEST:
            array = np.where(np.isinf(array), array, np.clip(array, -bound, bound))
        return self._editor.constant(array.astype(np.float16))

    def _lower(self, value: ir.Value) -> ir.Value:
        """Return the float16 form of a float32 value: where it came from, a Cast that is there, or a new one."""
        if value not in self._lowered:
            clip = self._plan.beyond(value)
            self._lowered[value] = (None if clip else self._found(value)) or self._cast(
                self._clipped(value) if clip else value, ir.DataType.FLOAT16
            )
        return self._lowered[value]

    def _found(self, value: ir.Value) -> ir.Value | None:
        for use in value.uses():
            if _casts(use.node, ir.DataType.FLOAT16) and use.node.graph is self._graph:
                return use.node.outputs[0]
        maker = value.producer()
        source = maker.inputs[0] if maker is not None and maker.op_type == "Cast" and maker.domain == "" else None
        if source is None:
            return None
        if source in self._plan.halves or source.dtype == ir.DataType.FLOAT16:
            return source
        return self._lower(source) if is_float(source) else self._cast(source, ir.DataType.FLOAT16)

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        node = self._editor.node("Cast", [value], to=int(to))
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(to), value.shape
        self._editor.after(value, [node])
        self._casts += 1
        return node.outputs[0]

    def _clipped(self, value: ir.Value) -> ir.Value:
        if opset(self._plan.model) < _CLIP_INPUTS:
            node = self._editor.node("Clip", [value], min=-MASK, max=MASK)
        else:
            bounds = [self._editor.constant(np.float32(bound)) for bound in (-MASK, MASK)]
            node = self._editor.node("Clip", [value, *bounds])
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        self._editor.after(value, [node])
        return node.outputs[0]

    def _raise_readers(self, value: ir.Value) -> None:
        """Give the readers that stay float32 what they expect."""
        uses = []
        for use in value.uses():
            if _casts(use.node, ir.DataType.FLOAT16) and not use.node.outputs[0].is_graph_output():
                use.node.outputs[0].replace_all_uses_with(value)
            elif not self._takes_half(use.node, use.idx):
                uses.append(use)
        outputs = [graph for graph in self._plan.model.graphs() if any(v is value for v in graph.outputs)]
        wanted = [graph for graph in outputs if graph is not self._graph or self._plan.keep_io]
        if not uses and not wanted:
            return
        raised = self._cast(value, ir.DataType.FLOAT)
        for use in uses:
            use.node.replace_input_with(use.idx, raised)
        if wanted:
            self._replace_output(value, raised)

    def _replace_output(self, old: ir.Value, new: ir.Value) -> None:
        """Let a value take another's place, and name, among the outputs."""
        for graph in self._plan.model.graphs():
            for index, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[index] = new
        old.name, new.name = new.name, old.name

    def _takes_half(self, node: ir.Node, index: int) -> bool:
        slots = self._plan.half.get(node)
        if slots is not None:
            return index in slots.inputs
        return node.op_type in AGNOSTIC and node.domain == ""


def _casts(node: ir.Node, to: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.domain == "" and node.attributes.get_int("to", 0) == to
