"""What a recipe remembers of the model that it began to prune."""

import numpy as np
import pytest

from onnxcomp.model import load
from onnxcomp.passbase import Origin, PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.trace import inputs_for, shapes_of
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.statistics import inner_values
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES
from tests.passes.prune.builder import Net


@pytest.mark.parametrize("name", ["resnet-basic", "shufflenet-v2", "vit"])
def test_indices_of_two_steps_name_what_is_left_of_the_first_model(name: str) -> None:
    model = load(ARCHITECTURES[name].build(Net()).SerializeToString())
    ctx = PassContext(get_target("cpu-x86-vnni"))
    for step in range(2):
        feed = inputs_for(model, None, seed=0)
        assert PruneChannels(PruneChannelsConfig(ratio=0.4, round=1)).run(model, ctx).modified, step
    origin = ctx.origin
    assert origin is not None
    before, after = shapes_of(origin.model, feed), shapes_of(model, feed)
    cut = 0
    for tensor in set(inner_values(model)) & set(inner_values(origin.model)) & set(before):
        kept = origin.kept.get(tensor, {})
        for axis, size in enumerate(before[tensor]):
            indices = kept.get(axis, np.arange(size))
            assert len(indices) == after[tensor][axis], (tensor, axis)
            assert (np.diff(indices) > 0).all()
            assert indices[-1] < size
            cut += len(indices) < size
    assert cut > 5


def test_a_recipe_begins_without_an_origin_and_forgets_that_of_a_step_that_changed_nothing() -> None:
    model = load(ARCHITECTURES["resnet-basic"].build(Net()).SerializeToString())
    ctx = PassContext(get_target("cpu-x86-vnni"), origin=Origin(model))
    verifier = Verifier(model, [inputs_for(model, None, seed=0)])
    run_recipe(model, Recipe((Step("prune-channels", {"ratio": 0.0}),)), ctx, verifier)
    assert ctx.origin is None
    run_recipe(model, Recipe((Step("prune-channels", {"ratio": 0.5}),) * 2), ctx, verifier)
    assert ctx.origin is not None
    assert ctx.origin.kept
