"""A latency target with a made-up clock: met within one step, slower layers given back, measuring bounded."""

from collections.abc import Mapping

import onnx_ir as ir
import pytest

from onnxcomp.costs import macs
from onnxcomp.data import Feed, open_samples
from onnxcomp.errors import PassError
from onnxcomp.facts import input_specs
from onnxcomp.measure import Stopwatch
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels
from onnxcomp.passes.prune.study import study_of
from onnxcomp.passes.prune.trace import shapes_of
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES, feed
from tests.passes.prune.builder import Net

pytestmark = pytest.mark.untraced

NAME = "resnet-basic"


class Clock:
    """Every operator takes a microsecond, and every thousand MACs one more; one layer may be odd.

    Args:
        odd: A layer that takes the longer, the smaller it is.
    """

    def __init__(self, odd: str = "") -> None:
        self.odd = odd
        self.trials = 0
        self.seconds = 0.0

    def nodes(self, model: ir.Model, feed: Feed) -> Mapping[str, float]:
        shapes = shapes_of(model, feed)
        copy = model.clone()
        for node in copy.graph:
            for value in (*node.inputs, *node.outputs):
                if value is not None and str(value.name) in shapes:
                    value.shape = ir.Shape(shapes[str(value.name)])
        found = {str(node.name): 1e-6 + 1e-9 * (macs(node) or 0) for node in copy.graph}
        return found | {name: 1e-9 / taken for name, taken in found.items() if name == self.odd}

    def ratio(self, model: ir.Model, baseline: ir.Model, feed: Feed, *, seconds: float) -> float:
        self.trials += 1
        self.seconds += seconds
        return sum(self.nodes(model, feed).values()) / sum(self.nodes(baseline, feed).values())


def network(clock: Clock | None) -> tuple[ir.Model, PassContext, Feed]:
    proto = ARCHITECTURES[NAME].build(Net())
    model = load(proto.SerializeToString())
    samples = open_samples([feed(proto, seed) for seed in range(3)], input_specs(model))
    return model, PassContext(get_target("cpu-x86-vnni"), samples=samples, timer=clock), feed(proto)


def left(model: ir.Model) -> dict[str, int]:
    study = study_of(model, PassContext(get_target("cpu-x86-vnni")), granularity="head")
    return {group.name: group.channels for group in study.channels.groups}


def test_a_share_of_the_latency_is_met_within_one_step() -> None:
    clock = Clock()
    model, ctx, sample = network(clock)
    whole, before = model.clone(), left(model)
    settings = {"latency": 0.7, "round": 2, "seconds": 5.0}
    assert PruneChannels.from_settings(settings).run(model, ctx).modified
    assert 0 < clock.trials <= 11
    assert clock.seconds <= 5.5
    counts = left(model)
    assert clock.ratio(model, whole, sample, seconds=0) <= 0.7
    for name, count in counts.items():
        if count < before[name]:
            other, ctx.origin = whole.clone(), None
            PruneChannels.from_settings({"keep": counts | {name: count + 2}}).run(other, ctx)
            assert clock.ratio(other, whole, sample, seconds=0) > 0.7, name


def test_what_got_slower_is_given_back() -> None:
    model, ctx, _ = network(clock := Clock())
    before = left(model)
    name = next(iter(before))
    clock.odd = name
    assert PruneChannels.from_settings({"latency": 0.8, "round": 2, "seconds": 5.0}).run(model, ctx).modified
    assert left(model)[name] == before[name]


def test_a_latency_that_cannot_be_reached_is_told() -> None:
    model, ctx, _ = network(Clock())
    assert PruneChannels.from_settings({"latency": 0.01, "round": 1}).run(model, ctx).modified
    assert any("latency: " in skip.reason and "not 1.0%" in skip.reason for skip in ctx.skipped)


@pytest.mark.parametrize(("clock", "target"), [(None, "cpu-x86-vnni"), (Clock(), "tensorrt")])
def test_where_nothing_can_be_timed_it_is_refused(clock: Clock | None, target: str) -> None:
    model, ctx, _ = network(clock)
    ctx.target = get_target(target)
    with pytest.raises(PassError, match="can't be measured"):
        PruneChannels.from_settings({"latency": 0.5}).run(model, ctx)


def test_the_real_clock_times_nodes_and_models() -> None:
    model, _, sample = network(None)
    small = model.clone()
    PruneChannels.from_settings({"ratio": 0.9, "round": 1}).run(small, PassContext(get_target("cpu-x86-vnni")))
    clock = Stopwatch()
    assert {"fc", "stem"} <= set(clock.nodes(model, sample))
    assert clock.ratio(small, model, sample, seconds=0.2) > 0
