"""For every node of a model: would it run in int8 on a target, and if not, why. The passes themselves are asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp import registry
from onnxcomp.api.shapes import count_costs
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import ModelError, OnnxCompError
from onnxcomp.facts import is_quantized_op, name_nodes
from onnxcomp.model import infer_shapes
from onnxcomp.passbase import PassContext, Unit
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.inspection import Placement, Verdict
from onnxcomp.search.candidates import cleanup
from onnxcomp.statistics import RangeStore
from onnxcomp.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["place"]

_UPGRADE = Step("upgrade-opset", {"minimum": 13})  # as every static candidate of `optimize` begins
_GONE = "clean-up folds it away or merges it with others"
_PLANNED = "planned from the graph; --calibration also checks ranges and what onnxruntime fuses"
_CHECKED = "checked with calibration ranges and with the graph that onnxruntime makes of it"
_RANGED = "checked with calibration ranges; what the runtime there fuses is known from documentation alone"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one pass says: the nodes that it takes, by name, with a remark; and why it declines others."""

    taken: Mapping[str, str]
    declined: Mapping[str, str]
    otherwise: str = ""  # the reason for all nodes, where the pass does not run at all


def place(model: "ir.Model", target: Target, *, feed: Feed, calibration: Samples | None, runs: bool) -> Placement:
    """Ask static and dynamic quantization about every node, after the clean-up that `optimize` begins with.

    Args:
        model: Not changed.
        target: Where it would run.
        feed: One run, for proving the clean-up.
        calibration: Samples for ranges; without them only the graph is asked.
        runs: Whether onnxruntime takes the model: only then it is cleaned up.
    """
    named = model.clone()
    name_nodes(named.graph)
    before = {str(node.name): node for node in named.graph if node.op_type != "Constant"}
    work, cleaned = _cleaned(named, target, feed) if runs and feed else (named, False)
    name_nodes(work.graph)
    _infer(work)
    static = _static(work, target, calibration if cleaned else None)
    dynamic = _dynamic(work, target)
    after = {str(node.name) for node in work.graph}
    counted = count_costs(work, feed)
    costs = {str(node.name): counted.macs[node] for node in counted.model.graph}
    verdicts = [_verdict(node, target, static, dynamic, costs.get(str(node.name))) for node in work.graph]
    verdicts += [
        Verdict(name, node.op_type, False, _GONE, False, _GONE, None)
        for name, node in before.items()
        if name not in after
    ]
    in_bodies = _Answer({}, {}, "it is in a body of If, Loop or Scan: left as it is")
    verdicts += [
        _verdict(node, target, in_bodies, dynamic, None)
        for node in work.graph.all_nodes()
        if node.graph is not work.graph
    ]
    known = _CHECKED if target.readable else _RANGED
    checked = known if cleaned and calibration is not None else _PLANNED
    return Placement(target.name, checked if cleaned else f"{checked}; not cleaned up first", tuple(verdicts))


def _cleaned(model: "ir.Model", target: Target, feed: Feed) -> "tuple[ir.Model, bool]":
    """Return the model as quantization would get it, and whether that worked."""
    recipe = Recipe((*cleanup().steps, _UPGRADE))
    try:
        return run_recipe(model, recipe, PassContext(target=target), Verifier(model, [feed]))[0].clone(), True
    except OnnxCompError:  # it does not run on this sample; the graph can be looked at as it is
        return model, False


def _infer(model: "ir.Model") -> None:
    try:
        infer_shapes(model)
    except ModelError:  # types stay unknown, which is what the passes then give as their reason
        return


def _static(model: "ir.Model", target: Target, calibration: Samples | None) -> _Answer:
    if target.no_static is not None:
        return _Answer({}, {}, target.no_static)
    made = registry.pass_class("quantize-static")()
    ctx = PassContext(target=target, samples=calibration)
    try:
        units = made.units(model, ctx)
        if calibration is not None:
            ctx.skipped.clear()
            ctx.ranges = RangeStore(model, calibration)
            stats = made.run(model.clone(), ctx)
            if not stats.modified and units and not ctx.skipped:
                return _Answer({}, {}, next((s.reason for s in stats.skipped), "onnxruntime fuses no plan of it"))
    except OnnxCompError as err:
        return _Answer({}, {}, str(err))
    return _answer(units, ctx)


def _dynamic(model: "ir.Model", target: Target) -> _Answer:
    made = registry.pass_class("quantize-dynamic")()
    ctx = PassContext(target=target)
    try:
        units = made.units(model, ctx)
        stats = made.run(model.clone(), ctx)
    except OnnxCompError as err:
        return _Answer({}, {}, str(err))
    if units and not stats.modified and stats.skipped:
        return _Answer({}, {}, stats.skipped[0].reason)
    return _answer(units, ctx)


def _answer(units: list[Unit], ctx: PassContext) -> _Answer:
    declined = {skip.node: skip.reason for skip in ctx.skipped}
    taken = {name: "" for unit in units for name in unit.nodes if name not in declined}
    for unit in units:
        if not set(unit.nodes).issubset(declined):
            taken |= dict.fromkeys(unit.tails, "the quantizer before it does its work")
    return _Answer(taken, declined)


def _verdict(node: "ir.Node", target: Target, static: _Answer, dynamic: _Answer, cost: int | None) -> Verdict:
    name = str(node.name)
    if is_quantized_op(node.op_type):
        remark = "it is an operator for integers already"
        return Verdict(name, node.op_type, True, remark, True, remark, cost)
    general = f"onnxcomp does not touch operators of {node.domain}" if node.domain else None
    verdicts = []
    for answer, unknown in (
        (static, f"no integer kernel of this type on {target.name}"),
        (dynamic, "no dynamic integer form of this type"),
    ):
        takes = name in answer.taken
        reason = answer.taken[name] if takes else general or answer.declined.get(name) or answer.otherwise or unknown
        verdicts.append((takes, reason))
    return Verdict(name, node.op_type, *verdicts[0], *verdicts[1], cost)
