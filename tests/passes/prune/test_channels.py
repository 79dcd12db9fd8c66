"""Pruning channels: what is found, what is exact, what is declined, on the architectures and on random graphs."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.select import protected
from onnxcomp.passes.prune.shrink import masked
from onnxcomp.passes.prune.trace import inputs_for
from onnxcomp.passes.prune.verify import difference, verified
from onnxcomp.target import get_target
from tests.passes.prune.architecture import Architecture
from tests.passes.prune.architectures import ARCHITECTURES, feed
from tests.passes.prune.builder import STYLES, Net, Style


def context() -> PassContext:
    return PassContext(get_target("cpu-x86-vnni"))


# What is not there yet: groups of a convolution that keep different positions, widths that RMS norms measure, and sizes
# that a graph computes from its channels
COARSER = {"resnext"}
PARTLY = {"grouped-query-decoder"}
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


@EVERY
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_every_group_is_found_and_keeps_exactly_half(architecture: Architecture, style: Style) -> None:
    proto = architecture.build(Net(style))
    ctx = context()
    model = prepare(load(proto.SerializeToString()), ctx)
    channels = discover(model, ctx, feed=feed(proto))
    found = {frozenset(item.node for item in group.producers): group.channels for group in channels.groups}
    wanted = {frozenset(members.split()): count for members, count in architecture.groups.items()}
    if architecture in [ARCHITECTURES[name] for name in COARSER]:
        assert set(found) == set(wanted)
    elif style.chains or architecture in [ARCHITECTURES[name] for name in PARTLY]:
        assert found.items() <= wanted.items()
    else:
        assert found == wanted
    rng = np.random.default_rng(0)
    kept = {g.name: rng.permutation(g.channels) < g.channels // 2 for g in channels.groups}
    kept = protected(channels, kept, {g.name: np.ones(g.channels) for g in channels.groups})
    result = verified(model, channels, kept, feed(proto), ctx)
    assert result.declined == {}
    for batch in (2, 3) if style.dynamic else (2,):
        other = feed(proto, seed=1, batch=batch)
        assert difference(masked(model, channels, kept), result.model, other) < 1e-5
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "batch-norm", "random"])
def test_the_pass_removes_half_and_runs(criterion: str) -> None:
    proto = ARCHITECTURES["resnet-basic"].build(Net())
    model, ctx = load(proto.SerializeToString()), context()
    before = ir.to_proto(model)
    config = PruneChannelsConfig(ratio=0.5, criterion=criterion, round=1)  # type: ignore[arg-type]
    stats = PruneChannels(config).run(model, ctx)
    assert stats.modified
    assert stats.counters["groups pruned"] > 2
    assert ir.to_proto(model).ByteSize() < before.ByteSize() * 0.5
    assert any("output of the model" in skip.reason for skip in ctx.skipped)
    again = load(model)
    assert PruneChannels(config).run(again, context()).modified  # prune after prune
    onnx.checker.check_model(ir.to_proto(again), full_check=True)


def test_it_declines_what_it_is_told_to_ignore_and_what_rounding_leaves_whole() -> None:
    proto = next(iter(ARCHITECTURES.values())).build(Net())
    for config, reason in (
        (PruneChannelsConfig(ratio=0.5, round=1, ignore=("*",)), "ignored"),
        (PruneChannelsConfig(ratio=0.1, round=1024), "rounded to 1024"),
    ):
        model, ctx = load(proto.SerializeToString()), context()
        before = ir.to_proto(model)
        assert not PruneChannels(config).run(model, ctx).modified
        assert ir.to_proto(model) == before
        assert any(reason in skip.reason for skip in ctx.skipped)


@pytest.mark.parametrize("setting", [{"ratio": 1.0}, {"ratio": -0.1}, {"round": -1}, {"criterion": "best"}])
def test_wrong_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        PruneChannels.from_settings(setting)


def test_a_wrong_mask_shows_in_the_comparison() -> None:
    proto = next(iter(ARCHITECTURES.values())).build(Net())
    ctx = context()
    model = prepare(load(proto.SerializeToString()), ctx)
    sample = inputs_for(model, None, seed=0)
    channels = discover(model, ctx, feed=sample)
    group = channels.groups[0]
    half = np.arange(group.channels) < group.channels // 2
    result = verified(model, channels, {group.name: half}, sample, ctx)
    other = masked(model, channels, {group.name: ~half})
    assert difference(other, result.model, sample) > 1e-2
