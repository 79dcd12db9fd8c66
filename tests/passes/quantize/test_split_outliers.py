"""Outlier channel splitting: exact, the paper's halves, where channels are made twice, and what it declines."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.metrics import sqnr
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.split_outliers import SplitOutliers, SplitOutliersConfig, halved, outlying_channels
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

RNG = np.random.default_rng(3)
ONE_CHANNEL = SplitOutliers(SplitOutliersConfig(ratio=0.1, multiple=1, gain=0.3))


def draw(*shape: int, outlier: tuple[int, ...] | None = None) -> np.ndarray:
    array = (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if outlier is not None:
        array[outlier] = 9
    return array


WEIGHTS = {
    "w": draw(10, 10, 3, 3), "b": draw(10), "o": draw(10, 10, 1, 1, outlier=(2, 3, 0, 0)), "slope": draw(10, 1, 1),
    "one": np.float32([0.3]), "offset": draw(1, 10, 1, 1), "zero": np.float32(0), "six": np.float32(6),
    "d": draw(10, 1, 3, 3), "t": draw(10, 10, 2, 2, outlier=(1, 1, 1, 1)), "m": draw(10, 6, outlier=(4, 1)),
    "mt": draw(6, 10, outlier=(1, 4)), "n": draw(6, 10), "b10": draw(1, 10), "b6": draw(6), "u": draw(10, 10, 1, 1),
    "long": draw(10 * 36, 6, outlier=(7, 1)), "g": draw(10, 5, 1, 1, outlier=(2, 3, 0, 0)), "axes": np.int64([2, 3]),
}  # fmt: skip
IMAGE = "g (float[N, 10, 6, 6] x) => (float[A, B, C, D] y)"
POOLED = "g (float[N, 10, 6, 6] x) => (float[A, B] y)"
ROWS = "g (float[N, 6] x) => (float[A, B] y)"
CONV = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b)"
TWICE = {
    "plain": (f"{CONV} y = Conv(a, o, b)", IMAGE),
    "without a bias": ("a = Conv(x, w) y = Conv(a, o)", IMAGE),
    "relu": (f"{CONV} r = Relu(a) y = Conv(r, o)", IMAGE),
    "clip": (f"{CONV} r = Clip(a, zero, six) y = Conv(r, o)", IMAGE),
    "sigmoid": (f"{CONV} r = Sigmoid(a) y = Conv(r, o)", IMAGE),
    "hard swish": (f"{CONV} r = HardSwish(a) y = Conv(r, o)", IMAGE),
    "slopes": (f"{CONV} r = PRelu(a, slope) y = Conv(r, o)", IMAGE),
    "constants": (f"{CONV} r = Add(a, offset) s = Mul(slope, r) v = Div(s, one) y = Conv(v, o)", IMAGE),
    "pool": (f"{CONV} p = MaxPool <kernel_shape = [2, 2]> (a) y = Conv(p, o)", IMAGE),
    "transposed convolution": (f"{CONV} r = Relu(a) y = ConvTranspose(r, t)", IMAGE),
    "head": (f"{CONV} p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, m, b6)", POOLED),
    "mean": (f"{CONV} p = ReduceMean <axes = [2, 3], keepdims = 0> (a) y = MatMul(p, m)", POOLED),
    "gemm": ("a = Gemm(x, n, b10) r = Relu(a) y = Gemm <transB = 1> (r, mt, b6)", ROWS),
    "matmul": ("a = MatMul(x, n) c = Add(a, b10) r = Tanh(c) y = MatMul(r, m)", ROWS),
}  # fmt: skip
GATHERED = {
    "input of the model": ("y = Conv(x, o)", IMAGE),
    "depthwise before": (f"{CONV} c = Conv <group = 10> (a, d) y = Conv(c, o)", IMAGE),
    "residual": (f"{CONV} r = Relu(a) c = Conv(r, o) y = Add(c, r)", IMAGE),
    "softmax": (f"{CONV} r = Softmax <axis = 1> (a) y = Conv(r, o)", IMAGE),
    "flattened": (f"{CONV} f = Flatten(a) y = Gemm(f, long, b6)", POOLED),
    "shared before": (f"{CONV} c = Conv(a, u) r = Conv(c, u) y = Conv(r, o)", IMAGE),
    "tokens": ("y = MatMul(x, m)", "g (float[N, T, 10] x) => (float[A, B, C] y)"),
}  # fmt: skip


@pytest.fixture
def model(parse: Callable[..., onnx.ModelProto]) -> Callable[..., ir.Model]:
    def make(nodes: str, signature: str = IMAGE, **others: np.ndarray) -> ir.Model:
        wanted = {name: array for name, array in WEIGHTS.items() if name in re.findall(r"\w+", nodes)}
        return load(parse(f"{signature} {{ {nodes} }}", {**wanted, **others}).SerializeToString())

    return make


def close(before: ir.Model, after: ir.Model) -> bool:
    """Whether two models answer alike, on random inputs."""
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    shape = tuple(d if isinstance(d, int) else 3 for d in before.graph.inputs[0].shape or ())
    feed = {"x": RNG.normal(size=shape).astype(np.float32)}
    first, second = open_session(before).run(feed), open_session(after, optimize=False).run(feed)
    return list(first) == list(second) and sqnr(first["y"], second["y"]) > 100


@pytest.mark.parametrize(("nodes", "signature"), [pytest.param(*case, id=name) for name, case in TWICE.items()])
def test_the_layer_before_makes_the_channel_twice(
    model: Callable[..., ir.Model], apply: Any, nodes: str, signature: str
) -> None:
    before = model(nodes, signature)
    outcome = apply(ONE_CHANNEL, before.clone())
    assert outcome.stats.counters == {"layers split": 1, "channels added": 1}
    assert [node.op_type for node in outcome.model.graph] == [node.op_type for node in before.graph]
    assert close(before, outcome.model)
    assert {v.name for node in outcome.model.graph for v in node.outputs} & {"a", "r"} == set()


@pytest.mark.parametrize(("nodes", "signature"), [pytest.param(*case, id=name) for name, case in GATHERED.items()])
def test_a_gather_repeats_it_elsewhere(model: Callable[..., ir.Model], apply: Any, nodes: str, signature: str) -> None:
    before = model(nodes, signature)
    outcome = apply(ONE_CHANNEL, before.clone())
    assert outcome.stats.counters["Gather inserted"] == 1
    assert close(before, outcome.model)
    strict = SplitOutliers(SplitOutliersConfig(ratio=0.1, multiple=1, gather=False))
    outcome = apply(strict, before.clone())
    assert not outcome.stats.modified
    assert "can't make channels twice" in outcome.reasons


def test_the_halves_are_those_of_the_paper() -> None:
    """Rounded to the grid, the two halves together are what the weight alone is rounded to (equation 5)."""
    weights, step = RNG.uniform(-1, 1, (5, 4, 3)), np.full(5, 2 / 255)
    split = halved(weights, [1, 3], step)
    assert split.shape == (5, 6, 3)
    np.testing.assert_array_equal(split[:, [0, 2]], weights[:, [0, 2]])
    for column, added in ((1, 4), (3, 5)):
        np.testing.assert_allclose(split[:, column] + split[:, added], weights[:, column])
        for i in np.ndindex(5, 3):
            w, grid = weights[i[0], column, i[1]], step[0]
            first, second = ((w / grid - 0.5) / 2, (w / grid + 0.5) / 2)
            assert split[i[0], column, i[1]] == pytest.approx(first * grid)
            assert split[i[0], added, i[1]] == pytest.approx(second * grid)
            assert np.floor(first + 0.5) + np.floor(second + 0.5) == np.floor(w / grid + 0.5)


def test_the_channel_with_the_largest_weight_is_split_each_time() -> None:
    largest = np.array([[1.0, 8.0, 3.0, 2.0]])
    work, expected = list(largest[0]), []
    for _ in range(4):  # literally
        expected.append(int(np.argmax(work)))
        work[expected[-1]] /= 2
        work.append(work[expected[-1]])
    assert outlying_channels(largest, 4) == expected
    assert outlying_channels(np.array([[1.0, 5, 1], [1, 1, 6], [1, 1, 6]]), 1) == [2]  # it helps two scales


def test_planted_outliers_no_longer_harm(model: Callable[..., ir.Model], samples: Any) -> None:
    """Two splits halve the scale of the tensor, and with it the noise of all weights but the outlier."""
    before = model("a = MatMul(x, n) r = Relu(a) y = MatMul(r, m)", ROWS)
    feeds = [{"x": RNG.normal(size=(64, 6)).astype(np.float32)} for _ in range(3)]
    ctx = PassContext(get_target("cpu-x86-vnni"), ranges=RangeStore(before, samples(feeds)))
    split = before.clone()
    SplitOutliers(SplitOutliersConfig(ratio=0.2, multiple=1)).run(split, ctx)
    static = QuantizeStatic(QuantizeStaticConfig(per_channel=False))
    found = []
    for source in (before, split):
        work = source.clone()
        assert static.run(work, ctx).modified
        wanted, got = (open_session(m).run(feeds[0])["y"] for m in (before, work))
        rest = np.arange(6) != 1  # of the output with the outlier, the outlier is all
        found.append(sqnr(wanted[:, rest], got[:, rest]))
    assert found[1] > found[0] + 3


DECLINED = {
    "groups": ("y = Conv <group = 2> (x, g)", "in groups"),
    "shared": ("a = Conv(x, o) y = Conv(a, o)", "used elsewhere"),
    "nothing sticks out": ("y = Conv(x, even)", "no weights stick out"),
}


@pytest.mark.parametrize(("nodes", "reason"), [pytest.param(*case, id=name) for name, case in DECLINED.items()])
def test_what_is_declined(model: Callable[..., ir.Model], apply: Any, nodes: str, reason: str) -> None:
    others = {"even": np.ones((10, 10, 1, 1), np.float32)} if "even" in nodes else {}
    outcome = apply(ONE_CHANNEL, model(nodes, **others))
    assert not outcome.stats.modified
    assert reason in outcome.reasons


def test_narrow_layers_turned_inputs_and_excluded_ones_decline(model: Callable[..., ir.Model], apply: Any) -> None:
    assert "4 channels more would be too many for 10" in apply(SplitOutliers(), model("y = Conv(x, o)")).reasons
    turned = model("y = Gemm <transA = 1> (x, m)", "g (float[10, N] x) => (float[A, B] y)")
    assert "turned" in apply(ONE_CHANNEL, turned).reasons
    named = model("y = Conv(x, o)")
    named.graph[0].name = "head"
    config = SplitOutliersConfig(ratio=0.1, multiple=1, exclude=("head",))
    assert apply(SplitOutliers(config), named).reasons == "excluded"


def test_constant_nodes_and_a_second_run(model: Callable[..., ir.Model], apply: Any) -> None:
    source = model(f"{CONV} r = Relu(a) y = Conv(r, o)")
    for name, value in list(source.graph.initializers.items()):
        node = ir.node("Constant", [], attributes={"value": value.const_value})
        node.outputs[0].name = f"{name}.constant"
        source.graph.insert_before(source.graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
        del source.graph.initializers[name]
    outcome = apply(ONE_CHANNEL, source.clone())
    assert outcome.ops == {"Conv": 2, "Relu": 1}
    assert close(source, outcome.model)
    again = apply(ONE_CHANNEL, outcome.model)
    assert "no weights stick out" in again.reasons  # of the first layer
    assert again.model.graph[2].inputs[1].shape[1] <= 13


def test_wrong_settings() -> None:
    for settings in ({"ratio": 0}, {"ratio": 0.3}, {"multiple": 0}, {"gain": 1.0}, {"bits": 9}):
        with pytest.raises(RecipeError):
            SplitOutliersConfig(**settings)
