from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.metrics import sqnr
from onnxcomp.model import load, open_session, serialized, size
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup.expand_hard_swish import ExpandHardSwish
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.runtime import optimized_graph
from onnxcomp.statistics import RangeStore
from onnxcomp.target import TARGETS, get_target

Parse = Callable[..., onnx.ModelProto]
STATIC = QuantizeStatic()
LEAST_SQNR = 25.0  # dB; Gaussian data in a few layers measures 28 and more
IMAGE = "g (float[N, 8, 8, 8] x) => (float[N, 8, 8, 8] y)"


def image_graph(nodes: str, *, out: str = "N, 8, 8, 8") -> str:
    return f"g (float[N, 8, 8, 8] x) => (float[{out}] y) {{ {nodes} }}"


def dense_graph(nodes: str, *, out: int = 32) -> str:
    return f"g (float[N, 64] x) => (float[N, {out}] y) {{ {nodes} }}"


CONV = "Conv <pads = [1, 1, 1, 1]>"
POOL = "<kernel_shape = [2, 2], strides = [2, 2]>"
FUSED: dict[str, tuple[str, dict[str, int]]] = {
    # name: (graph, operators that onnxruntime must run)
    "conv": (image_graph(f"y = {CONV} (x, w33, b8)"), {"QLinearConv": 1}),
    "conv without bias": (image_graph(f"y = {CONV} (x, w33)"), {"QLinearConv": 1}),
    "conv relu": (image_graph(f"a = {CONV} (x, w33, b8) y = Relu(a)"), {"QLinearConv": 1}),
    "conv clip": (image_graph(f"a = {CONV} (x, w33, b8) y = Clip(a, zero, six)"), {"QLinearConv": 1}),
    "conv conv": (image_graph(f"a = {CONV} (x, w33, b8) y = {CONV} (a, v33)"), {"QLinearConv": 2}),
    "auto pad": (image_graph('y = Conv <auto_pad = "SAME_UPPER"> (x, w33, b8)'), {"QLinearConv": 1}),
    "grouped": (image_graph("y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, grouped, b8)"), {"QLinearConv": 1}),
    "depthwise": (image_graph("y = Conv <group = 8, pads = [1, 1, 1, 1]> (x, depthwise, b8)"), {"QLinearConv": 1}),
    "residual": (
        image_graph(
            f"a = {CONV} (x, w33, b8) r = Relu(a) b = {CONV} (r, v33) s = Add(b, r) t = Relu(s) y = {CONV} (t, w33)"
        ),
        {"QLinearConv": 3, "QLinearAdd": 1},
    ),
    "silu": (
        image_graph(f"a = {CONV} (x, w33, b8) s = Sigmoid(a) t = Mul(a, s) y = {CONV} (t, v33)"),
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    "concat": (
        image_graph(f"a = {CONV} (x, w33, b8) b = {CONV} (x, v33) c = Concat <axis = 1> (a, b) y = {CONV} (c, wide)"),
        {"QLinearConv": 3, "QLinearConcat": 1},
    ),
    "max pool": (
        image_graph(f"a = {CONV} (x, w33, b8) p = MaxPool {POOL} (a) y = {CONV} (p, v33)", out="N, 8, 4, 4"),
        {"QLinearConv": 2, "MaxPool": 1},
    ),
    "average pool": (
        image_graph(f"a = {CONV} (x, w33, b8) p = AveragePool {POOL} (a) y = {CONV} (p, v33)", out="N, 8, 4, 4"),
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "classifier": (
        image_graph(
            f"a = {CONV} (x, w33, b8) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, head, b3)", out="N, 3"
        ),
        {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    ),
    "reshape": (
        image_graph(f"a = {CONV} (x, w33, b8) f = Reshape(a, rows) y = MatMul(f, flat)", out="N, 4"),
        {"QLinearConv": 1, "MatMulIntegerToFloat": 1},
    ),
    "gemm": (dense_graph("y = Gemm(x, m, b32)"), {"QGemm": 1}),
    "gemm without bias": (dense_graph("y = Gemm(x, m)"), {"QGemm": 1}),
    "gemm transposed": (dense_graph("y = Gemm <transB = 1> (x, mt, b32)"), {"QGemm": 1}),
    "gemm chain": (dense_graph("a = Gemm(x, m, b32) r = Relu(a) y = Gemm(r, n)", out=16), {"QGemm": 2}),
    "matmul": (dense_graph("y = MatMul(x, m)"), {"MatMulIntegerToFloat": 1}),
    "matmul chain": (
        dense_graph("a = MatMul(x, m) y = MatMul(a, n)", out=16),
        {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1},
    ),
}  # fmt: skip


@pytest.fixture
def constants(weights: Any, gaussian: Any) -> dict[str, np.ndarray]:
    return {
        **weights,
        "zero": np.float32(0),
        "six": np.float32(6),
        "grouped": gaussian(8, 2, 3, 3),
        "depthwise": gaussian(8, 1, 3, 3),
        "wide": gaussian(8, 16, 3, 3),
        "head": gaussian(8, 3, fan_in=8),
        "b3": gaussian(3, fan_in=4),
        "rows": np.array([-1, 512]),
        "flat": gaussian(512, 4, fan_in=512),
        "mt": np.ascontiguousarray(weights["m"].T),
    }


def pick(text: str, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the constants that a graph names."""
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: value for name, value in constants.items() if name in words}


@pytest.mark.parametrize("name", FUSED)
def test_onnxruntime_runs_it_in_integers(parse: Parse, quantize: Any, constants: Any, name: str) -> None:
    text, promised = FUSED[name]
    done = quantize(STATIC, parse(text, pick(text, constants)))
    assert done.stats.modified
    done.check()
    fused = done.fused
    assert {op: fused[op] for op in promised} == promised
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Add", "Mul", "Concat"} & set(fused)
    assert done.sqnr > LEAST_SQNR


@pytest.mark.parametrize(
    ("shape", "kernel"), [((2, 4, 16), (6, 4, 3)), ((2, 4, 6, 6, 6), (6, 4, 3, 3, 3))], ids=["1-D", "3-D"]
)
def test_convolutions_of_other_ranks(
    parse: Parse, quantize: Any, gaussian: Any, shape: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    text = f"g (float[{', '.join(map(str, shape))}] x) => (float y) {{ y = Conv(x, w) }}"
    proto = parse(text, {"w": gaussian(*kernel)})
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    done = quantize(STATIC, proto)
    done.check()
    assert done.fused["QLinearConv"] == 1
    assert done.sqnr > LEAST_SQNR


DECLINED: dict[str, tuple[str, str]] = {
    "weight given at run time": (
        "g (float[N, 64] x, float[64, 32] v) => (float[N, 32] y) { y = MatMul(x, v) }", "no integer producer"),
    "float64": ("g (double[N, 64] x) => (double[N, 32] y) { y = MatMul(x, double) }", "not float32"),
    "float16": ("g (float16[N, 64] x) => (float16[N, 32] y) { y = MatMul(x, half) }", "not float32"),
    "NaN": (dense_graph("y = MatMul(x, nan)"), "NaN"),
    "infinity": (dense_graph("y = MatMul(x, inf)"), "infinity"),
    "NaN in the bias": (dense_graph("y = Gemm(x, m, nanbias)"), "bias holds NaN"),
    "transA": ("g (float[64, N] x) => (float[N, 32] y) { y = Gemm <transA = 1> (x, m) }", "transA"),
    "alpha": (dense_graph("y = Gemm <alpha = 0.5> (x, m)"), "alpha"),
    "beta": (dense_graph("y = Gemm <beta = 0.5> (x, m, b32)"), "beta"),
    "bias given at run time": (
        "g (float[N, 64] x, float[32] v) => (float[N, 32] y) { y = Gemm(x, m, v) }", "bias is no constant"),
    "bias of one number": (dense_graph("y = Gemm(x, m, one)"), "bias is no constant vector"),
    "stacked weights": (
        "g (float[3, N, 64] x) => (float[3, N, 32] y) { y = MatMul(x, stacked) }", "not a matrix"),
    "all constant": (dense_graph("a = MatMul(left, m) y = Add(a, b32) z = Neg(x)"), "all inputs are constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLINED)
def test_near_misses_are_left_alone(parse: Parse, quantize: Any, constants: Any, gaussian: Any, name: str) -> None:
    text, reason = DECLINED[name]
    m = constants["m"]
    nan, inf, nanbias = m.copy(), m.copy(), constants["b32"].copy()
    nan[1, 2], inf[3, 4], nanbias[5] = np.nan, -np.inf, np.nan
    more = {
        "half": m.astype(np.float16),
        "nan": nan,
        "inf": inf,
        "nanbias": nanbias,
        "one": np.ones(1),
        "stacked": gaussian(3, 64, 32),
        "left": gaussian(2, 64),
    }
    proto = parse(text, pick(text, constants | more))
    if name == "float64":
        proto.graph.initializer.append(numpy_helper.from_array(m.astype(np.float64), "double"))
    done = quantize(STATIC, proto)
    assert not done.stats.modified
    assert done.after.graph.node(0).op_type == done.before.graph.node(0).op_type
    assert any(reason in why for why in done.reasons.values()), done.reasons


def test_an_initializer_that_callers_may_override(parse: Parse, quantize: Any, weights: Any) -> None:
    """Old exporters list all of them; one listed beside others that are not is meant so."""
    text = "g (float[N, 64] x, float[64, 32] m) => (float[N, 32] y) { a = MatMul(x, m) y = Mul(a, two) }"
    done = quantize(STATIC, parse(text, {"m": weights["m"], "two": np.array(2.0)}))
    assert not done.stats.modified


def test_old_opsets(parse: Parse, quantize: Any, weights: Any) -> None:
    done = quantize(STATIC, parse(dense_graph("y = MatMul(x, m)"), {"m": weights["m"]}, opset=12))
    assert not done.stats.modified
    assert "upgrade-opset" in done.stats.skipped[0].reason


def test_without_calibration(parse: Parse, weights: Any) -> None:
    model = load(parse(dense_graph("y = MatMul(x, m)"), {"m": weights["m"]}).SerializeToString())
    with pytest.raises(PassError, match="calibration"):
        STATIC.run(model, PassContext(get_target("cpu-x86-vnni")))


def test_settings(parse: Parse, quantize: Any, constants: Any) -> None:
    text, _ = FUSED["classifier"]
    proto = parse(text, pick(text, constants))
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    only_conv = quantize(QuantizeStatic(QuantizeStaticConfig(anchors=("Conv",))), proto)
    assert (only_conv.fused["QLinearConv"], only_conv.fused["QGemm"]) == (1, 0)
    excluded = quantize(QuantizeStatic(QuantizeStaticConfig(exclude=("n0",))), proto)
    assert (excluded.fused["QLinearConv"], excluded.fused["QGemm"]) == (0, 1)
    assert excluded.reasons["n0"] == "excluded"
    whole = quantize(QuantizeStatic(QuantizeStaticConfig(per_channel=False)), proto)
    assert whole.fused["QLinearConv"] == 1
    assert whole.sqnr > LEAST_SQNR - 6
    for bad in ({"method": "magic"}, {"anchors": ("Add",)}):
        with pytest.raises(RecipeError):
            QuantizeStaticConfig(**bad)


def test_units_are_what_it_quantizes(parse: Parse, quantize: Any, constants: Any) -> None:
    text, _ = FUSED["residual"]
    proto = parse(text, pick(text, constants))
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    done = quantize(STATIC, proto)
    units = STATIC.units(done.before, done.ctx)
    assert [unit.op_type for unit in units] == ["Conv"] * 3
    assert [unit.nodes for unit in units] == [("n0",), ("n2", "n3"), ("n5",)]  # the sum goes with the branch before it
    assert sum(done.stats.counters.values()) == sum(len(unit.nodes) for unit in units)


def test_the_file_shrinks(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = image_graph("a = Conv(x, big) y = Conv(a, back)")
    done = quantize(STATIC, parse(text, {"big": gaussian(256, 8, 1, 1), "back": gaussian(8, 256, 1, 1)}))
    assert size(done.after) < 0.5 * size(done.before)
    float_bytes = sum(v.const_value.nbytes for v in done.after.graph.initializers.values() if v.dtype.name == "FLOAT")
    assert float_bytes <= 4 * (256 + 8) * 2 + 64  # weight and bias scales


def test_a_second_run_does_no_harm(parse: Parse, quantize: Any, again: Any, constants: Any) -> None:
    text, promised = FUSED["residual"]
    first = quantize(STATIC, parse(text, pick(text, constants)))
    second = again(STATIC, first)
    second.check()
    if second.stats.modified:
        assert second.sqnr > 40
    fused = second.fused
    assert {op: fused[op] for op in promised} == promised


def test_the_original_names_stay_unique(parse: Parse, quantize: Any, constants: Any) -> None:
    """The model has tensors and nodes with the names that the pass would like to use."""
    text = image_graph(f"q0 = {CONV} (x, q1, b8) q2 = Relu(q0) q3 = {CONV} (q2, q1) y = {CONV} (q3, q1)")
    proto = parse(text, {"q1": constants["w33"], "b8": constants["b8"]})
    for node, name in zip(proto.graph.node, ("q4", "", "q6", ""), strict=True):
        node.name = name
    done = quantize(STATIC, proto)
    done.check()
    assert done.fused["QLinearConv"] == 3
    assert done.sqnr > LEAST_SQNR


def test_a_weight_that_two_layers_share(parse: Parse, quantize: Any, gaussian: Any) -> None:
    """Once its output channels are rows, once columns."""
    text = "g (float[N, 32] x) => (float[N, 32] y, float[N, 32] z) { y = MatMul(x, w) z = Gemm <transB = 1> (x, w) }"
    w = gaussian(32, 32) * np.geomspace(0.01, 1, 32, dtype=np.float32)[:, None]
    done = quantize(STATIC, parse(text, {"w": w}))
    done.check()
    assert done.fused["MatMulIntegerToFloat"] + done.fused["QGemm"] == 2
    assert done.sqnr > LEAST_SQNR


def test_a_bias_that_is_shared(parse: Parse, quantize: Any, constants: Any) -> None:
    text = image_graph(f"a = {CONV} (x, w33, b8) y = {CONV} (a, v33, b8)")
    done = quantize(STATIC, parse(text, pick(text, constants)))
    done.check()
    assert done.fused["QLinearConv"] == 2
    assert done.sqnr > LEAST_SQNR


def test_graph_outputs_in_the_middle(parse: Parse, quantize: Any, constants: Any) -> None:
    images = ", ".join(f"float[N, 8, 8, 8] {name}" for name in "yar")
    text = f"""g (float[N, 8, 8, 8] x) => ({images}, float[N, 8, 4, 4] p)
        {{ a = {CONV} (x, w33, b8) r = Relu(a) p = MaxPool {POOL} (r) y = {CONV} (r, v33) }}"""
    done = quantize(STATIC, parse(text, pick(text, constants)))
    done.check()
    assert done.fused["QLinearConv"] == 2
    assert done.sqnr > LEAST_SQNR


def test_a_graph_output_that_is_read_by_integers_and_floats(parse: Parse, quantize: Any, constants: Any) -> None:
    text = f"""g (float[N, 8, 8, 8] x) => (float[N, 8, 8, 8] y, float[N, 8, 8, 8] a)
        {{ a = {CONV} (x, w33, b8) b = {CONV} (a, v33) c = Erf(a) y = Div(c, b8e) }}"""
    proto = parse(text, pick(text, constants) | {"b8e": constants["b8"].reshape(1, 8, 1, 1) + 2})
    proto.graph.output.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, ["N", 8, 8, 8]))
    done = quantize(STATIC, proto)
    done.check()
    assert done.sqnr > LEAST_SQNR


def test_a_branch_reads_an_integer_result(parse: Parse, quantize: Any, constants: Any) -> None:
    text = f"""g (bool[1] c, float[N, 8, 8, 8] x) => (float[N, 8, 8, 8] y) {{
        a = {CONV} (x, w33, b8)
        b = {CONV} (a, v33)
        d = If (c) <
            then_branch = t () => (float[N, 8, 8, 8] p) {{ p = Neg(a) }},
            else_branch = e () => (float[N, 8, 8, 8] q) {{ q = {CONV} (a, w33) }}
        >
        y = Sub(b, d)
    }}"""
    done = quantize(STATIC, parse(text, pick(text, constants)))
    done.check()
    assert done.sqnr > LEAST_SQNR
    for flag in (True, False):
        done.feeds = [dict(feed) | {"c": np.array([flag])} for feed in done.feeds]
        assert done.sqnr > LEAST_SQNR


def test_weights_of_branches_are_left_alone(parse: Parse, quantize: Any, constants: Any) -> None:
    text = """g (bool[1] c, float[N, 64] x) => (float[N, 32] y) {
        y = If (c) <
            then_branch = t () => (float[N, 32] p) { p = MatMul(x, m) },
            else_branch = e () => (float[N, 32] q) { r = MatMul(x, m) q = Neg(r) }
        >
    }"""
    done = quantize(STATIC, parse(text, {"m": constants["m"]}))
    assert not done.stats.modified
    mixed = text.replace("y = If", "z = If").replace("\n    }", "\n a = MatMul(x, m) y = Add(a, z) }")
    done = quantize(STATIC, parse(mixed, {"m": constants["m"]}))
    done.check()
    assert done.stats.modified
    assert done.sqnr > LEAST_SQNR


def test_uneven_concats_stay_float(parse: Parse, quantize: Any, constants: Any, gaussian: Any) -> None:
    text = image_graph(
        f"a = {CONV} (x, w33, b8) b = {CONV} (x, v) cat = Concat <axis = 1> (a, b) y = {CONV} (cat, wide)"
    )
    proto = parse(text, pick(text, constants) | {"v": constants["v33"] * 100})
    proto.graph.node[2].name = "cat"
    done = quantize(STATIC, proto)
    done.check()
    assert "differ" in done.reasons["cat"]
    assert "cat" in [node.name for node in done.after.graph]


def test_joins_and_movers_need_integer_neighbours(parse: Parse, quantize: Any, constants: Any) -> None:
    text = image_graph(f"s = Sigmoid(x) a = {CONV} (s, w33) t = Add(a, x) f = Erf(t) y = Mul(f, s)")
    done = quantize(STATIC, parse(text, pick(text, constants)))
    done.check()
    assert done.fused["QLinearConv"] == 1
    assert {"QLinearSigmoid", "QLinearAdd", "QLinearMul"} & set(done.fused) == set()
    assert set(done.reasons.values()) >= {"no integer producer", "no integer consumer"}


def test_a_tail_that_cuts_above_zero_is_no_tail(parse: Parse, quantize: Any, constants: Any) -> None:
    text = image_graph(f"a = {CONV} (x, w33, b8) c = Clip(a, half, six) y = {CONV} (c, v33)")
    done = quantize(STATIC, parse(text, pick(text, constants) | {"half": np.float32(0.5)}))
    done.check()
    assert done.sqnr > LEAST_SQNR


def test_softmax_has_a_quantizer_of_its_own(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = """g (float[N, 8, 16] x) => (float[N, 8, 16] y) { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
        t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) p = Softmax <axis = -1> (s) c = MatMul(p, v)
        y = MatMul(c, wo) }"""
    names = ("wq", "wk", "wv", "wo")
    done = quantize(STATIC, parse(text, {name: gaussian(16, 16, seed=i) for i, name in enumerate(names)}))
    done.check()
    assert done.fused["QLinearSoftmax"] == 1
    assert done.sqnr > LEAST_SQNR - 5


MASKED = """g (float[N, 8, 16] x{input}) => (float[N, 8, 16] y) {{ q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
    t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) m = Add(s, mask) p = Softmax <axis = -1> (m) c = MatMul(p, v)
    y = MatMul(c, wo) }}"""


@pytest.mark.parametrize(
    ("hidden", "given"),
    [
        (-np.inf, False),
        (float(np.finfo(np.float32).min), False),
        (-np.inf, True),
    ],
    ids=["constant infinity", "constant smallest float", "infinity as an input"],
)
def test_attention_masks_stay_float(parse: Parse, quantize: Any, gaussian: Any, hidden: float, given: bool) -> None:
    weights = {name: gaussian(16, 16, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    mask = np.where(np.tril(np.ones((8, 8))), 0, hidden).astype(np.float32)
    feeds = [{"x": gaussian(2, 8, 16, fan_in=1, seed=i)} for i in range(4)]
    if given:
        feeds = [feed | {"mask": mask} for feed in feeds]
        done = quantize(STATIC, parse(MASKED.format(input=", float[8, 8] mask"), weights), feeds)
    else:
        done = quantize(STATIC, parse(MASKED.format(input=""), weights | {"mask": mask}), feeds)
    done.check()
    assert done.stats.counters["int8 anchors"] == 4
    assert done.sqnr > LEAST_SQNR - 5


def test_inputs_that_are_always_zero(parse: Parse, quantize: Any, constants: Any) -> None:
    text, _ = FUSED["residual"]
    proto = parse(text, pick(text, constants))
    feeds = [{"x": np.zeros((2, 8, 8, 8), np.float32)}]
    done = quantize(STATIC, proto, feeds)
    done.check()
    assert done.sqnr > LEAST_SQNR


def test_a_bias_far_larger_than_the_weights(parse: Parse, quantize: Any, gaussian: Any) -> None:
    bias = np.array([1e6, 0, -1e6, 1, 0, 0, 0, 0], np.float32)
    w = gaussian(8, 8, 3, 3) * np.float32(1e-6)
    w[1] = 0
    done = quantize(STATIC, parse(image_graph("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)"), {"w": w, "b": bias}))
    done.check()
    assert done.sqnr > LEAST_SQNR


BLOCKS: dict[str, str] = {
    # each takes 8-channel images of 8x8 and gives the same; {a} and {b} are earlier tensors, {v} is the new one
    "conv": "{v} = Conv <pads = [1, 1, 1, 1]> ({a}, {w})",
    "conv relu": "{v}c = Conv <pads = [1, 1, 1, 1]> ({a}, {w}, bias) {v} = Relu({v}c)",
    "relu": "{v} = Relu({a})",
    "clip": "{v} = Clip({a}, , six)",
    "sigmoid": "{v} = Sigmoid({a})",
    "leaky": "{v} = LeakyRelu({a})",
    "add": "{v} = Add({a}, {b})",
    "add constant": "{v} = Add({a}, channel)",
    "mul constant": "{v} = Mul(channel, {a})",
    "silu": "{v}s = Sigmoid({a}) {v} = Mul({a}, {v}s)",
    "concat": "{v}c = Concat <axis = 1> ({a}, {b}) {v} = Conv ({v}c, wide)",
    "split": "{v}a, {v}b = Split <axis = 1> ({a}) {v} = Concat <axis = 1> ({v}b, {v}a)",
    "max": "{v} = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({a})",
    "average": "{v} = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({a})",
    "transpose": "{v} = Transpose <perm = [0, 1, 3, 2]> ({a})",
    "resize": "{v}m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> ({a}) {v} = Resize({v}m, , double)",
    "reshape": "{v}r = Reshape({a}, flat) {v} = Reshape({v}r, image)",
    "gate": "{v}p = GlobalAveragePool({a}) {v}s = Sigmoid({v}p) {v} = Mul({a}, {v}s)",
    "tanh": "{v} = Tanh({a})",
    "slice": "{v}s = Slice({a}, zeros, fours, axes) {v} = Tile({v}s, twice)",
}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw a graph with a classifier at its end and up to two more outputs, and the names of its weights."""
    lines: list[str] = []
    values = ["x"]
    weights: list[str] = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=8))):
        near = values[-3:]
        names = {"a": draw(st.sampled_from(near)), "b": draw(st.sampled_from(near)), "v": f"v{index}", "w": f"w{index}"}
        lines.append(BLOCKS[kind].format(**names))
        values.append(names["v"])
        weights.append(names["w"])
    lines.append(f"p = GlobalAveragePool({values[-1]}) f = Flatten(p) y = Gemm(f, head)")
    extra = draw(st.lists(st.sampled_from(values[1:]), max_size=2, unique=True))
    outputs = ["float[N, 3] y", *(f"float[N, 8, 8, 8] {name}" for name in extra)]
    return f"g (float[N, 8, 8, 8] x) => ({', '.join(outputs)}) {{ {' '.join(lines)} }}", weights


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs(), seed=st.integers(0, 99))
def test_random_graphs(parse: Parse, quantize: Any, gaussian: Any, graph: tuple[str, list[str]], seed: int) -> None:
    text, names = graph
    constants = {
        **{name: gaussian(8, 8, 3, 3, seed=seed + i) for i, name in enumerate(names)},
        "wide": gaussian(8, 16, 1, 1, seed=seed),
        "bias": gaussian(8, fan_in=4, seed=seed),
        "channel": gaussian(1, 8, 1, 1, fan_in=1, seed=seed),
        "head": gaussian(8, 3, fan_in=8, seed=seed),
        "six": np.float32(6),
        "double": np.array([1, 1, 2, 2], np.float32),
        "flat": np.array([0, 8, 64]),
        "image": np.array([0, 8, 8, 8]),
        "zeros": np.array([0, 0]),
        "fours": np.array([4, 8]),
        "axes": np.array([1, 2]),
        "twice": np.array([1, 2, 1, 1]),
    }
    done = quantize(STATIC, parse(text, pick(text, constants)))
    assert done.stats.modified
    done.check()
    assert done.sqnr > 15  # a mean over an image cancels much of the signal


def test_hard_swish_runs_in_two_integer_operators(parse: Parse, gaussian: Any, samples: Any) -> None:
    """The Clip is the saturation of the sum, the factor 1/6 a change of scale."""
    text = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) { a = Conv <pads = [1, 1, 1, 1]> (x, w) h = HardSwish(a)
        y = Conv (h, v) }"""
    weights = {"w": gaussian(4, 3, 3, 3, seed=1), "v": gaussian(4, 4, 1, 1, seed=2)}
    model = load(parse(text, weights, opset=14).SerializeToString())
    feeds = [{"x": gaussian(1, 3, 8, 8, fan_in=1, seed=i)} for i in range(4)]
    expected = [open_session(model).run(feed)["y"] for feed in feeds]
    ctx = PassContext(TARGETS["cpu-x86-vnni"])
    ExpandHardSwish().run(model, ctx)
    ctx.ranges = RangeStore(model, samples(feeds))
    stats = STATIC.run(model, ctx)
    assert stats.counters["scalings absorbed"] == 1
    fused = Counter(node.op_type for node in onnx.load_from_string(optimized_graph(serialized(model))).graph.node)
    assert fused["QLinearConv"] == 2
    assert fused["QLinearAdd"] == fused["QLinearMul"] == 1
    assert not {"Mul", "Clip", "HardSwish", "HardSigmoid"} & set(fused)
    found = [open_session(model).run(feed)["y"] for feed in feeds]
    assert sqnr(np.stack(expected), np.stack(found)) > LEAST_SQNR


@pytest.mark.parametrize("per_channel", [True, False])
def test_clipped_weights_lose_less_and_are_simulated_so(parse: Parse, quantize: Any, per_channel: bool) -> None:
    weight = np.random.default_rng(0).laplace(size=(16, 64, 3, 3)).astype(np.float32)
    weight[:, ::16] *= 6
    text = "g (float[1, 64, 6, 6] x) => (float[1, 16, 4, 4] y) { y = Conv(x, w) }"
    proto = parse(text, {"w": weight / 30})
    passes = [
        QuantizeStatic(QuantizeStaticConfig(weights=method, per_channel=per_channel)) for method in ("minmax", "mmse")
    ]
    plain, clipped = (quantize(work, proto) for work in passes)
    clipped.check()
    assert clipped.fused["QLinearConv"] == 1
    assert clipped.sqnr > plain.sqnr
    simulation = passes[1].simulate(clipped.before, clipped.ctx)
    assert simulation is not None
    feed = clipped.feeds[0]
    simulated = open_session(simulation.model).run({**feed, **simulation.switches(())})["y"]
    np.testing.assert_allclose(simulated, open_session(clipped.after).run(feed)["y"], atol=1e-2)


def test_unknown_method_of_weights() -> None:
    with pytest.raises(RecipeError, match="weights"):
        QuantizeStaticConfig(weights="kl")
