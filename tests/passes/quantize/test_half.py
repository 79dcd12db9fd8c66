from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxcomp.api.common import make_up
from onnxcomp.errors import RecipeError
from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session, serialized, size
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.half import ConvertFloat16, ConvertFloat16Config
from onnxcomp.passes.quantize.static import QuantizeStatic
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
HALF = ConvertFloat16()
ROOT = Path(__file__).parents[3]
REAL = [
    *sorted((ROOT / "sample_models").glob("*/model.onnx")),
    *(p for p in sorted((ROOT / "tests" / "fixtures").glob("*.onnx")) if p.name.startswith(("torch", "keras"))),
]
TWO = "g (float[4, 64] x) => (float[4, 32] y) { a = MatMul(x, w) r = Relu(a) y = Gemm(r, v, b) }"


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    for node in proto.graph.node:
        node.name = node.name or f"{node.op_type}_{node.output[0]}"
    return proto


def check_casts(model: ir.Model) -> None:
    """No Cast to or from float16 reads a Cast, and none does what another does."""
    casts = [node for node in model.graph if node.op_type == "Cast" and touches_half(node)]
    for node in casts:
        source = node.inputs[0]
        assert source is not None
        maker = source.producer()
        assert maker is None or maker.op_type != "Cast", f"{maker} and {node} in a row"
    assert len({(node.inputs[0], node.attributes.get_int("to", 0)) for node in casts}) == len(casts)


def touches_half(cast: ir.Node) -> bool:
    return ir.DataType.FLOAT16 in {value.dtype for value in (*cast.inputs, *cast.outputs) if value is not None}


def computed_in_half(before: ir.Model, after: ir.Model, feeds: Any) -> float:
    """Return the SQNR, dB, of a model that really computes in float16.

    onnxruntime's CPU provider does not: it computes in float32, and drops Casts between two such nodes.
    """
    session, evaluator = open_session(before), ReferenceEvaluator(ir.to_proto(after))
    fidelity = Fidelity()
    for feed in feeds:
        found = evaluator.run(None, feed)
        fidelity.add(session.run(feed), dict(zip(evaluator.output_names, found, strict=True)))
    return fidelity.sqnr


@pytest.fixture
def uncalibrated() -> Callable[[onnx.ModelProto], tuple[ir.Model, dict[str, str]]]:
    """Run the pass without calibration; return the model and the reasons."""

    def run(proto: onnx.ModelProto) -> tuple[ir.Model, dict[str, str]]:
        model = load(proto.SerializeToString())
        ctx = PassContext(get_target("cuda"))
        HALF.run(model, ctx)
        check_casts(model)
        return load(serialized(model)), {skip.node: skip.reason for skip in ctx.skipped}

    return run


def of_type(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def dtype_in(model: ir.Model, op_type: str, index: int = 0) -> ir.DataType | None:
    value = of_type(model, op_type).inputs[index]
    assert value is not None
    return value.dtype


def test_it_computes_in_float16_and_the_borders_stay(parse: Parse, quantize: Any, gaussian: Any, again: Any) -> None:
    done = quantize(HALF, parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32, fan_in=4)}))
    done.check()
    check_casts(done.after)
    assert done.stats.counters == {"float16 nodes": 3, "Casts": 2}
    assert dtype_in(done.after, "MatMul") == dtype_in(done.after, "Gemm", 1) == ir.DataType.FLOAT16
    assert [v.dtype for v in (*done.after.graph.inputs, *done.after.graph.outputs)] == [ir.DataType.FLOAT] * 2
    assert size(done.after) < 0.6 * size(done.before)
    assert done.sqnr > 55
    assert not again(HALF, done).stats.modified


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_models(path: Path, calibrated: bool, samples: Any) -> None:
    before = load(path)
    feeds = list(make_up(before, seed=0, batch=1).take(3))
    ctx = PassContext(get_target("cuda"))
    if calibrated:
        ctx.samples = samples(feeds)
        ctx.ranges = RangeStore(before, ctx.samples)
    after = before.clone()
    assert HALF.run(after, ctx).modified
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    check_casts(after)
    fidelity = Fidelity()
    first, second = open_session(before), open_session(load(serialized(after)))
    for feed in feeds:
        fidelity.add(first.run(feed), second.run(feed))
    assert fidelity.sqnr > 55
    assert [(v.name, v.dtype) for v in after.graph.outputs] == [(v.name, v.dtype) for v in before.graph.outputs]


def test_an_island_by_name(parse: Parse, quantize: Any, gaussian: Any) -> None:
    proto = named(parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32, fan_in=4)}))
    done = quantize(ConvertFloat16(ConvertFloat16Config(exclude=("Gemm_y",))), proto)
    done.check()
    check_casts(done.after)
    assert done.reasons == {"Gemm_y": "excluded"}
    assert dtype_in(done.after, "Gemm") == dtype_in(done.after, "Gemm", 1) == ir.DataType.FLOAT
    assert dtype_in(done.after, "MatMul") == ir.DataType.FLOAT16
    assert done.ops["Cast"] == 2  # of x, and of what Gemm reads; y is float32 already


def test_units_are_what_exclude_takes(parse: Parse, gaussian: Any) -> None:
    proto = named(parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32)}))
    units = HALF.units(load(proto.SerializeToString()), PassContext(get_target("cuda")))
    assert [unit.nodes for unit in units] == [("MatMul_a",), ("Relu_r",), ("Gemm_y",)]


NUMBERS = {"k": 3e4, "small": 1e-3, "twelve": 12.0, "eps": 1e-12, "tiny": 1e-9}
# What goes wrong in float16: operators, the node that has to stay float32, and why
PLANTED = [
    ("a = MatMul(x, big) y = Relu(a)", "MatMul_a", "a constant, 1e+05, exceeds float16"),
    ("a = MatMul(x, w) s = Add(a, twelve) e = Exp(s) r = ReduceSum(e) y = Div(e, r)", "Exp_e", "range"),
    ("a = MatMul(x, w) s = Mul(a, a) e = Add(s, eps) r = Sqrt(e) y = Div(a, r)", "Add_e", ""),
    ("a = MatMul(x, w) s = Mul(a, tiny) y = Relu(s)", "Mul_s", "a constant, 1e-09, is too small for float16"),
]


@pytest.fixture
def planted(parse: Parse, gaussian: Any) -> Callable[[str], onnx.ModelProto]:
    def make(body: str) -> onnx.ModelProto:
        big = gaussian(64, 64)
        big[0, 0] = 1e5
        weights = {"w": gaussian(64, 64), "big": big} | {name: np.float32(value) for name, value in NUMBERS.items()}
        used = {name: array for name, array in weights.items() if f" {name})" in body}
        return named(parse(f"g (float[4, 64] x) => (float[4, 64] y) {{ {body} }}", used))

    return make


@pytest.mark.parametrize(
    ("body", "node", "reason"),
    [*PLANTED[:1], *PLANTED[2:], ("s = Mul(x, k) a = Relu(s) b = MatMul(a, w) y = Mul(b, small)", "Relu_a", "reaches"),
     (PLANTED[1][0], "Exp_e", "tensor e reaches")],
)  # fmt: skip
def test_calibrated_ranges_and_constants_make_islands(
    planted: Any, quantize: Any, body: str, node: str, reason: str
) -> None:
    done = quantize(HALF, planted(body))
    done.check()
    check_casts(done.after)
    assert reason in done.reasons[node]
    assert done.sqnr > 50
    assert computed_in_half(done.before, done.after, done.feeds) > 45


@pytest.mark.parametrize(("body", "node", "reason"), PLANTED)
def test_islands_without_calibration(planted: Any, uncalibrated: Any, body: str, node: str, reason: str) -> None:
    proto = planted(body)
    after, reasons = uncalibrated(proto)
    assert reason in reasons[node]
    feed = {"x": np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)}
    assert computed_in_half(load(proto.SerializeToString()), after, [feed]) > 45


MASKED = {
    "constant": "p = Mul(q, qs) m = Where(c, zero, low) s = Add(p, m) y = Softmax(s)",
    "chosen": "p = Mul(q, qs) s = Where(c, p, low) y = Softmax(s)",
    "counted": "f = Cast <to = 1> (c) i = Sub(one, f) m = Mul(i, low) p = Mul(q, qs) s = Add(p, m) y = Softmax(s)",
    "twice": "p = Mul(q, qs) m = Where(c, zero, low) n = Add(m, m) s = Add(p, n) y = Softmax(s)",
}


@pytest.mark.parametrize("low", [-1e9, float(np.finfo(np.float32).min) / 4])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("form", MASKED)
def test_masks_stay_masks(
    *, parse: Parse, quantize: Any, uncalibrated: Any, form: str, low: float, calibrated: bool
) -> None:
    names = {"zero": 0.0, "one": 1.0, "low": low, "qs": 3.0}
    used = {name: np.float32(value) for name, value in names.items() if f"{name}" in MASKED[form]}
    proto = named(parse(f"g (float[4, 8] q, bool[4, 8] c) => (float[4, 8] y) {{ {MASKED[form]} }}", used))
    rng = np.random.default_rng(0)
    feeds = []
    for hidden in (0, 3, 8):  # in the last one everything is masked
        keep = np.ones((4, 8), bool)
        keep[:, 8 - hidden :] = False
        feeds.append({"q": rng.normal(size=(4, 8)).astype(np.float32), "c": keep})
    if calibrated:
        done = quantize(HALF, proto, feeds)
        done.check()
        after = done.after
    else:
        after, _ = uncalibrated(proto)
    check_casts(after)
    assert dtype_in(after, "Softmax") == ir.DataType.FLOAT16
    first, second = open_session(load(proto.SerializeToString())), open_session(after)
    for feed in feeds[:2]:
        np.testing.assert_allclose(second.run(feed)["y"], first.run(feed)["y"], atol=2e-3)
    evaluator = ReferenceEvaluator(ir.to_proto(after))
    for feed in feeds:
        (got,) = evaluator.run(None, feed)
        assert np.isfinite(got).all()


def test_a_mask_that_the_caller_gives_is_clipped(parse: Parse, uncalibrated: Any) -> None:
    for version in (10, 17):
        proto = named(parse("g (float[4, 8] q, float[4, 8] m) => (float[4, 8] y) { r = Relu(q) s = Add(r, m) "
                            "y = Softmax <axis = 1> (s) }", opset=version))  # fmt: skip
        after, _ = uncalibrated(proto)
        assert dtype_in(after, "Softmax") == ir.DataType.FLOAT16
        mask = np.zeros((4, 8), np.float32)
        mask[:, 5:] = np.finfo(np.float32).min
        mask[0] = np.finfo(np.float32).min
        feed = {"q": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32), "m": mask}
        got = open_session(after).run(feed)["y"]
        wanted = open_session(load(proto.SerializeToString())).run(feed)["y"]
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got[1:], wanted[1:], atol=2e-3)
        again = after.clone()
        assert not HALF.run(again, PassContext(get_target("cuda"))).modified


def test_a_mask_keeps_its_infinity(parse: Parse, uncalibrated: Any) -> None:
    proto = named(parse("g (float[4, 8] q, bool[4, 8] c) => (float[4, 8] y) { r = Relu(q) s = Where(c, r, low) "
                        "y = Softmax(s) }", {"low": np.float32(-np.inf)}))  # fmt: skip
    after, reasons = uncalibrated(proto)
    assert reasons == {}
    keep = np.arange(8) < np.array([[3], [5], [8], [1]])
    feed = {"q": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32), "c": keep}
    wanted = open_session(load(proto.SerializeToString())).run(feed)["y"]
    np.testing.assert_allclose(open_session(after).run(feed)["y"], wanted, atol=2e-3)


def test_a_last_sigmoid_stays_float32(parse: Parse, uncalibrated: Any, gaussian: Any) -> None:
    text = "g (float[4, 8] x) => (float[8, 4] y) { a = MatMul(x, w) b = Sigmoid(a) c = MatMul(b, w) d = Sigmoid(c) "
    after, reasons = uncalibrated(named(parse(text + "y = Transpose(d) }", {"w": gaussian(8, 8)})))
    assert list(reasons) == ["Sigmoid_d", "Transpose_y"]
    assert "probabilities" in reasons["Sigmoid_d"]
    found = open_session(after).run({"x": np.full((4, 8), 40, np.float32)})["y"]
    assert not np.array_equal(found, found.astype(np.float16))


def test_bounds_beyond_float16_are_bounds_still(parse: Parse, quantize: Any, gaussian: Any) -> None:
    weights = {"w": gaussian(64, 64), "low": np.float32(0), "high": np.float32(np.finfo(np.float32).max)}
    proto = parse("g (float[4, 64] x) => (float[4, 64] y) { a = MatMul(x, w) y = Clip(a, low, high) }", weights)
    done = quantize(HALF, proto)
    done.check()
    assert done.stats.counters["float16 nodes"] == 2
    assert done.sqnr > 55


def test_bodies_stay_float32(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = """g (bool c, float[2, 64] x) => (float[2, 64] y) {
        h = MatMul(x, w)
        k = If (c) <
            then_branch = a () => (float[2, 64] t) { s = MatMul(h, w) t = Neg(s) },
            else_branch = b () => (float[2, 64] e) { e = Identity(h) }
        >
        y = MatMul(k, v) }"""
    proto = named(parse(text, {"w": gaussian(64, 64), "v": gaussian(64, 64, seed=1)}))
    feeds = [{"c": np.array(c), "x": np.ones((2, 64), np.float32)} for c in (True, False)]
    done = quantize(HALF, proto, feeds)
    done.check()
    check_casts(done.after)
    assert done.reasons["If_k"] == "its body stays float32"
    assert done.sqnr > 50
    inner = [node for node in done.after.graph.all_nodes() if node.graph is not done.after.graph]
    assert all(v.dtype == ir.DataType.FLOAT for node in inner for v in node.inputs if v is not None)


def test_shared_weights_constant_nodes_and_dynamic_shapes(parse: Parse, quantize: Any, gaussian: Any) -> None:
    tied = parse("g (int64[N] i) => (float[N, 64] y) { e = Gather(w, i) y = Gemm <transB = 1> (e, w) }",
                 {"w": gaussian(64, 64)})  # fmt: skip
    done = quantize(HALF, tied)
    done.check()
    assert size(done.after) < 0.6 * size(done.before)
    proto = parse("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 64))))
    done = quantize(HALF, proto)
    done.check()
    assert done.ops == {"Cast": 2, "MatMul": 1}


@pytest.mark.parametrize("version", [7, 9, 11, 13, 15, 17, 19, 21, 23])
def test_versions_of_the_operator_set(parse: Parse, quantize: Any, weights: Any, version: int) -> None:
    text = """g (float[1, 8, 8, 8] x) => (float[1, 8] y) {
        c = Conv <kernel_shape = [3, 3]> (x, w33, b8)
        n = BatchNormalization (c, s, b8, b8, s)
        r = Relu(n) p = GlobalAveragePool(r) f = Flatten(p) y = Softmax <axis = 1> (f) }"""
    used = {name: weights[name] for name in ("w33", "b8")} | {"s": np.full(8, 1.5, np.float32)}
    done = quantize(HALF, parse(text, used, opset=version))
    done.check()
    check_casts(done.after)
    assert done.stats.counters == {"float16 nodes": 6, "Casts": 2}
    assert done.sqnr > 50


def test_the_specification_says_what_has_no_float16_form(parse: Parse, uncalibrated: Any, gaussian: Any) -> None:
    text = """g (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y) {
        a = Mul(x, k) r = Resize(a, , scales) g = Tan(r) y = Relu(g) }"""
    scales = np.array([1, 1, 2, 2], np.float32)
    after, reasons = uncalibrated(named(parse(text, {"k": np.float32(0.5), "scales": scales}, opset=13)))
    assert dtype_in(after, "Resize") == ir.DataType.FLOAT16
    assert dtype_in(after, "Resize", 2) == ir.DataType.FLOAT
    assert reasons == {"Tan_g": "onnxruntime has no float16 kernel of it"}
    cumsum = "g (float[4] x) => (float[4] y) { r = Relu(x) y = CumSum(r, axis) }"
    _, reasons = uncalibrated(named(parse(cumsum, {"axis": np.int64(0)}, opset=11)))
    assert reasons == {"CumSum_y": "opset 11 has no float16 form of it"}


def test_what_counts_stays_float32(parse: Parse, uncalibrated: Any) -> None:
    text = """g (float[N, 8] x) => (float[M, 8] y) {
        s = Shape(x) f = Cast <to = 1> (s) d = Mul(f, two) i = Cast <to = 7> (d)
        z = Relu(x) y = Expand(z, i) }"""
    proto = named(parse(text, {"two": np.array([1, 1], np.float32)}))
    after, reasons = uncalibrated(proto)
    assert reasons == {"Mul_d": "computes with what was an integer: float16 counts to 2048 only"}
    feed = {"x": np.ones((3001, 8), np.float32)}
    assert open_session(after).run(feed)["y"].shape == (3001, 8)


def test_quantized_operators_are_left_alone(parse: Parse, quantize: Any, again: Any, gaussian: Any) -> None:
    done = quantize(QuantizeStatic(), parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32)}))
    assert not again(HALF, done).stats.modified


def test_graph_interface_in_float16(parse: Parse, gaussian: Any) -> None:
    text = "g (float[4, 64] x) => (float[4, 64] y, float[4, 64] z) { a = MatMul(x, w) y = Relu(a) z = Tan(a) }"
    model = load(parse(text, {"w": gaussian(64, 64)}).SerializeToString())
    ConvertFloat16(ConvertFloat16Config(keep_io=False)).run(model, PassContext(get_target("cuda")))
    check_casts(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [(v.name, v.dtype) for v in model.graph.inputs] == [("x", ir.DataType.FLOAT16)]
    assert [(v.name, v.dtype) for v in model.graph.outputs] == [("y", ir.DataType.FLOAT16), ("z", ir.DataType.FLOAT16)]
    found = open_session(load(serialized(model))).run({"x": np.ones((4, 64), np.float16)})
    assert {array.dtype for array in found.values()} == {np.dtype(np.float16)}


def test_a_float16_model_and_wrong_settings(parse: Parse, quantize: Any) -> None:
    done = quantize(HALF, parse("g (float16[4] x) => (float16[4] y) { y = Relu(x) }"))
    assert not done.stats.modified
    for margin in (0, 1.5):
        with pytest.raises(RecipeError):
            ConvertFloat16Config(margin=margin)
