"""Targets: what a choice of channels costs is told exactly, and each target is met within one step of rounding."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.costs import macs
from onnxcomp.data import Samples, open_samples
from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import input_specs, parameter_count
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.allocate import Ladder, allocated
from onnxcomp.passes.prune.channels import PruneChannels
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.pricing import Costs, Counted, price
from onnxcomp.passes.prune.shrink import shrunk
from onnxcomp.passes.prune.study import curves_of, study_of
from onnxcomp.passes.prune.trace import shapes_of
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES, feed
from tests.passes.prune.builder import STYLES, Net

pytestmark = pytest.mark.untraced

MIXED = (
    "resnet-basic",
    "mobilenet-v2",
    "densenet",
    "unet",
    "shufflenet-v2",
    "resnext",
    "grouped-query-decoder",
    "lstm",
)


def network(name: str = "resnet-basic", runs: int = 3, style: str = "plain") -> tuple[ir.Model, PassContext, Samples]:
    proto = ARCHITECTURES[name].build(Net(STYLES[style]))
    for node in proto.graph.node:
        if node.op_type == "Constant":
            node.attribute[0].t.ClearField("name")  # as exporters leave it
    model = load(proto.SerializeToString())
    samples = open_samples([feed(proto, seed) for seed in range(runs)], input_specs(model))
    return model, PassContext(get_target("cpu-x86-vnni"), samples=samples), samples


def operations(model: ir.Model, ctx: PassContext) -> int:
    """Count the MACs of a run with its first sample."""
    assert ctx.samples is not None
    shapes = shapes_of(model, next(iter(ctx.samples)))
    for node in model.graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None and str(value.name) in shapes:
                value.shape = ir.Shape(shapes[str(value.name)])
    return sum(macs(node) or 0 for node in model.graph)


@pytest.mark.parametrize("name", MIXED)
def test_costs_are_those_of_the_model_that_is_then_made(name: str) -> None:
    model, ctx, _ = network(name)
    prepared = prepare(model, ctx)
    channels = discover(prepared, ctx)
    rng = np.random.default_rng(0)
    counts = np.array([rng.integers(1, group.channels + 1) for group in channels.groups])
    kept = {
        group.name: rng.permutation(np.arange(group.channels) < count)
        for group, count in zip(channels.groups, counts, strict=True)
    }
    small = shrunk(prepared, channels, kept, ctx)
    every = np.array([group.channels for group in channels.groups])
    for measure, before, after in (
        ("macs", operations(prepared, ctx), operations(small, ctx)),
        ("params", parameter_count(prepared), parameter_count(small)),
    ):
        costs = price(prepared, channels, measure)  # type: ignore[arg-type]
        assert costs.of(channels.table({})) == pytest.approx(before)
        assert costs.of(channels.table(kept)) == pytest.approx(after, rel=1e-9 if measure == "macs" else 0.01)
        assert Counted(costs, channels).of(every) == pytest.approx(before)
        assert Counted(costs, channels).of(counts) == pytest.approx(costs.of(channels.table(kept)))


def test_slopes_are_what_a_channel_costs() -> None:
    model, ctx, _ = network("unet")
    channels = discover(prepared := prepare(model, ctx), ctx)
    cost = Counted(price(prepared, channels, "params"), channels)
    counts = np.array([group.channels // 2 for group in channels.groups])
    for number, slope in enumerate(cost.slopes(counts)):
        step = np.eye(len(counts), dtype=np.int64)[number]
        assert (cost.of(counts + step) - cost.of(counts - step)) / 2 == pytest.approx(slope)


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("measure", ["macs", "params"])
def test_a_share_of_the_cost_is_met_within_one_step(measure: str, allocation: str) -> None:
    model, ctx, _ = network()
    study = study_of(model, ctx, granularity="head")
    costs = price(study.model, study.channels, measure)  # type: ignore[arg-type]
    whole = costs.of(study.channels.table({}))
    pruner = PruneChannels.from_settings({measure: 0.6, "allocation": allocation, "round": 2})
    stats = pruner.run(model, ctx)
    assert stats.modified
    assert not any("can't give more" in skip.reason for skip in ctx.skipped)
    left = study_of(model, ctx, granularity="head")
    counts = {group.name: group.channels for group in left.channels.groups}
    cost = Counted(costs, study.channels)
    now = np.array([counts[group.name] for group in study.channels.groups])
    assert cost.of(now) <= 0.6 * whole
    for number, group in enumerate(study.channels.groups):
        if now[number] < group.channels:
            more = now + 2 * np.eye(len(now), dtype=np.int64)[number]
            assert cost.of(more) > 0.6 * whole, group.name


def test_a_target_that_cannot_be_met_is_told_with_what_was_reached() -> None:
    model, ctx, _ = network()
    assert PruneChannels.from_settings({"macs": 0.001, "round": 1}).run(model, ctx).modified
    assert any("is left, not 0.1%" in skip.reason for skip in ctx.skipped)


def test_channels_go_where_they_cost_least_for_what_they_save() -> None:
    """Two groups: one that is worth nothing, and one that is worth all, at the same price."""
    one, two = np.zeros(4, np.int32), np.zeros(4, np.int32)
    one[:], two[:] = np.arange(1, 5), np.arange(5, 9)
    costs = Costs(10.0, np.array([1.0, 1.0]), [[one], [two]])

    class Groups:
        """What `Counted` looks at."""

        count = 9
        groups = (type("G", (), {"labels": one, "channels": 4}), type("G", (), {"labels": two, "channels": 4}))

    steps = np.array([4, 3, 2, 1])
    cheap, dear = Ladder(steps, np.array([0, 0.1, 0.1, 0.2])), Ladder(steps, np.array([0, 1.0, 2.0, 3.0]))
    cost = Counted(costs, Groups())  # type: ignore[arg-type]
    assert cost.of(np.array([4, 4])) == 18
    assert allocated([cheap, dear], cost, 16).tolist() == [2, 4]
    assert allocated([cheap, dear], cost, 14.5).tolist() == [1, 3]
    assert allocated([cheap, dear], cost, 1).tolist() == [1, 1]


def test_what_was_measured_is_asked_once() -> None:
    model, ctx, samples = network(style="constants")
    reads = 0

    class Counting(type(samples)):  # type: ignore[misc]
        def __iter__(self) -> object:
            nonlocal reads
            reads += 1
            return super().__iter__()

    samples.__class__ = Counting
    ctx.findings.clear()
    first = model.clone()
    assert PruneChannels.from_settings({"macs": 0.8}).run(first, ctx).modified
    known = reads
    second, ctx.origin = model.clone(), None  # another recipe begins
    assert PruneChannels.from_settings({"macs": 0.5}).run(second, ctx).modified
    assert known == reads > 0
    assert parameter_count(second) < parameter_count(first)
    study = study_of(model, ctx, granularity="head")
    curves = curves_of(study, ctx, criterion="auto", seed=0)
    assert all(curves[group.name].order.size == group.channels for group in study.channels.groups)


@pytest.mark.parametrize(
    "settings", [{"ratio": 0.5, "macs": 0.5}, {"macs": 0.0}, {"params": 1.5}, {"allocation": "even"}]
)
def test_targets_out_of_range_or_two_at_once_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        PruneChannels.from_settings(settings)


def test_obs_without_samples_is_refused() -> None:
    model, ctx, _ = network()
    ctx.samples = None
    with pytest.raises(PassError, match="samples"):
        PruneChannels.from_settings({"criterion": "obs"}).run(model, ctx)
    assert PruneChannels.from_settings({"round": 1}).run(model, ctx).modified  # auto: told from the weights
