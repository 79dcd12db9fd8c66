from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import ModelError, PassError, RecipeError
from onnxcomp.facts import name_nodes
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.dynamic import QuantizeDynamic
from onnxcomp.passes.quantize.rounding import RoundWeights, RoundWeightsConfig
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.statistics import RangeStore, columns_of
from onnxcomp.target import get_target
from onnxcomp.thresholds import quantize_weights

Parse = Callable[..., onnx.ModelProto]
ROUND = RoundWeights()
CONV = "Conv <pads = [1, 1, 1, 1]>"


def correlated(*shape: int, runs: int = 6, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Inputs whose channels (axis 1) have much in common, and means of their own."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, shape[1])) + 0.1
    mean = rng.normal(size=shape[1])
    found = []
    for _ in range(runs):
        hidden = rng.normal(size=(shape[0], *shape[2:], 3)) @ mixing
        x = hidden + mean + 0.1 * rng.normal(size=hidden.shape)
        found.append({"x": np.ascontiguousarray(np.moveaxis(x, -1, 1)).astype(np.float32)})
    return found


def image(nodes: str, *, channels: int = 8) -> str:
    return f"g (float[N, {channels}, H, W] x) => (float[N, M, I, J] y) {{ {nodes} }}"


def rows(nodes: str) -> str:
    return f"g (float[N, 16] x) => (float[N, M] y) {{ {nodes} }}"


def weights_of(model: ir.Model) -> dict[str, tuple[ir.Node, np.ndarray]]:
    found = {}
    for node in model.graph:
        if (columns := columns_of(node)) is not None:
            tensor = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
            found[str(node.outputs[0].name)] = node, columns.rows(tensor).reshape(-1, columns.length)
    return found


def output_errors(done: Any, feeds: list[dict[str, np.ndarray]]) -> float:
    before, after = open_session(done.before), open_session(done.after)
    return float(np.mean([((before.run(feed)["y"] - after.run(feed)["y"]) ** 2).mean() for feed in feeds]))


def nearest(model: ir.Model, *, bits: int) -> ir.Model:
    """Return a float model with all weights rounded to nearest."""
    copy = model.clone()
    for node, array in weights_of(copy).values():
        levels, scale = quantize_weights(array, axis=0, bits=bits)
        columns, value = columns_of(node), node.inputs[1]
        assert columns is not None
        assert value is not None
        assert value.const_value is not None
        rounded = columns.weight((levels * scale[:, None]).astype(np.float32), value.const_value.numpy().shape)
        value.const_value = ir.tensor(rounded, name=value.name)
    return copy


def unchanged(done: Any) -> bool:
    """Whether a pass left the model alone but for names of nodes without one."""
    name_nodes(done.before.graph)
    return bool(serialized(done.after) == serialized(done.before))


LAYERS = {
    "conv": (image(f"y = {CONV} (x, w33, b8)"), (2, 8, 6, 6)),
    "conv without bias": (image(f"y = {CONV} (x, w33)"), (2, 8, 6, 6)),
    "grouped": (image("y = Conv <group = 2> (x, grouped, b8)"), (2, 8, 6, 6)),
    "depthwise": (image("y = Conv <group = 8> (x, depthwise, b8)"), (2, 8, 6, 6)),
    "gemm": (rows("y = Gemm(x, m, b32)"), (9, 16)),
    "gemm transposed": (rows("y = Gemm <transB = 1> (x, mt, b32)"), (9, 16)),
    "matmul": (rows("y = MatMul(x, m)"), (9, 16)),
    "matmul add": (rows("a = MatMul(x, m) y = Add(b32, a)"), (9, 16)),
    "two": (image(f"a = {CONV} (x, w33, b8) r = Relu(a) y = {CONV} (r, v33)"), (2, 8, 6, 6)),
}


@pytest.fixture
def constants(gaussian: Any) -> dict[str, np.ndarray]:
    return {
        "w33": gaussian(8, 8, 3, 3),
        "v33": gaussian(8, 8, 3, 3, seed=1),
        "grouped": gaussian(8, 4, 3, 3),
        "depthwise": gaussian(8, 1, 3, 3),
        "m": gaussian(16, 32, fan_in=16),
        "mt": gaussian(32, 16),
        "b8": gaussian(8, fan_in=4),
        "b32": gaussian(32, fan_in=4),
        "zero": np.zeros(1, np.float32),
    }


def parsed(parse: Parse, text: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return parse(text, {name: value for name, value in constants.items() if name in words})


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_the_quantization_that_follows_loses_nothing(
    parse: Parse, quantize: Any, constants: Any, name: str, bits: int
) -> None:
    text, shape = LAYERS[name]
    done = quantize(RoundWeights(RoundWeightsConfig(bits=bits)), parsed(parse, text, constants), correlated(*shape))
    assert done.stats.modified
    done.check()
    before, after = weights_of(done.before), weights_of(done.after)
    assert set(before) == set(after)
    for tensor, (_, rounded) in after.items():
        levels, scale = quantize_weights(rounded, axis=0, bits=bits)
        _, expected = quantize_weights(before[tensor][1], axis=0, bits=bits)
        np.testing.assert_array_equal(scale, expected)  # bit for bit
        np.testing.assert_allclose(levels * scale[:, None], rounded, rtol=3e-7)
        assert np.abs(rounded - before[tensor][1]).max() > 0


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_change_less_than_by_rounding_to_nearest(
    parse: Parse, quantize: Any, constants: Any, name: str
) -> None:
    text, shape = LAYERS[name]
    feeds = correlated(*shape, runs=12)
    seen, unseen = feeds[:6], feeds[6:]
    done = quantize(RoundWeights(RoundWeightsConfig(bits=4)), parsed(parse, text, constants), seen)
    ours = output_errors(done, unseen)
    done.after = nearest(done.before, bits=4)
    # Spatial neighbours are independent here: what a depthwise layer gains is the mean
    assert ours < (0.9 if name == "depthwise" else 0.6) * output_errors(done, unseen)


def test_executed_in_integers_the_weights_are_those_of_the_float_model(
    parse: Parse, quantize: Any, constants: Any, samples: Any
) -> None:
    text, shape = LAYERS["two"]
    done = quantize(ROUND, parsed(parse, text, constants), correlated(*shape))
    integers = done.after.clone()
    ctx = PassContext(done.ctx.target, done.ctx.samples, RangeStore(done.after, samples(done.feeds)))
    assert QuantizeStatic().run(integers, ctx).modified
    for node in [node for node in integers.graph if node.op_type == "Conv"]:
        integers.graph.outputs.append(node.inputs[1])
        node.inputs[1].type = ir.TensorType(ir.DataType.FLOAT)  # type: ignore[union-attr]
    found = list(open_session(integers).run(done.feeds[0]).values())[1:]
    assert len(found) == 2
    for array, (node, _) in zip(found, weights_of(done.after).values(), strict=True):
        np.testing.assert_allclose(array, node.inputs[1].const_value.numpy(), rtol=3e-7)  # type: ignore[union-attr]


@pytest.mark.parametrize("second", ["static", "static per tensor", "dynamic"])
def test_it_helps_what_comes_after(parse: Parse, samples: Any, gaussian: Any, second: str) -> None:
    """One input has very large weights, so that the steps are coarse for all others and rounding them dominates."""
    weight = gaussian(16, 32, fan_in=16)
    weight[0] *= 60
    before = load(parse(rows("y = Gemm(x, m, b)"), {"m": weight, "b": gaussian(32, fan_in=4)}).SerializeToString())
    feeds = correlated(64, 16)
    for feed in feeds:
        feed["x"][:, 0] /= 60
    rewrite = {
        "static": QuantizeStatic(),
        "static per tensor": QuantizeStatic(QuantizeStaticConfig(per_channel=False)),
        "dynamic": QuantizeDynamic(QuantizeDynamic.Config(min_elements=0)),
    }[second]
    rounding = RoundWeights(RoundWeightsConfig(per_channel="tensor" not in second))
    errors = []
    for first in (None, rounding):
        after = before.clone()
        ctx = PassContext(get_target("cpu-x86-vnni"), samples(feeds), RangeStore(before, samples(feeds)))
        if first is not None:
            assert first.run(after, ctx).modified
        assert rewrite.run(after, ctx).modified
        was, now = open_session(before), open_session(after)
        errors.append(np.mean([((was.run(f)["y"] - now.run(f)["y"]) ** 2).mean() for f in feeds]))
    assert errors[1] < 0.7 * errors[0]


def test_a_second_run_does_nothing(parse: Parse, quantize: Any, again: Any, constants: Any) -> None:
    text, shape = LAYERS["two"]
    first = quantize(ROUND, parsed(parse, text, constants), correlated(*shape))
    second = again(ROUND, first)
    assert not second.stats.modified
    assert unchanged(second)
    assert set(second.reasons.values()) == {"rounding to nearest is as good"}


def test_a_bias_takes_up_the_mean_of_the_error(parse: Parse, quantize: Any, constants: Any) -> None:
    text, shape = LAYERS["conv without bias"]
    feeds = correlated(*shape)
    done = quantize(RoundWeights(RoundWeightsConfig(bits=3)), parsed(parse, text, constants), feeds)
    before, after = open_session(done.before), open_session(done.after)
    error = np.concatenate([before.run(feed)["y"] - after.run(feed)["y"] for feed in feeds])
    assert np.abs(error.mean(axis=(0, 2, 3))).max() < 1e-4 < np.abs(error).mean()
    kept = quantize(RoundWeights(RoundWeightsConfig(bits=3, fit_bias=False)), parsed(parse, text, constants), feeds)
    assert [len(node.inputs) for node in kept.after.graph] == [2]


def test_a_bias_that_two_layers_share_changes_for_one_alone(parse: Parse, quantize: Any, constants: Any) -> None:
    text = image(f"a = {CONV} (x, w33, b8) b = {CONV} (x, v33, b8) y = Add(a, b)")
    done = quantize(ROUND, parsed(parse, text, constants), correlated(2, 8, 6, 6))
    first, second = (node.inputs[2] for node in done.after.graph if node.op_type == "Conv")
    assert first is not second
    assert not np.array_equal(first.const_value.numpy(), second.const_value.numpy())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (image(f"a = {CONV} (x, w33, b8) y = {CONV} (a, w33)"), "the weight is used elsewhere too"),
        (rows("t = Transpose(m) u = Transpose(t) y = MatMul(x, u)"), "the weight is no constant matrix"),
        (rows("y = MatMul(x, broken)"), "the weight holds NaN or infinity"),
        (rows("y = Gemm <alpha = 2.0> (x, m, b32)"), "alpha or beta is set"),
        (rows("y = MatMul(x, whole)"), "rounding to nearest is as good"),
    ],
)
def test_declines(parse: Parse, quantize: Any, constants: Any, text: str, reason: str) -> None:
    broken = constants["m"].copy()
    broken[3, 3] = np.nan
    whole = np.rint(constants["m"] * 40).clip(-127, 127)
    whole[0] = 127
    proto = parsed(parse, text, {**constants, "broken": broken, "whole": whole.astype(np.float32)})
    feeds = correlated(2, 8, 6, 6) if "Conv" in text else correlated(9, 16)
    done = quantize(ROUND, proto, feeds)
    assert not done.stats.modified
    assert not done.stats.counters
    assert unchanged(done)
    assert set(done.reasons.values()) == {reason}


def test_excluded_nodes_stay_as_they_are(parse: Parse, quantize: Any, constants: Any) -> None:
    proto = parsed(parse, LAYERS["two"][0], constants)
    proto.graph.node[0].name = "first"
    config = RoundWeightsConfig(exclude=("first",))
    done = quantize(RoundWeights(config), proto, correlated(2, 8, 6, 6))
    assert done.stats.counters == {"layers rounded": 1}
    assert done.reasons["first"] == "excluded"
    np.testing.assert_array_equal(weights_of(done.after)["a"][1], weights_of(done.before)["a"][1])


def test_a_layer_whose_matrix_is_too_large_is_skipped(
    parse: Parse, quantize: Any, constants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxcomp.passes.quantize.rounding.MOST_BYTES", 1 << 10)
    done = quantize(ROUND, parsed(parse, LAYERS["matmul"][0], constants), correlated(9, 16))
    assert set(done.reasons.values()) == {"its Gram matrix would take more than 0 MB"}


def test_a_layer_that_reads_nothing_but_zeros_is_left_alone(parse: Parse, quantize: Any, constants: Any) -> None:
    text = rows("z = Mul(x, zero) y = MatMul(z, m)")
    done = quantize(ROUND, parsed(parse, text, constants), correlated(9, 16))
    assert not done.stats.modified


def test_a_nan_is_named(parse: Parse, quantize: Any, constants: Any) -> None:
    text = rows("a = Sqrt(x) y = MatMul(a, m)")
    with pytest.raises(ModelError, match=r"tensor a is not a number \(NaN\) on calibration sample 0"):
        quantize(ROUND, parsed(parse, text, constants), correlated(9, 16))


def test_it_needs_samples(parse: Parse, constants: Any) -> None:
    model = load(parsed(parse, LAYERS["matmul"][0], constants).SerializeToString())
    with pytest.raises(PassError, match="needs calibration samples"):
        ROUND.run(model, PassContext(get_target("cpu-x86-vnni")))


@pytest.mark.parametrize("setting", [{"bits": 1}, {"bits": 9}, {"damping": 0.0}, {"positions": 0}])
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        RoundWeightsConfig(**setting)
