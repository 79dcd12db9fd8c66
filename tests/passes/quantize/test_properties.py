"""Quantized random networks are as near to the float ones as their scales say."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from onnxcomp.data import Samples
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.statistics import RangeStore
from onnxcomp.target import TARGETS, get_target
from onnxcomp.thresholds import METHODS
from tests.passes.quantize.error_bound import error_bounds
from tests.passes.quantize.random_graphs import networks

pytestmark = pytest.mark.untraced

EXACT = Recipe((Step("lift-constants"), Step("upgrade-opset", {"minimum": 13})))
EXPANDED = Recipe((*EXACT.steps, Step("expand-hard-swish")))
DYNAMIC = Step("quantize-dynamic", {"min_elements": 0})
INTEGER = ["auto", *(name for name, target in TARGETS.items() if target.roles)]
RUNS = 3


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Draw the quantizing part of a recipe."""
    kind = draw(st.sampled_from(["static", "static", "static+dynamic", "dynamic"]))
    if kind == "dynamic":
        return [DYNAMIC]
    anchors = draw(st.sampled_from([["Conv"], ["Conv", "Gemm", "MatMul"], ["Gemm", "MatMul"]]))
    found: dict[str, Any] = {"method": draw(st.sampled_from(sorted(METHODS))), "anchors": anchors}
    found["per_channel"] = draw(st.booleans())
    return [Step("quantize-static", found)] + [DYNAMIC] * (kind == "static+dynamic")


def hold(
    model: onnx.ModelProto, recipe: list[Step], target: str, samples: Callable[..., Samples], front: Recipe
) -> None:
    """Quantize a model and hold its answers to the bounds."""
    rng = np.random.default_rng(0)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(RUNS)]
    # onnxruntime on x86 turns int8 into uint8, and from opset 21 on it forgets the type of quantizers that it added
    assume(get_target(target).activations == "uint8" or model.opset_import[0].version < 21)
    original = load(model.SerializeToString())
    ctx = PassContext(get_target(target), samples=samples(feeds))
    verifier = Verifier(original, feeds)
    before, reports = run_recipe(original, front, ctx, verifier)
    assert [report.failure for report in reports if report.failure] == []
    ctx.ranges = RangeStore(before, ctx.samples)
    after, reports = run_recipe(before, Recipe(tuple(recipe)), ctx, verifier)
    assert [report.failure for report in reports if report.failure] == []
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    session, plain = open_session(after), open_session(original)
    for feed in feeds:
        bounds = error_bounds(ir.to_proto(before), proto, feed)
        wanted, got = plain.run(feed), session.run(feed)
        for name, bound in bounds.items():
            excess = np.abs(got[name].astype(np.float64) - wanted[name]) - bound
            assert excess.max(initial=0.0) <= 0, (name, float(excess.max()), float(bound.max()))


LIMITS: dict[str, Any] = {
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],  # a failure is reported as it is: shrinking takes minutes
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


def test_a_wrong_scale_leaves_the_bounds(parse: Any, samples: Any) -> None:
    """The bounds are not so wide that they would hide a weight's scale that is 10 % off."""
    model = parse("g (float[16, 8] x) => (float[16, 4] y) { [n] y = MatMul(x, w) }", {"w": np.eye(8, 4) + 0.1})
    feed = {"x": np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)}
    before = load(model.SerializeToString())
    ctx = PassContext(get_target("auto"), ranges=RangeStore(before, samples([feed])))
    after, _ = run_recipe(before, Recipe((Step("quantize-static"),)), ctx, Verifier(before, [feed]))
    bounds = error_bounds(ir.to_proto(before), ir.to_proto(after), feed)["y"]

    def error() -> np.ndarray:
        return np.abs(open_session(after).run(feed)["y"] - open_session(before).run(feed)["y"])

    assert (error() <= bounds).all()
    weight = next(node for node in after.graph if node.op_type == "MatMul").inputs[1].producer()
    scale = weight.inputs[1].const_value.numpy()
    weight.replace_input_with(1, GraphEditor(after.graph).constant(scale * np.float32(1.1)))
    assert (error() > bounds).any()


@settings(max_examples=120, **LIMITS)
@given(networks(), steps(), st.sampled_from(INTEGER), st.sampled_from([EXACT, EXPANDED]))
def test_the_error_is_what_the_scales_imply(
    samples: Any, model: onnx.ModelProto, recipe: list[Step], target: str, front: Recipe
) -> None:
    hold(model, recipe, target, samples, front)


@pytest.mark.slow
@pytest.mark.skipif("ONNXCOMP_SLOW" not in os.environ, reason="takes minutes: ONNXCOMP_SLOW=1 runs it")
@settings(max_examples=2000, **LIMITS)
@given(networks(), steps(), st.sampled_from(INTEGER), st.sampled_from([EXACT, EXPANDED]))
def test_the_error_is_what_the_scales_imply_in_many_networks(
    samples: Any, model: onnx.ModelProto, recipe: list[Step], target: str, front: Recipe
) -> None:
    hold(model, recipe, target, samples, front)
