"""Each technique on each kind of layer, body and opset: what becomes integer, and that the answers stay."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import Pass, PassContext
from onnxcomp.passes.quantize.dynamic import QuantizeDynamic, QuantizeDynamicConfig
from onnxcomp.passes.quantize.static import QuantizeStatic
from onnxcomp.passes.quantize.weight_only import QuantizeWeights, QuantizeWeightsConfig
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.runtime import optimized_graph
from onnxcomp.search.candidates import cleanup
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
STATIC, DYNAMIC = QuantizeStatic(), QuantizeDynamic(QuantizeDynamicConfig(min_elements=0))
WEIGHTS = QuantizeWeights(QuantizeWeightsConfig(min_elements=0))
LEAST_SQNR = 22.0  # dB; a few layers of Gaussian weights in 8 bits measure 25 and more
KEPT = ["initializers", "Constant nodes"]
IMAGE = "g (float[2, 8, 6, 6] x) => (float[2, 8, 6, 6] y)"
ROWS = "g (float[4, 64] x) => (float[4, 64] y)"
LOOP = "body = b (int64 i, bool c, float[4, 64] s) => (bool d, float[4, 64] t)"
STEP = "d = Identity(c) u = MatMul(s, w) v = MatMul(s, w2) z = Add(u, v) t = Tanh(z)"


@dataclass(frozen=True)
class Case:
    """A model and what each technique promises for it.

    Attributes:
        text: Its graph.
        shapes: Of its weights.
        static: Kernels that onnxruntime runs after `quantize-static`.
        dynamic: Layers that `quantize-dynamic` takes.
        weights: How many weights `quantize-weights` takes.
        more: Further constants.
    """

    text: str
    shapes: dict[str, tuple[int, ...]]
    static: dict[str, int] = field(default_factory=dict)
    dynamic: dict[str, int] = field(default_factory=dict)
    weights: int = 1
    more: dict[str, Any] = field(default_factory=dict)


def conv(sides: tuple[int, ...], kernel: tuple[int, ...], group: int = 1) -> Case:
    """Return a convolution of 64 channels whose result has the size of the image."""
    image = ", ".join(map(str, (2, 64, *sides)))
    pads = [side // 2 for side in kernel] * 2
    node = f"Conv <pads = {pads}, group = {group}> (x, w, b)"
    text = f"g (float[{image}] x) => (float[{image}] y) {{ y = {node} }}"
    return Case(text, {"w": (64, 64 // group, *kernel), "b": (64,)}, {"QLinearConv": 1})


CASES = {
    "1-D": conv((12,), (3,)),
    "1-D grouped": conv((12,), (3,), group=4),
    "1-D depthwise": conv((12,), (9,), group=64),
    "2-D grouped": conv((6, 6), (3, 3), group=4),
    "2-D depthwise": conv((6, 6), (3, 3), group=64),
    "3-D": conv((4, 4, 4), (3, 3, 3)),
    "3-D grouped": conv((4, 4, 4), (3, 3, 3), group=4),
    "3-D depthwise": conv((4, 4, 4), (3, 3, 3), group=64),
    "convolution shared": Case(
        f"{IMAGE} {{ a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, w) }}",
        {"w": (8, 8, 3, 3)},
        {"QLinearConv": 2},
    ),
    "product shared": Case(
        f"{ROWS} {{ a = MatMul(x, w) r = Relu(a) y = Gemm <transB = 1> (r, w) }}",
        {"w": (64, 64)},
        {"QLinearMatMul": 1, "QGemm": 1},
        {"MatMul": 1, "Gemm": 1},
    ),
    "transposed convolution": Case(
        "g (float[2, 8, 6, 6] x) => (float[2, 8, 8, 8] y) { y = ConvTranspose (x, w) }", {"w": (8, 8, 3, 3)}
    ),
    "transposed convolution, grouped, behind a convolution": Case(
        """g (float[2, 8, 6, 6] x) => (float[2, 32, 12, 12] y) { a = Conv <pads = [1, 1, 1, 1]> (x, w)
        r = Relu(a) y = ConvTranspose <group = 2, strides = [2, 2]> (r, w2) }""",
        {"w": (8, 8, 3, 3), "w2": (8, 16, 2, 2)},
        {"QLinearConv": 1, "ConvTranspose": 1},
        weights=2,
    ),
    "LSTM": Case(
        "g (float[5, 2, 24] x) => (float[5, 1, 2, 16] y) { y = LSTM <hidden_size = 16> (x, w, r) }",
        {"w": (1, 64, 24), "r": (1, 64, 16)},
        dynamic={"LSTM": 1},
        weights=2,
    ),
    "GRU": Case(
        """g (float[5, 2, 24] x) => (float[5, 2, 2, 16] y)
        { y = GRU <hidden_size = 16, direction = "bidirectional"> (x, w, r) }""",
        {"w": (2, 48, 24), "r": (2, 48, 16)},
        weights=2,
    ),
    "Relu between integers and float": Case(
        "g (float[4, 64] x) => (float[4, 64] y) { a = Gemm(x, w) h = Relu(a) t = Tanh(h) y = MatMul(t, w2) }",
        {"w": (64, 64), "w2": (64, 64)},
        {"QGemm": 1, "MatMulIntegerToFloat": 1},
        {"Gemm": 1, "MatMul": 1},
        weights=2,
    ),
    "If": Case(
        """g (float[4, 64] x, bool c) => (float[4, 64] y) { a = MatMul(x, w) h = Relu(a)
            i = If (c) <then_branch = p () => (float[4, 64] p) { o = MatMul(h, w) p = MatMul(o, w2) },
                        else_branch = q () => (float[4, 64] q) { q = Neg(h) }>
            y = MatMul(i, w) }""",
        {"w": (64, 64), "w2": (64, 64)},
        {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1},
        {"MatMul": 4},
        weights=2,
    ),
    "Loop": Case(
        f"{ROWS} {{ a = MatMul(x, w) h = Relu(a) l = Loop (n, yes, h) <{LOOP} {{ {STEP} }}> y = MatMul(l, w) }}",
        {"w": (64, 64), "w2": (64, 64)},
        {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1},
        {"MatMul": 4},
        weights=2,
        more={"n": np.int64(2), "yes": np.array(True)},
    ),
    "Scan": Case(
        """g (float[4, 64] x) => (float[4, 64] y) { a = MatMul(x, w) h = Relu(a)
            f, e = Scan <num_scan_inputs = 1, body = b (float[1, 64] s, float[64] v) => (float[1, 64] t, float[1, 64] o)
                { u = MatMul(s, w) k = Add(u, v) t = Tanh(k) o = MatMul(t, w2) }> (zero, h)
            j = Squeeze(e, one) y = MatMul(j, w) }""",
        {"w": (64, 64), "w2": (64, 64)},
        {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1},
        {"MatMul": 4},
        weights=2,
        more={"zero": np.zeros((1, 64), np.float32), "one": np.array([1])},
    ),
}


@pytest.fixture
def run(parse: Parse, quantize: Any, gaussian: Any) -> Callable[..., Any]:
    def run(technique: Pass[Any], name: str, kept: str) -> Any:
        case = CASES[name]
        weights = {key: gaussian(*shape, seed=i) for i, (key, shape) in enumerate(case.shapes.items())}
        proto = parse(case.text, weights | case.more)
        if kept == "Constant nodes":
            nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
            del proto.graph.initializer[:]
            for node in nodes:
                proto.graph.node.insert(0, node)
        done = quantize(technique, proto)
        done.check()
        assert done.sqnr > LEAST_SQNR
        if name == "If":
            done.feeds = [{**feed, "c": np.array(False)} for feed in done.feeds]
            assert done.sqnr > LEAST_SQNR
        return done

    return run


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("name", CASES)
def test_static(run: Any, name: str, kept: str) -> None:
    promised = CASES[name].static
    done = run(STATIC, name, kept)
    fused = done.fused
    assert {op: fused[op] for op in promised} == promised
    assert bool(done.ops["QuantizeLinear"]) is bool(promised)
    assert bodies(done.before) == bodies(done.after)  # they stay as they are


def bodies(model: ir.Model) -> list[list[str]]:
    return [[node.op_type for node in graph] for graph in model.graph.subgraphs()]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("name", CASES)
def test_dynamic(run: Any, name: str, kept: str) -> None:
    promised = CASES[name].dynamic
    done = run(DYNAMIC, name, kept)
    assert done.stats.counters == promised
    every = Counter(node.op_type for node in done.after.graph.all_nodes())
    assert every["MatMulInteger"] == promised.get("MatMul", 0) + promised.get("Gemm", 0)
    assert every["DynamicQuantizeLSTM"] == promised.get("LSTM", 0)
    assert not {"MatMul", "Gemm", "LSTM"} & set(every)
    assert any("no integer kernel" in why for why in done.reasons.values()) is (name == "GRU")


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("name", CASES)
def test_weights(run: Any, name: str, kept: str) -> None:
    done = run(WEIGHTS, name, kept)
    assert sum(done.stats.counters.values()) == CASES[name].weights
    tensors = [v.const_value for v in done.after.graph.initializers.values()]
    matrices = {np.prod(shape) for shape in CASES[name].shapes.values() if len(shape) > 1}
    assert not [t for t in tensors if t.dtype.name == "FLOAT" and t.size in matrices]


OLD = """g (float[2, 3, 8, 8] x, float[5, 2, 24] s) => (float[2, 10] y, float[5, 1, 2, 16] z) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(c) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    d = Conv <pads = [1, 1, 1, 1], group = 8> (p, v) f = Flatten(d) y = Gemm(f, m, n)
    z = LSTM <hidden_size = 16> (s, k, l)
}"""
SHAPES = {
    "w": (8, 3, 3, 3),
    "b": (8,),
    "v": (8, 1, 3, 3),
    "m": (128, 10),
    "n": (10,),
    "k": (1, 64, 24),
    "l": (1, 64, 16),
}
OPSETS = (7, 9, 10, 11, 12, 13, 17, 21, 26)
RECIPES = {
    "static": (Step("quantize-static"), {"QLinearConv": 2, "MaxPool": 1, "QGemm": 1, "LSTM": 1}),
    "dynamic": (Step("quantize-dynamic", {"min_elements": 0}), {"DynamicQuantizeMatMul": 1, "DynamicQuantizeLSTM": 1}),
    "weights": (Step("quantize-weights", {"min_elements": 0}), {"MatMulNBits": 1, "LSTM": 1}),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(parse: Parse, gaussian: Any, samples: Any, opset: int, recipe: str) -> None:
    """Behind the clean-up and the upgrade that `optimize` begins with; the verifier runs every exact step."""
    shapes = {key: gaussian(*shape) for key, shape in SHAPES.items()}
    model = load(parse(OLD, shapes, opset=opset).SerializeToString())
    feeds = [{"x": gaussian(2, 3, 8, 8, seed=i, fan_in=1), "s": gaussian(5, 2, 24, seed=i, fan_in=1)} for i in range(4)]
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=samples(feeds))
    verifier = Verifier(model, feeds)
    exact = Recipe((*cleanup().steps, Step("upgrade-opset", {"minimum": 13})))
    before, reports = run_recipe(model, exact, ctx, verifier)
    assert before.opset_imports[""] == max(opset, 13)
    step, promised = RECIPES[recipe]
    ctx.ranges = RangeStore(before, ctx.samples)
    after, more = run_recipe(before, Recipe((step,)), ctx, verifier)
    assert [report.failure for report in (*reports, *more) if report.failure] == []
    fused = Counter(node.op_type for node in onnx.load_from_string(optimized_graph(serialized(after))).graph.node)
    assert {op: fused[op] for op in promised} == promised
    assert not {"FusedConv", "Gemm", "FusedGemm"} & set(fused) or recipe != "static"
    plain, changed, fidelity = open_session(model), open_session(after), Fidelity()
    for feed in feeds:
        fidelity.add(plain.run(feed), changed.run(feed))
    assert fidelity.sqnr > LEAST_SQNR
