"""The pass that prunes channels: criteria, settings, what it declines, and that a wrong mask would show."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.shrink import masked
from onnxcomp.passes.prune.trace import inputs_for
from onnxcomp.passes.prune.verify import difference, verified
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES
from tests.passes.prune.builder import Net


def context() -> PassContext:
    return PassContext(get_target("cpu-x86-vnni"))


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


def test_a_unit_is_left_out_by_the_names_of_its_nodes() -> None:
    proto = ARCHITECTURES["resnet-basic"].build(Net())
    model, ctx = load(proto.SerializeToString()), context()
    units = PruneChannels(PruneChannelsConfig(round=1)).units(model, ctx)
    ctx.skipped.clear()
    stats = PruneChannels(PruneChannelsConfig(round=1, exclude=units[0].nodes)).run(model, ctx)
    assert stats.counters["groups pruned"] == len(units) - 1
    assert "excluded" in [skip.reason for skip in ctx.skipped]


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
