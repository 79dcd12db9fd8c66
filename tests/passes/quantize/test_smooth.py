"""SmoothQuant: exact, the paper's scale, where it finds somebody to take the division, and what it declines."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.metrics import sqnr
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext, PassStats
from onnxcomp.passes.quantize.smooth import Smooth, SmoothConfig, smoothing_scale
from onnxcomp.passes.quantize.static import QuantizeStatic
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

RNG = np.random.default_rng(11)
OUTLIERS = np.where(np.arange(16) % 8 == 3, 60.0, 1.0)  # two of sixteen channels


def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.normal(size=shape) * scale / np.sqrt(shape[0])).astype(np.float32)


WEIGHTS = {
    "g": (OUTLIERS * RNG.uniform(0.5, 1.5, 16)).astype(np.float32), "h": draw(16), "w": draw(16, 8), "v": draw(16, 8),
    "u": draw(8, 16), "wt": draw(8, 16), "b": draw(8), "e": draw(16, 16), "row": draw(1, 16), "two": np.float32(2),
    "mean_axes": np.int64([-1]), "eps": np.float32(1e-5), "k": draw(4, 16, 1, 1), "sg": draw(1, 16, 1, 1),
    "big": (draw(16, 16) * OUTLIERS).astype(np.float32), "b16": draw(16), "wide": draw(2, 16, 8),
}  # fmt: skip
NORM = "n = LayerNormalization(x, g, h)"
DECOMPOSED = (
    "m = ReduceMean <axes = [-1]> (x) d = Sub(x, m) p = Pow(d, two) q = ReduceMean <axes = [-1]> (p) r = Add(q, eps) "
    "o = Sqrt(r) f = Div(d, o) a = Mul(f, g) n = Add(a, h)"
)
TOKENS = "g (float[N, T, 16] x) => (float[A, B, C] y)"
FOLDED = {
    "layer norm": (f"{NORM} y = MatMul(n, w)", TOKENS),
    "layer norm without a bias": ("n = LayerNormalization(x, g) y = MatMul(n, w)", TOKENS),
    "decomposed layer norm": (f"{DECOMPOSED} y = MatMul(n, w)", TOKENS),
    "three readers": (f"{NORM} a = MatMul(n, w) c = MatMul(n, v) y = Add(a, c)", TOKENS),
    "skip layer norm": ("n = com.microsoft.SkipLayerNormalization(x, x, g, h) y = MatMul(n, w)", TOKENS),
    "simplified": ("n = com.microsoft.SkipSimplifiedLayerNormalization(x, x, g) y = MatMul(n, w)", TOKENS),
    "gemm": (f"{NORM} y = Gemm(n, w, b)", "g (float[N, 16] x) => (float[A, B] y)"),
    "gemm transposed": (f"{NORM} y = Gemm <transB = 1> (n, wt, b)", "g (float[N, 16] x) => (float[A, B] y)"),
    "a constant factor": ("c = Sigmoid(x) n = Mul(g, c) y = MatMul(n, w)", TOKENS),
    "the layer before": ("n = MatMul(x, big) a = Add(n, b16) c = Relu(a) y = MatMul(c, w)", TOKENS),
    "behind a transposition": (
        "n = MatMul(x, big) t = Transpose <perm = [1, 0, 2]> (n) y = MatMul(t, w)",
        TOKENS,
    ),
}  # fmt: skip
INSERTED = {
    "residual": f"{NORM} a = MatMul(n, e) y = Add(a, n)",
    "gelu": "a = MatMul(x, big) n = com.microsoft.Gelu(a) y = MatMul(n, w)",
    "two readers of one": f"{NORM} a = MatMul(n, e) c = MatMul(n, big) s = Add(a, c) y = Add(s, n)",
}


@pytest.fixture
def model(parse: Callable[..., onnx.ModelProto]) -> Callable[..., ir.Model]:
    def make(nodes: str, signature: str = TOKENS, **others: np.ndarray) -> ir.Model:
        wanted = {name: array for name, array in WEIGHTS.items() if name in re.findall(r"\w+", nodes)}
        return load(parse(f"{signature} {{ {nodes} }}", {**wanted, **others}).SerializeToString())

    return make


class Run:
    """One pass over a model, with samples; outputs of both are at hand."""

    def __init__(self, rewrite: Any, before: ir.Model, samples: Any, *, shape: tuple[int, ...] | None = None) -> None:
        rank = len(before.graph.inputs[0].shape or ())
        shape = shape or (3, 5, 16)[3 - rank :]
        self.feeds = [{"x": RNG.normal(size=shape).astype(np.float32)} for _ in range(3)]
        self.before, self.after, self.data = before, before.clone(), samples(self.feeds)
        self.ctx = PassContext(get_target("cpu-x86-vnni"), samples=self.data, ranges=RangeStore(before, self.data))
        self.stats: PassStats = rewrite.run(self.after, self.ctx)
        onnx.checker.check_model(ir.to_proto(self.after))

    @property
    def reasons(self) -> str:
        return "; ".join(skip.reason for skip in self.ctx.skipped)

    @property
    def sqnr(self) -> float:
        first, second = open_session(self.before), open_session(self.after, optimize=False)
        return min(sqnr(first.run(feed)["y"], second.run(feed)["y"]) for feed in self.feeds)

    def again(self, rewrite: Any) -> bool:
        return bool(rewrite.run(self.after, self.ctx).modified)

    def largest(self, name: str) -> np.ndarray:
        return RangeStore(self.after, self.data).channels({name: -1})[name].largest


def reader(model: ir.Model) -> ir.Node:
    return next(node for node in reversed(model.graph) if node.op_type in ("MatMul", "Gemm"))


@pytest.mark.parametrize(("nodes", "signature"), [pytest.param(*case, id=name) for name, case in FOLDED.items()])
@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_what_comes_before_takes_the_division(
    model: Callable[..., ir.Model], samples: Any, nodes: str, signature: str, alpha: float
) -> None:
    rewrite = Smooth(SmoothConfig(alpha=alpha, insert=False))
    done = Run(rewrite, model(nodes, signature), samples)
    assert done.stats.counters == {"tensors smoothed": 1}
    assert done.sqnr > 100
    assert [node.op_type for node in done.after.graph] == [node.op_type for node in done.before.graph]
    after = done.largest(str(reader(done.after).inputs[0].name))
    before = RangeStore(done.before, done.data).channels({(name := str(reader(done.before).inputs[0].name)): -1})[name]
    assert np.ptp(np.log(after)) < 0.8 * np.ptp(np.log(before.largest))
    assert not done.again(rewrite)


@pytest.mark.parametrize("nodes", [pytest.param(nodes, id=name) for name, nodes in INSERTED.items()])
def test_a_mul_where_nothing_takes_it(model: Callable[..., ir.Model], samples: Any, nodes: str) -> None:
    done = Run(Smooth(), model(nodes), samples)
    assert done.stats.counters["Mul inserted"] == 1
    assert done.sqnr > 100
    muls = [node for node in done.after.graph if node.op_type == "Mul"]
    assert len(muls) == 1
    assert {use.node.op_type for use in muls[0].outputs[0].uses()} == {"MatMul"}
    assert not done.again(Smooth())
    unwanted = Run(Smooth(SmoothConfig(insert=False)), model(nodes), samples)
    assert not unwanted.stats.modified
    assert unwanted.reasons


def test_the_scale_is_that_of_the_paper() -> None:
    activations, weights = np.array([8.0, 2.0, 0.0, 1.0, 4.0]), np.array([2.0, 2.0, 1.0, 0.0, 1.0])
    scale = smoothing_scale(activations, weights, 0.75)
    for j in (0, 1, 4):
        assert scale[j] == pytest.approx(activations[j] ** 0.75 / weights[j] ** 0.25)
    assert scale[2] == scale[3] == np.median(scale[[0, 1, 4]])
    half = smoothing_scale(activations, weights, 0.5)[[0, 1, 4]]  # both sides end with the same range
    np.testing.assert_allclose(activations[[0, 1, 4]] / half, weights[[0, 1, 4]] * half)
    np.testing.assert_array_equal(smoothing_scale(np.zeros(3), np.ones(3), 0.5), np.ones(3))


def test_the_scale_comes_from_all_samples_and_all_readers(model: Callable[..., ir.Model], samples: Any) -> None:
    done = Run(Smooth(), model(f"{NORM} a = MatMul(n, w) c = MatMul(n, v) y = Add(a, c)"), samples)
    values = np.concatenate([open_session(tap(done.before, "n")).run(feed)["n"] for feed in done.feeds])
    activations = np.abs(values).reshape(-1, 16).max(0)
    weights = np.maximum(np.abs(WEIGHTS["w"]).max(1), np.abs(WEIGHTS["v"]).max(1))
    expected = np.sqrt(activations / weights)
    smoothed = done.after.graph.initializers["w"].const_value.numpy()
    np.testing.assert_allclose(smoothed, WEIGHTS["w"] * expected[:, None], rtol=1e-5)
    np.testing.assert_allclose(
        done.after.graph.initializers["g"].const_value.numpy(), WEIGHTS["g"] / expected, rtol=1e-5
    )


def tap(model: ir.Model, name: str) -> ir.Model:
    copy = model.clone()
    copy.graph.outputs.append(next(v for node in copy.graph for v in node.outputs if v.name == name))
    return copy


def test_outliers_no_longer_harm_the_quantized_model(model: Callable[..., ir.Model], samples: Any) -> None:
    """Two channels sixty times as large as the others, in activations whose other channels matter more."""
    small = WEIGHTS["w"] / OUTLIERS[:, None].astype(np.float32)
    source = model(f"{NORM} y = MatMul(n, w)", w=small)
    plain = Run(QuantizeStatic(), source, samples)
    smoothed = Run(Smooth(), source, samples)
    both = Run(QuantizeStatic(), smoothed.after, samples)
    assert both.sqnr > plain.sqnr + 10


DECLINED = {
    "an input of the model": ("y = MatMul(x, w)", "one of the model's"),
    "an integer kernel before it": ("s = Add(x, row) y = MatMul(s, w)", "Add before it may run in integers"),
    "shared weights": (f"{NORM} a = MatMul(n, e) y = MatMul(a, e)", "used elsewhere too"),
    "weights of rank 3": ("n = LayerNormalization(x, g) y = MatMul(n, wide)", "no matrix"),
    "no weights": (f"{NORM} t = Transpose <perm = [0, 2, 1]> (n) y = MatMul(n, t)", ""),
}


@pytest.mark.parametrize(("nodes", "reason"), [pytest.param(*case, id=name) for name, case in DECLINED.items()])
def test_what_is_declined(model: Callable[..., ir.Model], samples: Any, nodes: str, reason: str) -> None:
    done = Run(Smooth(), model(nodes), samples, shape=(2, 5, 16))
    assert not done.stats.modified
    assert reason in done.reasons


def test_infinite_activations_and_excluded_layers_decline(model: Callable[..., ir.Model], samples: Any) -> None:
    source = model("a = Log(x) n = LayerNormalization(x, g) c = Mul(a, g) y = MatMul(c, w)")
    feeds = [{"x": np.zeros((1, 2, 16), np.float32)}]
    ctx = PassContext(get_target("cpu-x86-vnni"), ranges=RangeStore(source, samples(feeds)))
    assert not Smooth().run(source, ctx).modified
    assert "infinite" in ctx.skipped[0].reason
    named = model(f"{NORM} y = MatMul(n, w)")
    named.graph[1].name = "head"
    done = Run(Smooth(SmoothConfig(exclude=("head",))), named, samples)
    assert (done.stats.modified, done.reasons) == (False, "excluded")


def test_convolutions_where_they_are_asked_for(parse: Any, samples: Any) -> None:
    signature = "g (float[N, 16, 4, 4] x) => (float[A, B, C, D] y)"
    text = f"{signature} {{ n = Conv(x, big4, b16) r = Relu(n) y = Conv(r, k) }}"
    weights = {"big4": WEIGHTS["big"].T[:, :, None, None].copy(), "b16": WEIGHTS["b16"], "k": WEIGHTS["k"]}
    source = load(parse(text, weights).SerializeToString())
    assert not Run(Smooth(), source, samples, shape=(2, 16, 4, 4)).stats.modified
    done = Run(Smooth(SmoothConfig(ops=("Conv",))), source, samples, shape=(2, 16, 4, 4))
    assert done.stats.counters == {"tensors smoothed": 1}
    assert done.sqnr > 100


def test_wrong_use(model: Callable[..., ir.Model]) -> None:
    for settings in ({"alpha": -0.1}, {"alpha": 1.1}, {"ops": ("Relu",)}):
        with pytest.raises(RecipeError):
            SmoothConfig(**settings)
    with pytest.raises(PassError, match="calibration"):
        Smooth().run(model(f"{NORM} y = MatMul(n, w)"), PassContext(get_target("cpu-x86-vnni")))
