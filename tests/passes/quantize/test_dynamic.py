from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxcomp.errors import RecipeError
from onnxcomp.model import open_session, size
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.dynamic import QuantizeDynamic, QuantizeDynamicConfig
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
DYNAMIC = QuantizeDynamic()
EVERY = QuantizeDynamic(QuantizeDynamicConfig(min_elements=0))
LEAST_SQNR = 30.0  # dB, for one layer on Gaussian data
INTEGER = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def dense(nodes: str, *, shape: str = "N, 64", out: str = "N, 32") -> str:
    return f"g (float[{shape}] x) => (float[{out}] y) {{ {nodes} }}"


PRODUCTS = {
    "matmul": dense("y = MatMul(x, m)"),
    "stacked input": dense("y = MatMul(x, m)", shape="2, 3, 64", out="2, 3, 32"),
    "gemm": dense("y = Gemm(x, m, b32)"),
    "gemm without bias": dense("y = Gemm(x, m)"),
    "gemm transposed": dense("y = Gemm <transB = 1> (x, t, b32)"),
    "gemm transposed without bias": dense("y = Gemm <transB = 1> (x, t)"),
    "bias given at run time": "g (float[N, 64] x, float[32] v) => (float[N, 32] y) { y = Gemm(x, m, v) }",
    "bias of one row": dense("y = Gemm(x, m, row)"),
    "output read again": dense("a = MatMul(x, m) r = Relu(a) y = Sub(a, r)"),
}


@pytest.fixture
def constants(weights: Any) -> dict[str, np.ndarray]:
    return {**weights, "t": np.ascontiguousarray(weights["m"].T), "row": weights["b32"][None]}


def pick(text: str, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: value for name, value in constants.items() if name in words}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(parse: Parse, quantize: Any, constants: Any, name: str) -> None:
    text = PRODUCTS[name]
    done = quantize(DYNAMIC, parse(text, pick(text, constants)))
    assert done.stats.modified
    done.check()
    assert INTEGER & set(done.fused)
    assert not {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"} & set(done.fused)
    assert done.sqnr > LEAST_SQNR


def test_readers_of_one_tensor_share_its_quantizer(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = "g (float[N, 64] x) => (float[N, 32] y, float[N, 32] z) { r = Relu(x) y = MatMul(r, a) z = Gemm(r, b) }"
    done = quantize(DYNAMIC, parse(text, {"a": gaussian(64, 32), "b": gaussian(64, 32, seed=1)}))
    done.check()
    assert done.ops["DynamicQuantizeLinear"] == 1
    assert done.ops["MatMulInteger"] == 2
    assert done.sqnr > LEAST_SQNR


def test_a_weight_that_two_layers_share(parse: Parse, quantize: Any, gaussian: Any) -> None:
    """Once its output channels are rows, once columns; and once something else reads it."""
    text = """g (float[N, 32] x) => (float[N, 32] y, float[N, 32] z, float[32, 32] u)
        { y = MatMul(x, w) z = Gemm <transB = 1> (x, w) u = Neg(w) }"""
    scaled = gaussian(32, 32) * np.geomspace(0.01, 1, 32, dtype=np.float32)[:, None]
    done = quantize(DYNAMIC, parse(text, {"w": scaled}))
    done.check()
    assert done.ops["MatMulInteger"] == 2
    assert done.sqnr > 25


LSTM = "g (float[5, 2, 24] x) => (float[5, {d}, 2, 16] y) {{ y = LSTM <hidden_size = 16{a}> (x, w, r{more}) }}"
LSTMS: dict[str, tuple[int, str, str]] = {
    # name: (directions, attributes, further inputs: bias, sequence lengths, initial h and c, peepholes)
    "plain": (1, "", ""),
    "bias": (1, "", ", b"),
    "reverse": (1, ', direction = "reverse"', ", b"),
    "bidirectional": (2, ', direction = "bidirectional"', ", b"),
    "lengths": (1, "", ", b, lengths"),
    "state": (1, "", ", b, , h, h"),
    "peepholes": (1, "", ", b, , , , p"),
    "everything": (2, ', direction = "bidirectional"', ", b, lengths, h, h, p"),
    "activations": (1, ', activations = ["Sigmoid", "Tanh", "Relu"]', ", b"),
    "clip": (1, ", clip = 0.5", ", b"),
}


@pytest.mark.parametrize("name", LSTMS)
def test_lstm(parse: Parse, quantize: Any, gaussian: Any, name: str) -> None:
    directions, attributes, more = LSTMS[name]
    constants = {
        "w": gaussian(directions, 64, 24, fan_in=24),
        "r": gaussian(directions, 64, 16, fan_in=16),
        "b": gaussian(directions, 128, fan_in=8),
        "lengths": np.array([5, 3], np.int32),
        "h": gaussian(directions, 2, 16, fan_in=4),
        "p": gaussian(directions, 48, fan_in=8),
    }
    text = LSTM.format(d=directions, a=attributes, more=more)
    done = quantize(DYNAMIC, parse(text, pick(text, constants)))
    assert done.stats.counters == {"LSTM": 1}
    done.check()
    assert done.fused["DynamicQuantizeLSTM"] == 1
    assert done.after.opset_imports["com.microsoft"] == 1
    assert done.sqnr > 25


def test_lstm_with_other_outputs(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = """g (float[5, 2, 24] x) => (float[1, 2, 16] h, float[1, 2, 16] c)
        { _, h, c = LSTM <hidden_size = 16> (x, w, r) }"""
    proto = parse(text, {"w": gaussian(1, 64, 24, fan_in=24), "r": gaussian(1, 64, 16, fan_in=16)})
    proto.graph.node[0].output[0] = ""
    done = quantize(DYNAMIC, proto)
    done.check()
    assert done.fused["DynamicQuantizeLSTM"] == 1
    assert done.sqnr > 25


GATHERS = {
    "embedding": "g (int64[N, 5] i) => (float[N, 5, 32] y) { y = Gather(m, i) }",
    "one row": "g (int64 i) => (float[32] y) { y = Gather(m, i) }",
    "32-bit indices": "g (int32[N] i) => (float[N, 32] y) { y = Gather(m, i) }",
    "read again": "g (int64[N] i) => (float[N, 32] y, float[N, 32] z) { y = Gather(m, i) z = Neg(y) }",
    "into a product": "g (int64[N] i) => (float[N, 16] y) { e = Gather(m, i) y = MatMul(e, n) }",
    "two of one table": """g (int64[N] i, int64[N] j) => (float[N, 32] y)
        { a = Gather(m, i) b = Gather(m, j) y = Add(a, b) }""",
}


@pytest.mark.parametrize("name", GATHERS)
def test_tables(parse: Parse, quantize: Any, constants: Any, name: str) -> None:
    text = GATHERS[name]
    done = quantize(EVERY, parse(text, pick(text, constants)))
    done.check()
    assert done.stats.counters["Gather"] == text.count("Gather")
    assert [v.dtype.name for v in done.after.graph.initializers.values() if v.shape.numpy() == (64, 32)] == ["INT8"]
    assert done.sqnr > LEAST_SQNR


def test_a_table_that_is_also_a_weight(parse: Parse, quantize: Any, gaussian: Any) -> None:
    """Tied embeddings: the same matrix at the start and, transposed, at the end."""
    text = """g (int64[N] i) => (float[N, 48] y) { e = Gather(t, i) y = Gemm <transB = 1> (e, t) }"""
    done = quantize(DYNAMIC, parse(text, {"t": gaussian(48, 32)}))
    done.check()
    assert done.stats.counters == {"Gather": 1, "Gemm": 1}
    assert size(done.after) < 0.8 * size(done.before)
    assert done.sqnr > 25


DECLINED: dict[str, tuple[str, str]] = {
    "weight given at run time": (
        "g (float[N, 64] x, float[64, 32] v) => (float[N, 32] y) { y = MatMul(x, v) }", "not constant"),
    "weight with a default": (
        "g (float[N, 64] x, float[64, 32] m) => (float[N, 32] y) { a = MatMul(x, m) y = Mul(a, two) }", "not constant"),
    "float64": ("g (double[N, 64] x) => (double[N, 32] y) { y = MatMul(x, double) }", "not float32"),
    "float16": ("g (float16[N, 64] x) => (float16[N, 32] y) { y = MatMul(x, half) }", "not float32"),
    "NaN": (dense("y = MatMul(x, nan)"), "NaN"),
    "small": (dense("y = MatMul(x, small)", out="N, 2"), "too small"),
    "vector": (dense("y = MatMul(x, vector)", out="N"), "another rank"),
    "stacked": (dense("y = MatMul(x, stacked)", shape="3, N, 64", out="3, N, 32"), "another rank"),
    "transA": (dense("y = Gemm <transA = 1> (x, m)", shape="64, N"), "transA"),
    "alpha": (dense("y = Gemm <alpha = 0.5> (x, m)"), "alpha or beta"),
    "beta": (dense("y = Gemm <beta = 0.5> (x, m, b32)"), "alpha or beta"),
    "other axis": ("g (int64[N] i) => (float[64, N] y) { y = Gather <axis = 1> (m, i) }", "another axis"),
    "short rows": ("g (int64[N] i) => (float[N, 1] y) { y = Gather(column, i) }", "too short"),
    "integer table": ("g (int64[N] i) => (int64[N, 32] y) { y = Gather(integers, i) }", "not float32"),
    "recurrent weight given at run time": (
        "g (float[5, 2, 24] x, float[1, 64, 16] v) => (float[5, 1, 2, 16] y) { y = LSTM <hidden_size = 16> (x, w, v) }",
        "not constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLINED)
def test_near_misses_are_left_alone(parse: Parse, quantize: Any, constants: Any, gaussian: Any, name: str) -> None:
    text, reason = DECLINED[name]
    m = constants["m"]
    nan = m.copy()
    nan[3, 4] = np.nan
    more = {
        "half": m.astype(np.float16),
        "nan": nan,
        "small": gaussian(64, 2),
        "vector": np.ones(64),
        "stacked": gaussian(3, 64, 32),
        "column": gaussian(2000, 1),
        "integers": np.ones((64, 32), np.int64),
        "two": np.array(2.0),
        "w": gaussian(1, 64, 24),
        "r": gaussian(1, 64, 16),
    }
    proto = parse(text, pick(text, constants | more))
    if name == "float64":
        proto.graph.initializer.append(numpy_helper.from_array(m.astype(np.float64), "double"))
    rewrite = QuantizeDynamic(QuantizeDynamicConfig(min_elements=1000 if name == "small" else 0))
    done = quantize(rewrite, proto)
    assert not done.stats.modified
    assert done.stats.counters == {}
    assert any(reason in why for why in done.reasons.values()), done.reasons


def test_layout_1_is_left_alone(parse: Parse, gaussian: Any) -> None:
    """onnxruntime has no kernel for it, so the model can't even be loaded."""
    text = "g (float[2, 5, 24] x) => (float[2, 5, 1, 16] y) { y = LSTM <hidden_size = 16, layout = 1> (x, w, r) }"
    model = ir.from_proto(parse(text, {"w": gaussian(1, 64, 24), "r": gaussian(1, 64, 16)}))
    ctx = PassContext(get_target("cpu-x86-vnni"))
    assert not DYNAMIC.run(model, ctx).modified
    assert "layout" in ctx.skipped[0].reason


def test_old_opsets(parse: Parse, quantize: Any, weights: Any) -> None:
    done = quantize(DYNAMIC, parse(dense("y = MatMul(x, m)"), {"m": weights["m"]}, opset=10))
    assert not done.stats.modified
    assert "upgrade-opset" in done.stats.skipped[0].reason
    done = quantize(DYNAMIC, parse(dense("y = MatMul(x, m)"), {"m": weights["m"]}, opset=11))
    assert done.stats.modified
    done.check()


def test_settings(parse: Parse, quantize: Any, weights: Any) -> None:
    proto = parse(dense("a = MatMul(x, m) y = Gemm(a, n)", out="N, 16"), {"m": weights["m"], "n": weights["n"]})
    proto.graph.node[0].name, proto.graph.node[1].name = "first", "second"
    assert quantize(EVERY, proto).stats.counters == {"MatMul": 1, "Gemm": 1}
    only = QuantizeDynamic(QuantizeDynamicConfig(ops=("Gemm",), min_elements=0))
    assert quantize(only, proto).stats.counters == {"Gemm": 1}
    without = quantize(QuantizeDynamic(QuantizeDynamicConfig(exclude=("first",), min_elements=0)), proto)
    assert without.stats.counters == {"Gemm": 1}
    assert without.reasons == {"first": "excluded"}
    large = quantize(QuantizeDynamic(QuantizeDynamicConfig(min_elements=64 * 32)), proto)
    assert large.stats.counters == {"MatMul": 1}
    assert [unit.name for unit in EVERY.units(large.before, large.ctx)] == ["first", "second"]
    with pytest.raises(RecipeError):
        QuantizeDynamicConfig(ops=("Conv",))
    with pytest.raises(RecipeError):
        QuantizeDynamicConfig(min_elements=-1)


def test_the_names_of_nodes_and_outputs_stay(parse: Parse, quantize: Any, weights: Any) -> None:
    proto = parse(dense("q0 = MatMul(x, q1) y = Gemm(q0, n, q2)", out="N, 16"),
                  {"q1": weights["m"], "n": weights["n"], "q2": np.ones(16)})  # fmt: skip
    proto.graph.node[1].name = "q4"
    done = quantize(EVERY, proto)
    done.check()
    assert "q4" in [node.name for node in done.after.graph]
    assert done.sqnr > 25


def test_branches_share_what_they_read(parse: Parse, quantize: Any, weights: Any) -> None:
    text = """g (bool[1] c, float[N, 64] x) => (float[N, 32] y) {
        a = MatMul(x, m)
        y = If (c) <
            then_branch = t () => (float[N, 32] p) { r = MatMul(x, m) p = Add(r, a) },
            else_branch = e () => (float[N, 32] q) { q = Neg(a) }
        >
    }"""
    done = quantize(DYNAMIC, parse(text, {"m": weights["m"]}))
    done.check()
    assert done.stats.counters == {"MatMul": 2}
    assert list(done.after.graph.initializers) == [name for name in done.after.graph.initializers if name != "m"]
    ops = [node.op_type for node in done.after.graph.all_nodes()]
    assert ops.count("MatMulInteger") == 2
    assert ops.count("DynamicQuantizeLinear") == 1  # of x, outside
    for flag in (True, False):
        done.feeds = [dict(feed) | {"c": np.array([flag])} for feed in done.feeds]
        assert done.sqnr > LEAST_SQNR


def test_a_loop_with_a_cell(parse: Parse, quantize: Any) -> None:
    """The weight is outside, what it is multiplied with changes with every iteration."""
    rng = np.random.default_rng(0)
    body = """body = b (int64 i, bool c, float[N, 64] s) => (bool d, float[N, 64] t, float[N, 64] each) {
        d = Identity(c)  r = MatMul(s, w)  u = Add(r, x)  t = Tanh(u)  each = MatMul(t, inside) }"""
    text = f"""g (float[N, 64] x) => (float[N, 64] y, float[K, N, 64] all) {{ y, all = Loop <{body}> (n, t0, x) }}"""
    proto = parse(text, {"w": rng.normal(size=(64, 64)) / 8, "n": np.int64(3), "t0": np.array(True)})
    inside = numpy_helper.from_array((rng.normal(size=(64, 64)) / 8).astype(np.float32), "inside")
    proto.graph.node[0].attribute[0].g.initializer.append(inside)
    done = quantize(DYNAMIC, proto)
    done.check()
    assert done.stats.counters == {"MatMul": 2}
    ops = [node.op_type for node in done.after.graph.all_nodes()]
    assert "MatMul" not in ops
    assert size(done.after) < 0.5 * len(proto.SerializeToString())
    assert done.sqnr > 25


def test_a_second_run_is_a_no_op(parse: Parse, quantize: Any, again: Any, weights: Any) -> None:
    text = "g (int64[N] i) => (float[N, 16] y) { e = Gather(m, i) y = MatMul(e, n) }"
    first = quantize(EVERY, parse(text, {"m": weights["m"], "n": weights["n"]}))
    second = again(EVERY, first)
    assert not second.stats.modified


def test_the_file_shrinks(parse: Parse, quantize: Any, gaussian: Any) -> None:
    done = quantize(DYNAMIC, parse(dense("y = MatMul(x, big)", out="N, 256"), {"big": gaussian(64, 256)}))
    assert size(done.after) < 0.35 * size(done.before)


def test_seven_bits_where_the_target_saturates(parse: Parse, quantize: Any, weights: Any) -> None:
    done = quantize(DYNAMIC, parse(dense("y = MatMul(x, m)"), {"m": weights["m"]}), target="cpu-x86-avx2")
    (levels,) = (v.const_value.numpy() for v in done.after.graph.initializers.values() if v.dtype.name == "INT8")
    assert np.abs(levels.astype(int)).max() == 63
    assert done.sqnr > LEAST_SQNR - 6


def test_activations_of_zero(parse: Parse, quantize: Any, weights: Any) -> None:
    feeds = [{"x": np.zeros((2, 64), np.float32)}]
    done = quantize(DYNAMIC, parse(dense("y = Gemm(x, m, b32)"), {k: weights[k] for k in ("m", "b32")}), feeds)
    np.testing.assert_allclose(open_session(done.after).run(feeds[0])["y"][0], weights["b32"], rtol=1e-6)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_networks(parse: Parse, quantize: Any, gaussian: Any, data: st.DataObject) -> None:
    lines, values, weights = [], [("x", 64)], {}
    for index in range(data.draw(st.integers(1, 6))):
        source, width = data.draw(st.sampled_from(values[-3:]))
        out = data.draw(st.sampled_from([16, 32, 64]))
        kind = data.draw(st.sampled_from(["MatMul", "Gemm", "Transposed", "Relu", "Add", "Tanh"]))
        name = f"v{index}"
        if kind in ("MatMul", "Gemm"):
            weights[f"w{index}"] = gaussian(width, out, fan_in=width, seed=index)
            lines.append(f"{name} = {kind}({source}, w{index})")
        elif kind == "Transposed":
            weights[f"w{index}"] = gaussian(out, width, seed=index)
            weights[f"b{index}"] = gaussian(out, fan_in=4, seed=index)
            lines.append(f"{name} = Gemm <transB = 1> ({source}, w{index}, b{index})")
        else:
            out = width
            lines.append(f"{name} = Add({source}, {source})" if kind == "Add" else f"{name} = {kind}({source})")
        values.append((name, out))
    ends = data.draw(st.lists(st.sampled_from(values[1:]), max_size=2, unique=True))
    outputs = dict([values[-1], *ends])
    declared = ", ".join(f"float[N, {width}] {name}" for name, width in outputs.items())
    done = quantize(EVERY, parse(f"g (float[N, 64] x) => ({declared}) {{ {' '.join(lines)} }}", weights))
    done.check()
    assert done.stats.modified == bool(weights)
    assert done.ops["MatMul"] + done.ops["Gemm"] == 0
    assert done.sqnr > 20


def test_clipped_weights_lose_less(parse: Parse, quantize: Any) -> None:
    """One scale for a matrix with a few outliers; the rounding of activations is the same."""
    weight = np.random.default_rng(0).laplace(size=(512, 32)).astype(np.float32)
    weight[::64] *= 8
    proto = parse(dense("y = MatMul(x, w)", shape="N, 512"), {"w": weight / 30})
    configs = [QuantizeDynamicConfig(weights=method, per_channel=False) for method in ("minmax", "mmse")]
    feeds = [{"x": np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32)}]
    plain, clipped = (quantize(QuantizeDynamic(config), proto, feeds) for config in configs)
    clipped.check()
    assert INTEGER & set(clipped.fused)
    assert clipped.sqnr > plain.sqnr


def test_one_scale_per_weight(parse: Parse, quantize: Any, gaussian: Any) -> None:
    """Channels of different sizes want scales of their own: LSTM, table and product take either."""
    sizes = np.geomspace(0.05, 1, 64, dtype=np.float32)
    lstm = LSTM.format(d=1, a="", more="")
    rows = {"w": gaussian(1, 64, 24, fan_in=24) * sizes[:, None], "r": gaussian(1, 64, 16, fan_in=16)}
    tables = {"table": gaussian(40, 64) * sizes}
    for proto in (parse(lstm, rows), parse("g (int64[N] i) => (float[N, 64] y) { y = Gather(table, i) }", tables)):
        configs = [QuantizeDynamicConfig(per_channel=per_channel) for per_channel in (True, False)]
        fine, coarse = (quantize(QuantizeDynamic(config), proto) for config in configs)
        coarse.check()
        assert fine.sqnr > coarse.sqnr > 20


def test_unknown_method_of_weights() -> None:
    with pytest.raises(RecipeError, match="weights"):
        QuantizeDynamicConfig(weights="kl")
