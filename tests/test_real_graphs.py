"""Graphs as people really have them: what is not understood is left alone, said, and never broken."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcomp.api import optimize
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import ModelError
from onnxcomp.facts import opset
from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session, save
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.runtime import limits
from onnxcomp.search.candidates import cleanup
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

RNG = np.random.default_rng(0)
W = RNG.normal(size=(64, 64)).astype(np.float32) / 8
VECTORS = [{"x": RNG.normal(size=(3, 64)).astype(np.float32)} for _ in range(4)]
STEPS = ("upgrade-opset", "quantize-static", "quantize-dynamic")
Run = Callable[..., tuple[ir.Model, dict[str, PassReport]]]


@pytest.fixture
def run(samples: Callable[..., Samples], tmp_path: Path) -> Run:
    """Clean up, quantize, save and load back; nothing may be rolled back, and the answers must stay close."""

    def go(
        source: onnx.ModelProto | Path, feeds: Sequence[Feed] = VECTORS, *, least: float = 20.0, steps: Any = STEPS
    ) -> tuple[ir.Model, dict[str, PassReport]]:
        original = load(source if isinstance(source, Path) else source.SerializeToString())
        data = samples(list(feeds))
        verifier = Verifier(original, data)
        ctx = PassContext(get_target("cpu-x86-vnni"), samples=data)
        model, cleaned = run_recipe(original, cleanup(), ctx, verifier)
        ctx.ranges = RangeStore(model, data)
        model, quantized = run_recipe(model, Recipe(tuple(Step(name) for name in steps)), ctx, verifier)
        reports = {report.name: report for report in (*cleaned, *quantized)}
        assert {name: report.failure for name, report in reports.items() if report.failure} == {}
        save(model, tmp_path / "result.onnx")
        result = load(tmp_path / "result.onnx")
        fidelity = Fidelity()
        before, after = open_session(original), open_session(result)
        for feed in feeds:
            fidelity.add(before.run(feed), after.run(feed))
        assert fidelity.sqnr >= least
        return result, reports

    return go


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.all_nodes())


def parsed(text: str, *, opset: int = 17, imports: str = "", **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{imports}]> {text}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


GRAPH = "g (float[N, 64] x) => (float[N, 64] y)"


# --- functions, bodies, constants


def test_calls_of_local_functions_stay_and_what_lies_around_them_is_quantized(run: Run) -> None:
    text = (
        GRAPH
        + """ { a = MatMul(x, w) b = local.gate(a) c = Identity(b) y = MatMul(c, v) }
    <domain: "local", opset_import: ["": 17]> gate (p) => (q) { i = Identity(p) s = Sigmoid(i) q = Mul(i, s) }"""
    )
    result, _ = run(parsed(text, imports=', "local": 1', w=W, v=W.T.copy()))
    assert ops(result)["gate"] == 1
    assert len(result.functions) == 1
    assert ops(result)["Identity"] == 0
    assert ops(result)["DequantizeLinear"] + ops(result)["MatMulInteger"] > 0


def test_a_function_that_calls_another_survives(run: Run) -> None:
    text = (
        GRAPH
        + """ { y = local.outer(x, w) }
    <domain: "local", opset_import: ["": 17, "local": 1]> outer (p, r) => (q) { m = MatMul(p, r) q = local.inner(m) }
    <domain: "local", opset_import: ["": 17]> inner (p) => (q) { q = Relu(p) }"""
    )
    result, _ = run(parsed(text, imports=', "local": 1', w=W), least=60.0)
    assert len(result.functions) == 2


IF = """ {
    m = MatMul(x, w)
    s = ReduceSum <keepdims = 0> (m)
    zero = Constant <value_float = 0.0> ()
    c = Greater(s, zero)
    y = If (c) <
        then_branch = t () => (float[N, 64] a) { i = Identity(m) a = MatMul(i, v) },
        else_branch = e () => (float[N, 64] b) { n = Neg(m) b = MatMul(n, v) }>
}"""


def test_branches_are_cleaned_and_outer_values_kept(run: Run) -> None:
    result, _ = run(parsed(GRAPH + IF, w=W, v=W))
    assert ops(result)["If"] == 1
    assert ops(result)["Identity"] == 0


LOOP = """ {
    count = Constant <value = int64 {3}> ()
    true = Constant <value = bool {1}> ()
    y, z = Loop (count, true, x) <
        body = b (int64 i, bool c, float[N, 64] h) => (bool d, float[N, 64] k, float[N, 64] o) {
            d = Identity(c) m = MatMul(h, w) k = Tanh(m) o = Identity(k) }>
}"""


def test_loop_bodies_keep_their_interface(run: Run) -> None:
    proto = parsed("g (float[N, 64] x) => (float[N, 64] y, float[L, N, 64] z)" + LOOP, w=W)
    result, _ = run(proto)
    (loop,) = (node for node in result.graph if node.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    assert (len(body.inputs), len(body.outputs)) == (3, 3)


def test_scan_bodies_keep_their_interface(run: Run) -> None:
    text = """g (float[L, 64] x, float[64] s) => (float[64] t, float[L, 64] y) {
    t, y = Scan <num_scan_inputs = 1, body = b (float[64] h, float[64] e) => (float[64] k, float[64] o) {
        a = Add(h, e) k = Tanh(a) p = Identity(k) o = MatMul(p, w) }> (s, x) }"""
    feeds = [{"x": feed["x"], "s": np.zeros(64, np.float32)} for feed in VECTORS]
    result, _ = run(parsed(text, w=W), feeds)
    assert ops(result)["Scan"] == 1
    assert ops(result)["Identity"] <= 1


def test_weights_in_constant_nodes_are_lifted_and_quantized(run: Run) -> None:
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W))
    proto = parsed(GRAPH + " { y = MatMul(x, w) }")
    proto.graph.node.insert(0, node)
    result, reports = run(proto)
    assert reports["lift-constants"].modified
    assert reports["quantize-static"].modified
    assert ops(result)["Constant"] == 0


def test_external_data_is_read_and_the_result_is_one_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    proto = parsed(GRAPH + " { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }", w=W, v=W)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = (tmp_path / "weights.bin").read_bytes()
    _, reports = run(path)
    assert reports["deduplicate-initializers"].modified
    assert (tmp_path / "weights.bin").read_bytes() == before
    assert not (tmp_path / "result.onnx.data").exists()


def test_one_weight_of_two_layers_stays_one(run: Run) -> None:
    result, _ = run(parsed(GRAPH + " { a = MatMul(x, w) y = MatMul(a, w) }", w=W))
    large = [value for value in result.graph.initializers.values() if value.const_value.size == W.size]
    assert len(large) <= 2  # one, or one for each layer's scales
    assert sum(value.const_value.nbytes for value in large) < W.nbytes


def with_weights_as_inputs(ir_version: int, *listed: str) -> onnx.ModelProto:
    weights = {"w": W, "b": np.ones(64, np.float32), "two": np.full(1, 2, np.float32)}
    proto = parsed(GRAPH + " { a = MatMul(x, w) c = Add(a, b) y = Mul(c, two) }", **weights)
    proto.ir_version = ir_version
    for name in listed:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weights[name].shape)
        proto.graph.input.append(value)
    return proto


def test_initializers_that_a_caller_may_override_are_left_alone(run: Run) -> None:
    proto = with_weights_as_inputs(8, "w", "b")
    result, reports = run(proto, least=60.0)
    assert [value.name for value in result.graph.inputs] == ["x", "w", "b"]
    assert "a caller may override an operand" in {skip.reason for skip in reports["quantize-static"].skipped}
    feed = {**VECTORS[0], "b": np.full(64, 5, np.float32)}
    expected = open_session(load(proto.SerializeToString())).run(feed)["y"]
    np.testing.assert_allclose(open_session(result).run(feed)["y"], expected, rtol=1e-3)


@pytest.mark.parametrize("ir_version", [3, 8])  # and many exporters went on with it
def test_initializers_that_old_files_had_to_list_as_inputs_are_weights(run: Run, ir_version: int) -> None:
    result, reports = run(with_weights_as_inputs(ir_version, "w", "b", "two"))
    assert [value.name for value in result.graph.inputs] == ["x"]
    assert reports["quantize-static"].counters["int8 anchors"] == 1


# --- other domains and types


def test_operators_of_onnxruntime_stay(run: Run) -> None:
    text = GRAPH + " { a = MatMul(x, w) b = com.microsoft.BiasGelu(a, c) d = Identity(b) y = MatMul(d, w) }"
    result, _ = run(parsed(text, imports=', "com.microsoft": 1', w=W, c=np.ones(64, np.float32)))
    assert ops(result)["BiasGelu"] == 1


def test_operators_of_the_ml_domain_stay(run: Run) -> None:
    text = GRAPH + " { a = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (x) b = Identity(a) y = MatMul(b, w) }"
    result, _ = run(parsed(text, imports=', "ai.onnx.ml": 3', w=W))
    assert ops(result)["Scaler"] == 1


def test_sequences_inside_and_as_outputs(run: Run) -> None:
    text = """g (float[N, 64] x) => (seq(float[N, 64]) s, float[M, 64] y) {
    a = MatMul(x, w) r = Relu(x) s = SequenceConstruct(a, r) y = ConcatFromSequence <axis = 0> (s) }"""
    result, _ = run(parsed(text, w=W))
    assert ops(result)["SequenceConstruct"] == 1


def test_sequences_and_optional_values_as_inputs(run: Run) -> None:
    text = """g (seq(float[N, 64]) s, optional(float[N, 64]) o) => (float[N, 64] y) {
    i = Constant <value = int64 {0}> () e = SequenceAt(s, i) v = OptionalGetElement(o) a = Add(e, v)
    y = MatMul(a, w) }"""
    feeds: list[Any] = [{"s": [feed["x"]], "o": feed["x"]} for feed in VECTORS]
    result, _ = run(parsed(text, opset=18, w=W), feeds)
    assert ops(result)["OptionalGetElement"] == 1


def test_string_inputs(run: Run) -> None:
    text = """g (string[N] words) => (float[N, 64] y, string[N] z) {
    z = Identity(words) k = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_int64s = [1, 2]> (words)
    e = Gather(w, k) y = MatMul(e, w) }"""
    feeds = [{"words": np.array(words, object)} for words in (["a", "b"], ["b", "c"])]
    result, _ = run(parsed(text, imports=', "ai.onnx.ml": 3', w=W), feeds)
    assert ops(result)["LabelEncoder"] == 1


# --- quantized already


QDQ = """ { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w8, t, o)
    a = MatMul(d, v) i = Identity(a) r = QuantizeLinear(i, s, z) y = DequantizeLinear(r, s, z) }"""
QLINEAR = """ { q = QuantizeLinear(x, s, z) a = QLinearMatMul(q, s, z, w8, t, o, s, z) i = Identity(a)
    y = DequantizeLinear(i, s, z) }"""


@pytest.mark.parametrize(("body", "kept"), [(QDQ, "DequantizeLinear"), (QLINEAR, "QLinearMatMul")])
def test_what_is_quantized_already_is_said_and_still_cleaned(
    body: str, kept: str, samples: Callable[..., Samples], run: Run
) -> None:
    weights = {
        "w8": (W * 200).clip(-127, 127).astype(np.int8),
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "t": np.float32(1 / 200),
        "o": np.int8(0),
    }
    proto = parsed(GRAPH + body, **{name: np.asarray(array) for name, array in weights.items()})
    result, reports = run(proto, least=30.0)
    assert ops(result)[kept] == ops(ir.from_proto(proto))[kept]
    assert ops(result)["Identity"] == 0
    assert not reports["quantize-static"].modified
    notes = optimize(proto.SerializeToString(), calibration=samples(VECTORS), time_budget=1.0).report.notes
    assert any("quantized already" in note for note in notes)


# --- opsets


IMAGES = [{"x": RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
NEWEST = limits().opset


def cnn(version: int) -> onnx.ModelProto:
    """Convolution, BatchNormalization, Relu, pooling, Gemm, Softmax: operators that every opset since 7 has."""
    text = """g (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, k) b = BatchNormalization(c, one, bias, bias, one) r = Relu(b)
    p = GlobalAveragePool(r) f = Flatten(p) l = Gemm(f, m, head) y = Softmax(l) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 3, opset_import: ["": {version}]> {text}')
    weights = {
        "k": RNG.normal(size=(16, 3, 3, 3)) / 4,
        "one": np.ones(16) * 1.5,
        "bias": np.ones(16) / 3,
        "m": RNG.normal(size=(16, 5)),
        "head": np.zeros(5),
    }
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    proto.ir_version = 4
    return proto


@pytest.mark.parametrize("version", range(7, min(NEWEST, 26) + 1))
def test_every_opset_is_cleaned_and_quantized(version: int, run: Run) -> None:
    result, reports = run(cnn(version), IMAGES)
    assert ops(result)["BatchNormalization"] == 0
    assert opset(result) == max(version, 13)
    assert reports["quantize-static"].counters["int8 anchors"] == 2


@pytest.mark.parametrize("version", [7, 9, 11, 13, 17, 21, NEWEST])
def test_opsets_go_through_optimize(version: int, samples: Callable[..., Samples]) -> None:
    content = cnn(version).SerializeToString()
    result = optimize(content, calibration=samples(IMAGES), time_budget=20.0)
    assert [report.failure for report in result.report.outcome.cleanup if report.failure] == []
    assert {candidate.name for candidate in result.report.outcome.candidates} >= {"static"}
    fidelity = Fidelity()
    for feed in IMAGES:
        fidelity.add(open_session(load(content)).run(feed), open_session(result.model).run(feed))
    assert fidelity.sqnr >= 20


def test_an_opset_that_is_too_new_is_refused_with_a_hint() -> None:
    with pytest.raises(ModelError, match=f"opset {NEWEST + 1}") as caught:
        load(cnn(NEWEST + 1).SerializeToString())
    assert caught.value.hint is not None
