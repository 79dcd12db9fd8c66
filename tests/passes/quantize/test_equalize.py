"""Cross-layer equalization: exact, even ranges, and what it declines."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.metrics import sqnr
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.equalize import Equalize, EqualizeConfig, equalizing_scale
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
Quantize = Callable[..., Any]
RNG = np.random.default_rng(5)
SPREAD = np.exp(RNG.normal(0, 2, 64))  # factors that a bad training run leaves between channels
PADS = "pads = [1, 1, 1, 1]"
IMAGE = "g (float[N, 8, 6, 6] x) => (float[A, B, C, D] y)"


def draw(*shape: int, axis: int | None = None) -> np.ndarray:
    """Draw weights; along an axis, each channel has a range of its own."""
    array = RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    if axis is not None:
        array *= SPREAD[: shape[axis]].reshape(-1, *[1] * (len(shape) - axis - 1))
    return array.astype(np.float32)


WEIGHTS = {
    "w": draw(8, 8, 3, 3, axis=0), "v": draw(8, 8, 1, 1), "b": draw(8), "d": draw(8, 1, 3, 3, axis=0),
    "grouped": draw(8, 2, 1, 1), "slope": draw(8, 1, 1), "one": np.float32([0.3]), "offset": draw(8, 1, 1),
    "turned": draw(8, 5, 2, 2), "half": draw(6, 4, 1, 1), "flat": draw(8 * 9, 4), "flat_t": draw(4, 8 * 9),
    "pooled": draw(8, 4), "six": np.float32(6), "zero": np.float32(0), "axes": np.int64([2, 3]),
    "shape": np.int64([0, -1]), "b4": draw(4),
    "u": draw(8, 8, 3, 3), "square": draw(6, 6), "least": np.float32(-1),
}  # fmt: skip
POOL = "<kernel_shape = [2, 2], strides = [2, 2]>"
CONV = f"a = Conv <{PADS}> (x, w, b)"
EXACT = {
    "two convolutions": f"{CONV} y = Conv(a, v, b)",
    "without a bias": "a = Conv(x, w) y = Conv(a, v)",
    "relu": f"{CONV} r = Relu(a) y = Conv(r, v, b)",
    "leaky relu": f"{CONV} r = LeakyRelu <alpha = 0.1> (a) y = Conv(r, v)",
    "prelu of one slope": f"{CONV} r = PRelu(a, one) y = Conv(r, v)",
    "prelu per channel": f"{CONV} r = PRelu(a, slope) y = Conv(r, v)",
    "clip without a bound": f"{CONV} r = Clip(a, zero) y = Conv(r, v)",
    "depthwise between": f"{CONV} r = Relu(a) m = Conv <group = 8, {PADS}> (r, d, b) s = Relu(m) y = Conv(s, v)",
    "grouped": f"{CONV} r = Relu(a) m = Conv <group = 4> (r, grouped, b) s = Relu(m) y = Conv(s, v)",
    "transposed": f"{CONV} r = Relu(a) y = ConvTranspose <strides = [2, 2]> (r, turned)",
    "pools": f"{CONV} p = MaxPool {POOL} (a) q = AveragePool {POOL} (p) y = Conv(q, v)",
    "a constant added and one multiplied": f"{CONV} s = Add(offset, a) t = Mul(s, one) r = Relu(t) y = Conv(r, v)",
    "two readers": f"{CONV} r = Relu(a) s = Conv(r, v, b) t = Conv <{PADS}> (r, u) y = Add(s, t)",
}  # fmt: skip
MATRIX = {
    "flatten": f"{CONV} p = MaxPool {POOL} (a) f = Flatten(p) y = Gemm(f, flat, b4)",
    "reshape": f"{CONV} p = MaxPool {POOL} (a) f = Reshape(p, shape) y = MatMul(f, flat)",
    "gemm transposed": f"{CONV} p = MaxPool {POOL} (a) f = Flatten(p) y = Gemm <transB = 1> (f, flat_t)",
    "global pooling": f"{CONV} r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, pooled)",
    "mean": f"{CONV} r = Relu(a) p = ReduceMean <axes = [2, 3], keepdims = 0> (r) y = Gemm(p, pooled, b4)",
    "squeezed": f"{CONV} p = GlobalAveragePool(a) f = Squeeze(p, axes) y = MatMul(f, pooled)",
}  # fmt: skip


@pytest.fixture
def model(parse: Parse) -> Callable[..., ir.Model]:
    def make(nodes: str, *, signature: str = IMAGE, **weights: np.ndarray) -> ir.Model:
        wanted = {name: array for name, array in WEIGHTS.items() if name in re.findall(r"\w+", nodes)}
        return load(parse(f"{signature} {{ {nodes} }}", {**wanted, **weights}).SerializeToString())

    return make


@pytest.mark.parametrize("nodes", [pytest.param(nodes, id=name) for name, nodes in EXACT.items()])
def test_exact_over_images(model: Callable[..., ir.Model], check: Any, nodes: str) -> None:
    outcome = check(Equalize(), model(nodes))
    assert outcome.stats.counters["layers equalized"] >= 1


@pytest.mark.parametrize("nodes", [pytest.param(nodes, id=name) for name, nodes in MATRIX.items()])
def test_exact_from_images_to_matrices(model: Callable[..., ir.Model], check: Any, nodes: str) -> None:
    outcome = check(Equalize(), model(nodes, signature="g (float[N, 8, 6, 6] x) => (float[A, B] y)"))
    assert outcome.stats.counters == {"layers equalized": 1}


def test_exact_in_one_dimension_and_between_matrices(model: Callable[..., ir.Model], check: Any) -> None:
    weights = {"k": draw(6, 4, 3, axis=0), "l": draw(5, 6, 1), "b6": draw(6)}
    signature = "g (float[N, 4, 9] x) => (float[A, B, C] y)"
    assert check(Equalize(), model("a = Conv(x, k, b6) r = Relu(a) y = Conv(r, l)", signature=signature, **weights))
    rows = {"k": draw(4, 6) * SPREAD[:6].astype(np.float32), "l": draw(5, 6), "b6": draw(6), "m": draw(5, 3)}
    chain = "a = MatMul(x, k) c = Add(a, b6) r = Relu(c) s = MatMul(r, lt) y = MatMul(s, m)"
    rows["lt"] = rows.pop("l").T.copy()
    outcome = check(Equalize(), model(chain, signature="g (float[N, T, 4] x) => (float[A, B, C] y)", **rows))
    assert outcome.stats.counters == {"layers equalized": 2}
    gemm = "a = Gemm <alpha = 0.5, beta = 2.0> (x, k, row) r = Relu(a) y = Gemm <transB = 1> (r, l)"
    gemm_weights = {"k": rows["k"], "row": draw(1, 6), "l": rows["lt"].T.copy()}
    check(Equalize(), model(gemm, signature="g (float[3, 4] x) => (float[A, B] y)", **gemm_weights))


def test_constant_nodes(model: Callable[..., ir.Model], check: Any) -> None:
    source = model(f"{CONV} r = Relu(a) y = Conv(r, v)")
    for name, value in list(source.graph.initializers.items()):
        node = ir.node("Constant", [], attributes={"value": value.const_value})
        node.outputs[0].name = f"{name}.constant"
        source.graph.insert_before(source.graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
        del source.graph.initializers[name]
    outcome = check(Equalize(), source)
    assert outcome.ops == {"Conv": 2, "Relu": 1}
    assert len(outcome.model.graph.initializers) == 3


def test_the_scale_is_that_of_the_paper() -> None:
    made, read = np.array([4.0, 1.0, 0.0, 2.0]), np.array([1.0, 4.0, 3.0, 0.0])
    scale = equalizing_scale(made, read)
    for i, (r1, r2) in enumerate(zip(made, read, strict=True)):
        expected = np.sqrt(r1 * r2) / r2 if r1 and r2 else 1.0
        assert scale[i] == pytest.approx(expected)
        if r1 and r2:  # both ranges become their geometric mean
            assert r1 / scale[i] == pytest.approx(r2 * scale[i]) == pytest.approx(np.sqrt(r1 * r2))


def test_ranges_are_even_afterwards(model: Callable[..., ir.Model], apply: Any) -> None:
    """A literal second version of the fixed point: what makes a channel is as large as what reads it, at every pair."""
    source = model(EXACT["depthwise between"])
    before = {name: value.const_value.numpy() for name, value in source.graph.initializers.items()}
    outcome = apply(Equalize(), source)
    w, d, v = (outcome.model.graph.initializers[name].const_value.numpy() for name in "wdv")
    made, middle, read = np.abs(w).max((1, 2, 3)), np.abs(d).max((1, 2, 3)), np.abs(v).max((0, 2, 3))
    np.testing.assert_allclose(made, middle, rtol=5e-3)
    np.testing.assert_allclose(middle, read, rtol=5e-3)
    geometric = np.cbrt(
        np.prod(
            [
                np.abs(before["w"]).max((1, 2, 3)),
                np.abs(before["d"]).max((1, 2, 3)),
                np.abs(before["v"]).max((0, 2, 3)),
            ],
            axis=0,
        )
    )
    np.testing.assert_allclose(made, geometric, rtol=1e-2)


DECLINED = {
    "the end of the model": ("y = Conv(x, v)", "y is an output of the model"),
    "residual sum": (f"{CONV} r = Relu(a) s = Conv(r, v) t = Add(s, r) y = Conv(t, u)", "Add"),
    "unknown function": (f"{CONV} r = Sigmoid(a) y = Conv(r, v)", "Sigmoid"),
    "clip": (f"{CONV} r = Clip(a, zero, six) y = Conv(r, v)", "a Clip at 6"),
    "clip below zero": (f"{CONV} r = Clip(a, least) y = Conv(r, v)", "Clip"),
    "clip from above only": (f"{CONV} r = Min(a, six) y = Conv(r, v)", "Min"),
    "shared weights": (f"{CONV} r = Conv(a, v) y = Conv(r, v)", "used elsewhere"),
    "positions, not channels": (f"{CONV} y = MatMul(a, square)", "in another way"),
    "as weights": ("a = Conv(x, v) t = GlobalAveragePool(x) y = Conv(t, a)", "Conv"),
    "product of two": (f"{CONV} r = Relu(a) y = MatMul(r, a)", "MatMul"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "reason"), [pytest.param(*case, id=name) for name, case in DECLINED.items()])
def test_what_is_declined(model: Callable[..., ir.Model], apply: Any, nodes: str, reason: str) -> None:
    outcome = apply(Equalize(), model(nodes))
    assert not outcome.stats.modified
    assert reason in outcome.reasons


def test_an_output_between_and_a_subgraph_decline(model: Callable[..., ir.Model], apply: Any) -> None:
    between = "g (float[N, 8, 6, 6] x) => (float[A, B, C, D] y, float[E, F, G, H] r)"
    outcome = apply(Equalize(), model(f"{CONV} r = Relu(a) y = Conv(r, v)", signature=between))
    assert "r is an output of the model" in outcome.reasons
    branches = (
        "then_branch = t () => (float[A] p) {p = Identity(r)}",
        "else_branch = e () => (float[A] p) {p = Neg(r)}",
    )
    signature = "g (float[N, 8, 6, 6] x, bool c) => (float[A] y, float[E, F, G, H] z)"
    outcome = apply(
        Equalize(), model(f"{CONV} r = Relu(a) z = Conv(r, v) y = If (c) <{', '.join(branches)}>", signature=signature)
    )
    assert not outcome.stats.modified
    assert "inside a subgraph" in outcome.reasons


def test_weights_that_callers_may_override_or_of_another_type_decline(parse: Parse, apply: Any) -> None:
    signature = "g (float[N, 8, 6, 6] x, float[8, 8, 1, 1] v) => (float[A, B, C, D] y)"
    weights = {name: WEIGHTS[name] for name in ("w", "b", "v")}
    source = load(parse(f"{signature} {{ {CONV} r = Relu(a) y = Conv(r, v) }}", weights).SerializeToString())
    assert not apply(Equalize(), source).stats.modified
    half = {name: WEIGHTS[name].astype(np.float16) for name in ("w", "b", "v")}
    text = f"g (float16[N, 8, 6, 6] x) => (float16[A, B, C, D] y) {{ {CONV} r = Relu(a) y = Conv(r, v) }}"
    assert "not float32" in apply(Equalize(), load(parse(text, half).SerializeToString())).reasons


def test_excluded_layers_and_channels_of_no_weight(model: Callable[..., ir.Model], apply: Any, check: Any) -> None:
    source = model(f"{CONV} r = Relu(a) y = Conv(r, v)")
    source.graph[0].name = "first"
    outcome = apply(Equalize(EqualizeConfig(exclude=("first",))), source)
    assert not outcome.stats.modified
    assert outcome.reasons.startswith("excluded")
    faint = WEIGHTS["w"].copy()
    faint[0], faint[1] = 0.0, 1e-9
    outcome = check(Equalize(), model(f"{CONV} r = Relu(a) y = Conv(r, v)", w=faint))
    after = outcome.model.graph.initializers
    np.testing.assert_array_equal(after["w"].const_value.numpy()[:2], faint[:2])
    np.testing.assert_array_equal(after["b"].const_value.numpy()[:2], WEIGHTS["b"][:2])


def test_scaled_tensors_get_names_of_their_own(model: Callable[..., ir.Model], apply: Any) -> None:
    """What was measured on the model before may be asked for by name: it must not be taken for the new tensors."""
    nodes = f"{CONV} r = Relu(a) y = Conv(r, v)"
    names = []
    for factor in (1, 3):
        outcome = apply(
            Equalize(), model(nodes, v=WEIGHTS["v"] * np.linspace(1, factor, 8, dtype=np.float32)[:, None, None])
        )
        names.append([value.name for node in outcome.model.graph for value in node.outputs])
        assert {"a", "r"}.isdisjoint(names[-1])
        assert names[-1][-1] == "y"
    assert names[0][0] != names[1][0]


def run(rewrite: Any, before: ir.Model, feeds: list[dict[str, np.ndarray]], samples: Any) -> ir.Model:
    after = before.clone()
    data = samples(feeds)
    rewrite.run(after, PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(before, data)))
    return after


def worst(first: ir.Model, second: ir.Model, feed: Mapping[str, np.ndarray]) -> float:
    return sqnr(*(open_session(model).run(feed)["y"] for model in (first, second)))


def images(scale: float = 1.0, runs: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.normal(scale=scale, size=(4, 8, 6, 6)).astype(np.float32)} for _ in range(runs)]


PLANTED = f"{CONV} r = Relu(a) m = Conv <group = 8, {PADS}> (r, d) s = Relu(m) y = Conv(s, v)"


def test_planted_bad_ranges(model: Callable[..., ir.Model], samples: Any) -> None:
    """Ranges that differ a hundredfold between channels: one scale for all weights can't serve them."""
    spread = np.geomspace(0.1, 10, 8, dtype=np.float32)[RNG.permutation(8)]
    even = {name: draw(*WEIGHTS[name].shape) for name in ("w", "d", "v")}
    uneven = {
        "w": even["w"] * spread[:, None, None, None], "b": WEIGHTS["b"] * spread,
        "d": even["d"] / spread[:, None, None, None] * spread[::-1, None, None, None],
        "v": even["v"] / spread[None, ::-1, None, None],
    }  # fmt: skip
    feeds = images()
    before = model(PLANTED, **uneven)
    repaired = run(Equalize(), before, feeds, samples)
    assert worst(before, repaired, feeds[0]) > 100
    static = QuantizeStatic(QuantizeStaticConfig(per_channel=False))
    without, with_it = (run(static, source, feeds, samples) for source in (before, repaired))
    assert worst(before, with_it, feeds[0]) > worst(before, without, feeds[0]) + 10


def test_calibration_tells_which_channels_a_clip_lets_through(model: Callable[..., ir.Model], samples: Any) -> None:
    """Channels that reach 6 keep their scale; the others move, and stay under 6."""
    bias = np.float32([9, 0, 0, 0, 0, 0, 0, 0])
    even = np.float32(draw(8, 8, 3, 3) * np.geomspace(0.1, 1, 8)[:, None, None, None])
    before = model(f"{CONV} r = Clip(a, zero, six) y = Conv(r, v)", w=even, b=bias)
    feeds = images()
    after = run(Equalize(EqualizeConfig(clips=True)), before, feeds, samples)
    assert all(worst(before, after, feed) > 100 for feed in feeds)
    weights = after.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(weights[0], even[0])
    assert np.all(np.abs(weights[1:] / even[1:] - 1).reshape(7, -1).max(1) > 0.01)


def test_clips_and_absorbing_need_calibration(model: Callable[..., ir.Model], apply: Any) -> None:
    for settings in ({"clips": True}, {"absorb": True}):
        with pytest.raises(PassError, match="calibration"):
            apply(Equalize(EqualizeConfig(**settings)), model(PLANTED))


@pytest.mark.parametrize(
    ("reader", "absorbed"),
    [
        pytest.param("y = Conv(r, v)", 1, id="convolution without a bias"),
        pytest.param("y = Conv <group = 4> (r, grouped, b)", 1, id="grouped"),
        pytest.param(f"y = Conv <{PADS}> (r, u, b)", 0, id="padded"),
        pytest.param('y = Conv <auto_pad = "SAME_UPPER"> (r, u, b)', 0, id="padded by itself"),
    ],
)
def test_high_biases_are_absorbed(model: Callable[..., ir.Model], samples: Any, reader: str, absorbed: int) -> None:
    bias = np.float32([50, 0, 0, 40, 0, 0, 0, 0])
    before = model(f"{CONV} r = Relu(a) {reader}", w=draw(8, 8, 3, 3), b=bias)
    feeds = images()
    work, data = before.clone(), samples(feeds)
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(before, data))
    stats = Equalize(EqualizeConfig(absorb=True)).run(work, ctx)
    assert stats.counters.get("biases absorbed", 0) == absorbed
    assert all(worst(before, work, feed) > 100 for feed in feeds)
    ctx.ranges = RangeStore(work, data)
    highest = max(found.high for found in ctx.ranges.get([str(work.graph[1].outputs[0].name)]).values())
    assert (highest < 20) == bool(absorbed)
    assert not Equalize(EqualizeConfig(absorb=True)).run(work, ctx).modified


def test_wrong_settings() -> None:
    for settings in ({"sweeps": 0}, {"faint": 1.0}, {"faint": -0.1}):
        with pytest.raises(RecipeError):
            EqualizeConfig(**settings)
