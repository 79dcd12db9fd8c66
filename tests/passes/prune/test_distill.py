"""Distillation after pruning: what layers can only make up for together is made up for, and nothing gets worse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.data import open_samples
from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import input_specs
from onnxcomp.model import load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.distill import Distill, DistillConfig
from onnxcomp.passes.prune.recover import Recover, RecoverConfig
from tests.passes.prune.test_recover import block, context, error, images

pytestmark = pytest.mark.untraced

Parse = Callable[..., onnx.ModelProto]


def pruned(original: ir.Model, ctx: PassContext, **settings: Any) -> ir.Model:
    model = original.clone()
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, **settings)).run(model, ctx)
    return model


@pytest.mark.parametrize("name", ["conv", "matmul"])
def test_it_comes_closer_than_layer_by_layer(parse: Parse, samples: Any, name: str) -> None:
    original, unseen = block(parse, name), images(1, 6, 8, 8, runs=8, seed=7)
    for value in original.graph.initializers.values():  # no half of the channels makes up for the other
        if value.name in ("in", "first", "b"):
            array = np.random.default_rng(3).normal(size=value.const_value.numpy().shape).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
    ctx = context(samples(images(1, 6, 8, 8, runs=24)))
    model = pruned(original, ctx)
    Recover().run(model, ctx)
    before = error(original, model, unseen)
    assert Distill(DistillConfig(epochs=20, batch=4)).run(model, ctx).modified
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert error(original, model, unseen) < 0.97 * before


def test_half_of_a_trained_network_comes_closer_to_the_original_by_moved_and_mixed_images(sample_models: Path) -> None:
    original = load(sample_models / "lenet_300_100" / "model.onnx")
    samples = open_samples(sample_models / "fashion_mnist" / "calibration.npz", input_specs(original)).take(200)
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        unseen = [{"image": rows["image"][:1000]}]
    ctx = context(samples)
    sliced = pruned(original, ctx)
    fitted = sliced.clone()
    assert Recover(RecoverConfig(spare=8)).run(fitted, ctx).modified
    errors = [error(original, sliced, unseen), error(original, fitted, unseen)]
    for config in (DistillConfig(epochs=16, shift=0, mix=0), DistillConfig(epochs=16)):
        model = fitted.clone()
        assert Distill(config).run(model, ctx).modified
        errors.append(error(original, model, unseen))
    assert errors[3] < 0.97 * errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize(
    ("rows", "body"),
    [
        ("N", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, v)"),
        ("8", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, v)"),  # takes no more rows than one run has
        ("N", "h = MatMul(x, a) m = ReduceMean <keepdims = 1> (h, first) s = Sub(h, m) r = Relu(s) y = MatMul(r, v)"),
    ],
)
def test_runs_side_by_side_give_what_they_give_alone(
    parse: Parse, samples: Any, monkeypatch: pytest.MonkeyPatch, rows: str, body: str
) -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(4, 16)), "v": rng.normal(size=(16, 4)), "first": np.array([0])}
    known = {name: array for name, array in weights.items() if name in body}
    text = f"g (float[{rows}, 4] x) => (float[{rows}, 4] y) {{ {body} }}"
    ctx = context(samples(images(8, 4, runs=16)))
    model = pruned(load(parse(text, known, opset=18).SerializeToString()), ctx)
    found = []
    for most in (1 << 24, 0):
        monkeypatch.setattr("onnxcomp.passes.prune.distill._BYTES", most)
        copy = model.clone()
        assert Distill(DistillConfig(epochs=3, batch=4)).run(copy, ctx).modified
        found.append({name: value.const_value.numpy() for name, value in copy.graph.initializers.items()})
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], rtol=1e-3, atol=1e-4)


def test_layers_before_an_operator_without_an_adjoint_stay_as_they_are(parse: Parse, samples: Any) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 16), "b": (16, 16), "w": (16, 16), "v": (16, 4)}
    body = "h = MatMul(x, a) r = Relu(h) k = MatMul(r, b) c = Mish(k) m = MatMul(c, w) q = Relu(m) y = MatMul(q, v)"
    proto = parse(
        f"g (float[N, 4] x) => (float[N, 4] y) {{ {body} }}",
        {name: rng.normal(size=size) for name, size in shapes.items()},
        opset=18,
    )
    ctx = context(samples(images(8, 4, runs=16)))
    model = pruned(load(proto.SerializeToString()), ctx)
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    assert Distill(DistillConfig(epochs=10)).run(model, ctx).modified
    changed = {
        name
        for name, old in before.items()
        if not np.array_equal(old, model.graph.initializers[name].const_value.numpy())
    }
    assert changed == {"w", "v"}
    assert [skip.reason for skip in ctx.skipped if "adjoint" in skip.reason]


def test_what_is_excluded_and_what_is_zero_stays(parse: Parse, samples: Any) -> None:
    original = block(parse, "conv")
    ctx = context(samples(images(1, 6, 8, 8, runs=8)))
    model = pruned(original, ctx)
    convs = [node for node in model.graph if node.op_type == "Conv"]
    weight = convs[1].inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    zeros = np.random.default_rng(0).random(weight.const_value.shape.numpy()) < 0.5
    weight.const_value = ir.tensor(np.where(zeros, 0, weight.const_value.numpy()).astype(np.float32), name=weight.name)
    first = convs[0].inputs[1].const_value.numpy().copy()
    assert Distill(DistillConfig(epochs=10, exclude=(str(convs[0].name),))).run(model, ctx).modified
    np.testing.assert_array_equal(weight.const_value.numpy() == 0, zeros)
    np.testing.assert_array_equal(convs[0].inputs[1].const_value.numpy(), first)


def test_where_nothing_is_better_on_held_out_runs_the_weights_stay(parse: Parse, samples: Any) -> None:
    original = block(parse, "conv")
    ctx = context(samples(images(1, 6, 8, 8, runs=8)))
    model = pruned(original, ctx)
    Recover().run(model, ctx)
    before = serialized(model)
    assert not Distill(DistillConfig(rate=0.99, epochs=1, batch=1)).run(model, ctx).modified
    assert serialized(model) == before
    assert {skip.reason for skip in ctx.skipped} >= {"no change makes it better on samples that were held out"}


def test_progress_counts_to_its_end(parse: Parse, samples: Any) -> None:
    ctx = context(samples(images(1, 6, 8, 8, runs=5)))
    model = pruned(block(parse, "conv"), ctx)
    seen: list[tuple[int, int | None]] = []
    ctx.progress = lambda done, total: seen.append((done, total))
    Distill(DistillConfig(epochs=2)).run(model, ctx)
    assert seen == sorted(set(seen))
    assert seen[-1] == (8, 8)


def test_without_samples_or_a_step_that_prunes_it_says_what_is_missing(parse: Parse, samples: Any) -> None:
    model = block(parse, "conv")
    with pytest.raises(PassError, match="calibration samples"):
        Distill().run(model, context(None))
    with pytest.raises(PassError, match="nothing was pruned"):
        Distill().run(model, context(samples(images(1, 6, 8, 8, runs=2))))


@pytest.mark.parametrize(
    "setting", [{"rate": 0.0}, {"rate": 1.0}, {"epochs": 0}, {"batch": 0}, {"runs": 1}, {"shift": 1.0}]
)
def test_wrong_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Distill.from_settings(setting)
