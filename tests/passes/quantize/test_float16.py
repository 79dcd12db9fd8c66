from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcomp.errors import RecipeError
from onnxcomp.model import load, size
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.dynamic import QuantizeDynamic
from onnxcomp.passes.quantize.float16 import StoreFloat16, StoreFloat16Config
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
STORE = StoreFloat16()
TWO = """g (float[4, 64] x) => (float[4, 32] y) { a = MatMul(x, w) r = Relu(a) y = Gemm(r, v, b) }"""


@pytest.fixture
def two(parse: Parse, gaussian: Any) -> onnx.ModelProto:
    proto = parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32, fan_in=4)})
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    return proto


def test_half_the_size_and_the_same_operators(two: onnx.ModelProto, quantize: Any, again: Any) -> None:
    done = quantize(STORE, two)
    done.check()
    assert done.stats.counters == {"float16 weights": 2}  # not the bias
    assert size(done.after) < 0.6 * size(done.before)
    assert "Cast" not in done.fused  # they are folded when it is loaded
    assert done.sqnr > 60
    assert not again(STORE, done).stats.modified


def test_lstm_tables_constant_nodes_and_shared_weights(parse: Parse, quantize: Any, gaussian: Any) -> None:
    lstm = "g (float[5, 2, 24] x) => (float[5, 1, 2, 16] y) { y = LSTM <hidden_size = 16> (x, w, r) }"
    tied = "g (int64[5] i) => (float[5, 64] y) { e = Gather(w, i) y = Gemm <transB = 1> (e, w) }"
    for text, weights, count in (
        (lstm, {"w": gaussian(1, 64, 24), "r": gaussian(1, 64, 16)}, 2),
        (tied, {"w": gaussian(64, 64)}, 1),
    ):
        done = quantize(STORE, parse(text, weights))
        done.check()
        assert done.stats.counters == {"float16 weights": count}
        assert done.sqnr > 55
    proto = parse("g (float[2, 64] x) => (float[2, 64] y) { y = MatMul(x, w) }")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 64))))
    done = quantize(STORE, proto)
    done.check()
    assert done.ops == {"Cast": 1, "MatMul": 1}


def test_weights_of_subgraphs(parse: Parse, quantize: Any, gaussian: Any) -> None:
    text = """g (bool c, float[2, 64] x) => (float[2, 64] y) {
        y = If (c) <
            then_branch = a () => (float[2, 64] t) { s = MatMul(x, w) t = Neg(s) },
            else_branch = b () => (float[2, 64] e) { e = MatMul(x, v) }
        > }"""
    proto = parse(text, {"w": gaussian(64, 64)})
    branch = next(a.g for a in proto.graph.node[0].attribute if a.name == "else_branch")
    branch.initializer.append(numpy_helper.from_array(gaussian(64, 64, seed=1), "v"))
    feeds = [{"c": np.array(c), "x": np.ones((2, 64), np.float32)} for c in (True, False)]
    done = quantize(STORE, proto, feeds)
    done.check()
    assert done.stats.counters == {"float16 weights": 2}
    assert size(done.after) < 0.6 * size(done.before)
    assert done.sqnr > 60


@pytest.mark.parametrize(
    ("factor", "reason"), [(1e6, "exceeds"), (1e-7, "too small"), (np.nan, "NaN"), (np.inf, "infinity"), (1e-3, None)]
)
def test_what_float16_can_hold(parse: Parse, quantize: Any, gaussian: Any, factor: float, reason: str | None) -> None:
    weight = (gaussian(64, 64) * np.float32(factor)).astype(np.float32)
    proto = parse("g (float[4, 64] x) => (float[4, 64] y) { y = MatMul(x, w) }", {"w": weight})
    proto.graph.node[0].name = "n"
    done = quantize(STORE, proto)
    assert done.stats.modified is (reason is None)
    if reason is None:
        assert done.sqnr > 60
    else:
        assert reason in done.reasons["n"]


def test_quantized_operators_are_left_alone(two: onnx.ModelProto, quantize: Any, again: Any) -> None:
    done = quantize(QuantizeDynamic(), two)
    stored = again(StoreFloat16(StoreFloat16Config(min_elements=0)), done)
    stored.check()
    assert stored.sqnr > 40


def test_defaults_that_a_caller_may_override_and_outputs_stay(parse: Parse, quantize: Any, gaussian: Any) -> None:
    proto = parse(TWO, {"w": gaussian(64, 64), "v": gaussian(64, 32), "b": gaussian(32, fan_in=4)})
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 64]))
    done = quantize(STORE, proto)
    assert done.stats.counters == {"float16 weights": 1}
    assert done.after.graph.initializers["w"].dtype == ir.DataType.FLOAT


def test_units_are_what_exclude_takes(two: onnx.ModelProto, quantize: Any) -> None:
    units = STORE.units(load(two.SerializeToString()), PassContext(get_target("auto")))
    assert [unit.nodes for unit in units] == [("n0",), ("n2",)]
    done = quantize(StoreFloat16(StoreFloat16Config(exclude=("n0",))), two)
    assert done.stats.counters == {"float16 weights": 1}
    assert done.reasons["n0"] == "excluded"


def test_wrong_settings() -> None:
    with pytest.raises(RecipeError):
        StoreFloat16Config(min_elements=-1)
