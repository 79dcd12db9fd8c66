"""What two versions of a model are made of: layers paired, bytes and ranges read off the graph."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxcomp.api.anatomy import anatomy
from onnxcomp.model import load
from onnxcomp.report.anatomy import Anatomy
from onnxcomp.thresholds import Histogram, Range

FEED = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}
WEIGHT = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
SECOND = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
HISTOGRAM = Histogram(np.array([1, 2, 3, 4, 6], np.int64), -2.0, 1.0, Range(-1.5, 2.5), Range(-1.5, 2.5))

PLAIN = "h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v)"
QUANTIZED = """
    q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  f = DequantizeLinear(w8, ws)
    h = MatMul(d, f)  r = Relu(h)  y = MatMul(r, v)
"""


def model(body: str, **constants: np.ndarray) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["": 17]> test (float[3, 8] x) => (float[3, 4] y) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type} of {node.output[0]}"
    return load(proto.SerializeToString())


@pytest.fixture
def before() -> ir.Model:
    return model(PLAIN, w=WEIGHT, v=SECOND)


@pytest.fixture
def after() -> ir.Model:
    scale = np.float32(np.abs(WEIGHT).max() / 127)
    weight = np.rint(WEIGHT / scale).astype(np.int8)
    quarter, zero = np.array(1 / 128, np.float32), np.array(128, np.uint8)
    return model(QUANTIZED, w8=weight, ws=np.array(scale), v=SECOND, s=quarter, z=zero)


def found(before: ir.Model, after: ir.Model, *, seconds: float | None = None) -> Anatomy:
    return anatomy(before, before, after, FEED, histograms={"x": HISTOGRAM}, seconds=seconds, threads=1)


def test_layers_are_paired_by_name_and_say_what_became_of_their_weights(before: ir.Model, after: ir.Model) -> None:
    first, second = found(before, after).layers
    assert (first.name, first.op_type) == ("MatMul of h", "MatMul")
    assert (first.dtype_before, first.dtype_after) == ("float32", "int8")
    assert (first.bytes_before, first.bytes_after) == (512, 128 + 4)  # with the scale
    assert first.sqnr is not None
    assert 20 < first.sqnr < 60
    assert (second.dtype_after, second.bytes_before, second.bytes_after) == ("float32", 256, 256)
    assert first.seconds_before is None


def test_a_layer_that_is_renamed_is_found_by_its_output(before: ir.Model, after: ir.Model) -> None:
    after.graph.node("MatMul of h").name = "another"
    first, _ = found(before, after).layers
    assert (first.name, first.dtype_before, first.dtype_after) == ("MatMul of h", "float32", "int8")


def test_a_layer_that_is_rewritten_as_several_nodes_is_found_behind_its_output(before: ir.Model) -> None:
    body = "i = MatMulInteger(q, w8)  f = Cast<to=1>(i)  h = Mul(f, s)  r = Relu(h)  y = MatMul(r, v)"
    constants = {"w8": np.rint(WEIGHT * 30).astype(np.int8), "s": np.array(1 / 900, np.float32), "v": SECOND}
    rewritten = model(f"t = Mul(x, k)  q = Cast<to=3>(t)  {body}", k=np.array(30, np.float32), **constants)
    first, second = found(before, rewritten).layers
    assert (first.name, first.op_type) == ("MatMul of h", "MatMulInteger")
    assert (first.dtype_before, first.dtype_after) == ("float32", "int8")
    assert first.sqnr is not None
    assert first.sqnr > 20
    assert (second.dtype_before, second.dtype_after) == ("float32", "float32")


def test_a_layer_that_is_gone_is_told_last(before: ir.Model) -> None:
    shorter = model("y = MatMul(x, u)", u=WEIGHT @ SECOND)
    assert [(one.dtype_before, one.dtype_after) for one in found(before, shorter).layers] == [
        ("float32", "float32"),
        ("float32", ""),
    ]


def test_storage_adds_up_to_all_constants(before: ir.Model, after: ir.Model) -> None:
    storage = found(before, after).storage
    assert sum(one.before for one in storage) == WEIGHT.nbytes + SECOND.nbytes
    assert sum(one.after for one in storage) == WEIGHT.size + SECOND.nbytes + 4 + 4 + 1
    assert {(one.op_type, one.dtype): (one.before, one.after) for one in storage}["MatMul", "int8"] == (0, 128)


def test_ranges_are_those_that_the_graph_holds(before: ir.Model, after: ir.Model) -> None:
    (one,) = found(before, after).activations
    assert (one.tensor, one.low, one.high) == ("x", -1.0, 127 / 128)
    assert (one.least, one.most) == (-1.5, 2.5)
    assert (len(one.counts), sum(one.counts)) == (64, 16)
    half = 255 / 128 / 510  # of a level: what rounds to an outermost one is kept
    kept = half / 0.5 + 2 + 3 * (127 / 128 + half)  # all of one bin, and parts of its neighbours
    assert one.clipped == pytest.approx(1 - kept / 16, abs=1e-6)


def test_nothing_is_timed_where_no_time_counts(before: ir.Model, after: ir.Model) -> None:
    assert found(before, after).operators == ()
    timed = found(before, after, seconds=1e-4)
    assert sum(one.nodes_before for one in timed.operators if one.op_type == "MatMul") == 2
    assert all(one.seconds_after >= 0 for one in timed.operators)
    assert timed.layers[0].seconds_before is not None


def test_models_that_do_not_take_the_feed_are_told_without_a_comparison(before: ir.Model, after: ir.Model) -> None:
    feed = {"x": np.zeros((2, 8), np.float32)}
    parts = anatomy(before, before, after, feed, histograms={}, seconds=None, threads=1)
    assert [one.sqnr for one in parts.layers] == [None, None]
    assert parts.notes[0].startswith("layers were not compared: ")
