"""Static INT8: activations with calibrated scales, weights per output channel, integer kernels end to end.

Before, after (``q`` is QuantizeLinear + DequantizeLinear)::

    x -> Conv -> Relu -> Add -> y
    x -> q -> Conv(DQ(W8)) -> Relu -> q -> Add -> q -> y

What runs in integers is planned by ``placement``, written by ``qdq``, and then read back from the graph that
onnxruntime makes of it: a node that stayed float between its pairs is given back, and the plan is made again.
Declines: opset below 13 (no per-channel axis), nodes of subgraphs, weights or types that are unknown or not float32.
Source: Jacob et al. 2018 (affine quantization, int32 bias with scale s_x * s_w).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import opset
from onnxcomp.model import infer_shapes, materialized
from onnxcomp.passbase import Need, Pass, PassContext, PassStats, Simulation, Skip, Unit
from onnxcomp.passes.cleanup.constants import LiftConstants
from onnxcomp.passes.quantize.editor import drop_unused_initializers, name_nodes
from onnxcomp.passes.quantize.placement import Placement, activations, constant, plan
from onnxcomp.passes.quantize.qdq import QdqWriter, measured_tensors
from onnxcomp.passes.quantize.simulate import SWITCHES, quantizers, simulate
from onnxcomp.passes.quantize.useful import useful_ranges
from onnxcomp.protos import from_proto
from onnxcomp.runtime import optimized_graph
from onnxcomp.statistics import Range
from onnxcomp.target import Role, Target
from onnxcomp.thresholds import METHODS, WEIGHT_METHODS, Grid

__all__ = ["QuantizeStatic", "QuantizeStaticConfig"]

_ANCHORS = ("Conv", "Gemm", "MatMul")
_MINIMUM_OPSET = 13  # QuantizeLinear/DequantizeLinear with an axis
_MOST_ROUNDS = 6
# How many times wider than the narrowest the widest input may be: log2 of it is the bits that the narrow one loses to
# the scale of the result. An attention mask added to scores is the extreme case
_MOST_SPREAD = {"Add": 128.0, "Concat": 8.0}


@dataclass(frozen=True, slots=True)
class QuantizeStaticConfig:
    """Settings of static INT8.

    Attributes:
        method: How ranges become thresholds.
        percentile: Percent of the values that the method ``percentile`` keeps.
        anchors: Operator types that are worth integer execution by themselves.
        per_channel: One weight scale per output channel.
        weights: How their scales are chosen: ``minmax``, or ``mmse``, which clips for the least squared error.
        exclude: Names of nodes that stay float.
    """

    method: str = "minmax"
    percentile: float = 99.99
    anchors: tuple[str, ...] = _ANCHORS
    per_channel: bool = True
    weights: str = "minmax"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RecipeError(f"unknown calibration method {self.method!r}", hint=f"one of: {', '.join(METHODS)}")
        if self.weights not in WEIGHT_METHODS:
            raise RecipeError(f"weights must be one of {', '.join(WEIGHT_METHODS)}, got {self.weights!r}")
        if not 0 < self.percentile <= 100:
            raise RecipeError(f"percentile must be in (0, 100], got {self.percentile}")
        if unknown := sorted(set(self.anchors) - set(_ANCHORS)):
            raise RecipeError(f"{unknown[0]!r} can't be an anchor", hint=f"of: {', '.join(_ANCHORS)}")


class QuantizeStatic(Pass[QuantizeStaticConfig]):
    """Rewrite to QDQ form with calibrated activation ranges."""

    name: ClassVar[str] = "quantize-static"
    Config = QuantizeStaticConfig
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION, Need.SHAPES})
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"method": tuple(METHODS)}

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List what could run in integers: each anchor with the joins behind it, up to the next anchor.

        They go together: a convolution in float whose activation stays in integers would still have its result rounded.
        """
        work = model.clone()
        LiftConstants().run(work, ctx)
        name_nodes(work.graph)
        infer_shapes(work)
        placement = plan(work.graph, ctx, anchors=self.config.anchors, exclude=self.config.exclude)
        return [
            Unit(
                str(owner.name),
                owner.op_type,
                tuple(str(node.name) for node in nodes),
                tuple(str(placement.tails[node].name) for node in nodes if node in placement.tails),
            )
            for owner, nodes in _by_owner(placement).items()
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Plan, write, read back; repeat without what stayed float."""
        if opset(model) < _MINIMUM_OPSET:
            reason = f"opset {opset(model)} has no per-channel DequantizeLinear: run upgrade-opset first"
            return PassStats(modified=False, skipped=(Skip("", "", reason),))
        if ctx.target.no_static is not None:
            return PassStats(modified=False, skipped=(Skip("", "", ctx.target.no_static),))
        lifted = LiftConstants().run(model, ctx)
        name_nodes(model.graph)
        settled = self._settle(model, ctx)
        if settled is None:
            return PassStats(modified=lifted.modified)
        drop_unused_initializers(settled.written.graph)
        model.graph = settled.written.graph
        return PassStats(modified=True, counters=_counters(list(settled.placement.roles.values())))

    def simulate(self, model: ir.Model, ctx: PassContext) -> Simulation | None:
        """Return a float model that rounds as the rewritten one does, with a switch for each quantizer."""
        if opset(model) < _MINIMUM_OPSET:
            return None
        base = model.clone()
        LiftConstants().run(base, ctx)
        name_nodes(base.graph)
        settled = self._settle(base, ctx)
        if settled is None:
            return None
        infer_shapes(base)
        never = {*self.config.exclude, *settled.declined}

        def placement(source: ir.Model, left_out: Collection[str]) -> Placement:
            return plan(source.graph, scratch, anchors=self.config.anchors, exclude={*never, *left_out})

        scratch, work = PassContext(target=ctx.target), base.clone()
        infer_shapes(work)
        whole = placement(work, ())
        names = simulate(work, whole, settled.ranges, ctx.target, **self._weights)

        def switches(left_out: Collection[str]) -> dict[str, NDArray[np.bool_]]:
            rounded = quantizers(placement(base, left_out))
            return {SWITCHES: np.array([name in rounded for name in names])}

        return Simulation(work, switches)

    @property
    def _weights(self) -> dict[str, Any]:
        """How weights are rounded."""
        return {"per_channel": self.config.per_channel, "method": self.config.weights}

    def _settle(self, model: ir.Model, ctx: PassContext) -> "_Settled | None":
        """Plan until onnxruntime fuses all of it; None where nothing is left. Nodes of the model have names."""
        if ctx.ranges is None:
            raise PassError("static quantization needs calibration samples", hint="--calibration DATA")
        declined: dict[str, str] = {}
        for _ in range(_MOST_ROUNDS):
            work = model.clone()
            infer_shapes(work)
            skips = len(ctx.skipped)
            placement = plan(work.graph, ctx, anchors=self.config.anchors, exclude={*self.config.exclude, *declined})
            if not placement.roles:
                break
            tensors = measured_tensors(placement)
            ranges: dict[str, Range] = {}
            new = _unsuited(placement, ctx.ranges.get(tensors, model))
            if not new:
                promised = {str(node.name): node.op_type for node in placement.roles}
                grid = Grid(symmetric=ctx.target.symmetric)
                share = self.config.percentile / 100
                ranges = ctx.ranges.clipped(tensors, self.config.method, model, grid=grid, share=share)
                ranges = useful_ranges(work.graph, ranges)
                QdqWriter(work.graph, placement, ranges, ctx.target, **self._weights).write()
                work.graph.sort()
                new = _stayed_float(work, promised, ctx.target) if ctx.target.readable else {}
            if not new:
                ctx.skipped[skips:] = [_explained(skip, declined) for skip in ctx.skipped[skips:]]
                return _Settled(work, placement, ranges, declined)
            declined |= new
            del ctx.skipped[skips:]
        return None


@dataclass(frozen=True, slots=True)
class _Settled:
    """A plan that onnxruntime fuses: the rewritten model, what is integer in it, thresholds, what was given back."""

    written: ir.Model
    placement: Placement
    ranges: Mapping[str, Range]
    declined: Mapping[str, str]


def _by_owner(placement: Placement) -> dict[ir.Node, list[ir.Node]]:
    """Group nodes by the last anchor that feeds them, in graph order; without one, a node is its own owner."""
    order = {node: index for index, node in enumerate(placement.roles)}
    heads = {tail: node for node, tail in placement.tails.items()}
    owners: dict[ir.Node, ir.Node] = {}
    for node, role in placement.roles.items():
        makers = [value.producer() for value in activations(node, role)]
        feeding = [owners[made] for maker in makers if maker and (made := heads.get(maker, maker)) in owners]
        owners[node] = max(feeding, key=order.__getitem__) if feeding and role is not Role.ANCHOR else node
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node, owner in owners.items():
        groups.setdefault(owner, []).append(node)
    return groups


def _counters(roles: list[Role]) -> dict[str, int]:
    return {
        "int8 anchors": roles.count(Role.ANCHOR),
        "int8 joins": roles.count(Role.JOIN),
        "int8 movers": roles.count(Role.MOVE),
        "scalings absorbed": roles.count(Role.SCALE),
    }


def _explained(skip: Skip, declined: dict[str, str]) -> Skip:
    return Skip(skip.node, skip.op_type, declined.get(skip.node, skip.reason))


def _unsuited(placement: Placement, ranges: dict[str, Range]) -> dict[str, str]:
    """Name the nodes whose tensors no single scale can serve, and why."""
    found = {}
    for node, role in placement.roles.items():
        operands = [ranges[str(value.name)] for value in activations(node, role)]
        results = [] if role in (Role.MOVE, Role.SCALE) else [ranges[str(placement.output(node).name)]]
        if not all(measured.finite for measured in operands + results):
            found[str(node.name)] = "a tensor takes infinite values"
        elif (limit := _MOST_SPREAD.get(node.op_type)) is not None:
            constants = [tensor.numpy() for value in node.inputs if (tensor := constant(value)) is not None]
            widths = [*(measured.width for measured in operands), *(float(np.ptp(array)) for array in constants)]
            used = [width for width in widths if width > 0]
            if used and max(used) > limit * min(used):
                found[str(node.name)] = f"its inputs differ {max(used) / min(used):.3g}x in range"
    return found


def _stayed_float(work: ir.Model, promised: dict[str, str], target: Target) -> dict[str, str]:
    """Name the promised nodes that onnxruntime's optimised graph still runs as the same float operator."""
    with materialized(work) as source:
        optimized = from_proto(onnx.ModelProto.FromString(optimized_graph(source, int8=target.activations == "int8")))
    fused_away = {"Conv": {"Conv", "FusedConv"}, "Gemm": {"Gemm", "FusedGemm"}, "MatMul": {"MatMul", "FusedMatMul"}}
    kept = {(str(node.name).removeprefix("fused "), node.op_type): node for node in optimized.graph}  # with a Relu
    found = {}
    for name, op_type in promised.items():
        for kind in fused_away.get(op_type, {op_type}):
            node = kept.get((name, kind))
            if node is not None and any(_is_dequantized(v) for v in node.inputs):
                found[name] = "onnxruntime does not fuse it"
    return found


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"
