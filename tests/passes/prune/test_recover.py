"""Recovery after pruning: what can be made up for is, nothing gets worse, and it composes."""

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
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.recover import Recover, RecoverConfig
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES
from tests.passes.prune.builder import Net

pytestmark = pytest.mark.untraced

Parse = Callable[..., onnx.ModelProto]

# Blocks of a residual net; each reads x [N, 6, 8, 8] and gives the same shape. Weights come twice: the second half of
# the channels of "in" is the first half, made smaller, so that whoever reads them can do without.
BLOCKS = {
    "conv": "h = Conv <pads = [1, 1, 1, 1]> (x, in, b) r = Relu(h) z = Conv <pads = [1, 1, 1, 1]> (r, out)",
    "depthwise": """h = Conv <pads = [1, 1, 1, 1]> (x, in, b) r = Relu(h)
        d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, deep) e = Relu(d) z = Conv <pads = [1, 1, 1, 1]> (e, out)""",
    "transposed": """h = Conv <pads = [1, 1, 1, 1]> (x, in, b) r = Relu(h)
        z = ConvTranspose <pads = [1, 1, 1, 1]> (r, turned, b6)""",
    "matmul": """t = Transpose <perm = [0, 2, 3, 1]> (x) m = MatMul(t, first) h = Add(m, b) r = Relu(h)
        n = MatMul(r, second) o = Add(n, b6) z = Transpose <perm = [0, 3, 1, 2]> (o)""",
}


def doubled(rows: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.concatenate([rows, rows * 0.25], axis=axis)


def block(parse: Parse, name: str) -> ir.Model:
    rng = np.random.default_rng(0)
    weights = {
        "in": doubled(rng.normal(size=(4, 6, 3, 3))),
        "b": doubled(rng.normal(size=4)),
        "out": rng.normal(size=(6, 8, 3, 3)),
        "deep": np.concatenate([rng.normal(size=(4, 1, 3, 3))] * 2),
        "turned": rng.normal(size=(8, 6, 3, 3)),
        "first": doubled(rng.normal(size=(6, 4)), axis=1),
        "second": rng.normal(size=(8, 6)),
        "b6": rng.normal(size=6),
        "last": rng.normal(size=(6, 6, 1, 1)),
    }
    body = f"{BLOCKS[name]} s = Add(x, z) q = Relu(s) y = Conv(q, last)"
    text = f"g (float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y) {{ {body} }}"
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return load(parse(text, {k: v for k, v in weights.items() if k in words}).SerializeToString())


def images(*shape: int, runs: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(runs)]


def context(samples: Any) -> PassContext:
    return PassContext(get_target("cpu-x86-vnni"), samples=samples, threads=1)


def error(model: ir.Model, other: ir.Model, feeds: list[dict[str, np.ndarray]]) -> float:
    """Power of the difference of two models' outputs as a share of the first one's."""
    pairs = [(open_session(m).run(feed) for m in (model, other)) for feed in feeds]
    total, wrong = 0.0, 0.0
    for one, two in pairs:
        for name, value in one.items():
            expected = np.asarray(value, np.float64)
            total += float(np.square(expected).sum())
            wrong += float(np.square(expected - np.asarray(two[name])).sum())
    return wrong / total


@pytest.mark.parametrize("name", BLOCKS)
def test_channels_that_others_can_stand_in_for_are_made_up_for_exactly(parse: Parse, samples: Any, name: str) -> None:
    original = block(parse, name)
    model, ctx = original.clone(), context(samples(images(2, 6, 8, 8, runs=16)))
    assert PruneChannels(PruneChannelsConfig(ratio=0.5, round=1)).run(model, ctx).counters["channels removed"] == 4
    unseen = images(1, 6, 8, 8, runs=3, seed=7)
    sliced = error(original, model, unseen)
    stats = Recover().run(model, ctx)
    assert stats.modified
    assert sliced > 1e-3
    assert error(original, model, unseen) < 1e-7


def test_each_method_takes_most_of_the_error_of_a_shifted_mean_away(samples: Any) -> None:
    proto = ARCHITECTURES["resnet-basic"].build(Net())
    original = load(proto.SerializeToString())
    name, shape = proto.graph.input[0].name, [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{name: f["x"]} for f in images(*shape, runs=40)]
    unseen = [{name: f["x"]} for f in images(*shape, runs=4, seed=5)]
    errors = []
    for method in (None, "bias", "affine", "least-squares"):
        model, ctx = original.clone(), context(samples(feeds))
        PruneChannels(PruneChannelsConfig(ratio=0.5, round=1)).run(model, ctx)
        if method is not None:
            assert Recover(RecoverConfig(method=method)).run(model, ctx).modified  # type: ignore[arg-type]
        errors.append(error(original, model, unseen))
    assert max(errors[1:]) < 0.1 * errors[0]


@pytest.mark.parametrize("name", ["vit", "shufflenet-v2"])
def test_pruning_and_recovering_twice_ends_closer_than_pruning_twice(samples: Any, name: str) -> None:
    proto = ARCHITECTURES[name].build(Net())
    model = load(proto.SerializeToString())
    known, shape = proto.graph.input[0].name, [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{known: f["x"]} for f in images(*shape, runs=24)]
    ctx = context(samples(feeds))
    ctx.ranges = RangeStore(model, ctx.samples)
    found = {}
    prune = Step("prune-channels", {"ratio": 0.3, "round": 1})
    for label, steps in {"pruned": (prune,) * 2, "recovered": (prune, Step("recover"), prune, Step("recover"))}.items():
        result, reports = run_recipe(model, Recipe(steps), ctx, Verifier(model, feeds[:2]))
        assert all(report.modified for report in reports), reports
        onnx.checker.check_model(ir.to_proto(result), full_check=True)
        found[label] = error(model, result, [{known: f["x"]} for f in images(*shape, runs=3, seed=5)])
    assert found["recovered"] < found["pruned"]


def test_half_of_a_trained_network_is_recovered_from_a_few_samples(sample_models: Path) -> None:
    original = load(sample_models / "resnet8" / "model.onnx")
    samples = open_samples(sample_models / "fashion_mnist" / "calibration.npz", input_specs(original)).take(64)
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        pixels, labels = rows["image"][:500], rows["labels"][:500]
    streams = ("/net/net.0/Conv", "/net/net.4/conv2/Conv", "/net/net.5/conv2/Conv")
    model, ctx, scores = original.clone(), context(samples), []
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, exclude=streams)).run(model, ctx)
    for recovered in (False, True):
        if recovered:
            assert Recover().run(model, ctx).modified
        (answers,) = open_session(model).run({"image": pixels}).values()
        scores.append(float((np.argmax(answers, axis=1) == labels).mean()))
    assert scores[0] < 0.4
    assert scores[1] > 0.85


def test_without_samples_or_a_step_that_prunes_it_says_what_is_missing(parse: Parse, samples: Any) -> None:
    model = block(parse, "conv")
    with pytest.raises(PassError, match="calibration samples"):
        Recover().run(model, context(None))
    with pytest.raises(PassError, match="nothing was pruned"):
        Recover().run(model, context(samples(images(1, 6, 8, 8, runs=2))))


def test_it_declines_what_is_excluded_and_leaves_what_lost_nothing(parse: Parse, samples: Any) -> None:
    original = block(parse, "conv")
    model, ctx = original.clone(), context(samples(images(1, 6, 8, 8, runs=8)))
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1)).run(model, ctx)
    ctx.skipped.clear()
    readers = tuple(str(node.name) for node in model.graph if node.op_type == "Conv")[1:]
    before = serialized(model)
    assert not Recover(RecoverConfig(exclude=readers)).run(model, ctx).modified
    assert serialized(model) == before
    assert [skip.reason for skip in ctx.skipped] == ["excluded"] * 2


def test_a_fit_to_too_few_samples_does_no_harm(parse: Parse, samples: Any) -> None:
    """One run of 8 rows says little about 24 weights per output: what it does say must not cost elsewhere."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(4, 48)), "w": rng.normal(size=(48, 6)) * np.linspace(1, 0.1, 48)[:, None]}
    proto = parse("g (float[N, 4] x) => (float[N, 6] y) { h = Gemm(x, a) r = Relu(h) y = Gemm(r, w) }", weights)
    original = load(proto.SerializeToString())
    model, ctx = original.clone(), context(samples(images(8, 4, runs=1)))
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, criterion="l2")).run(model, ctx)
    unseen = images(64, 4, runs=3, seed=3)
    sliced = error(original, model, unseen)
    Recover().run(model, ctx)
    assert error(original, model, unseen) < sliced


def test_weights_that_were_set_to_zero_stay_zero(parse: Parse, samples: Any) -> None:
    model, ctx = block(parse, "conv"), context(samples(images(1, 6, 8, 8, runs=8)))
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1)).run(model, ctx)
    before = {}
    for node in model.graph:
        value = node.inputs[1] if node.op_type == "Conv" else None
        if value is not None and value.const_value is not None:
            array = value.const_value.numpy() * (np.random.default_rng(0).random(value.const_value.shape.numpy()) < 0.5)
            value.const_value = ir.tensor(array, name=value.name)
            before[str(node.name)] = array == 0
    assert Recover().run(model, ctx).modified
    for node in model.graph:
        if node.op_type == "Conv":
            (value,) = (v for v in node.inputs[1:2] if v is not None)
            assert value.const_value is not None
            np.testing.assert_array_equal(value.const_value.numpy() == 0, before[str(node.name)])


def test_progress_counts_to_its_end(parse: Parse, samples: Any) -> None:
    model, ctx = block(parse, "depthwise"), context(samples(images(1, 6, 8, 8, runs=4)))
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1)).run(model, ctx)
    seen: list[tuple[int, int | None]] = []
    ctx.progress = lambda done, total: seen.append((done, total))
    Recover().run(model, ctx)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert {total for _, total in seen} == {seen[-1][1]}


@pytest.mark.parametrize(
    "setting", [{"damping": -1.0}, {"damping": 2.0}, {"positions": 0}, {"runs": 1}, {"spare": 1}, {"method": "x"}]
)
def test_wrong_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Recover.from_settings(setting)
