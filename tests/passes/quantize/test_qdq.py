"""What the writer puts into the file, number by number; what onnxruntime makes of it is in test_static.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import infer_shapes, load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.placement import plan
from onnxcomp.passes.quantize.qdq import QdqWriter, measured_tensors
from onnxcomp.statistics import Range
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
RANGE = Range(-2.55, 2.55)


@pytest.fixture
def write(parse: Parse) -> Callable[..., ir.Model]:
    def run(
        text: str, constants: dict[str, Any], ranges: dict[str, Range] | None = None, *, per_channel: bool = True
    ) -> Any:
        model = load(parse(text, constants).SerializeToString())
        infer_shapes(model)
        target = get_target("cpu-x86-vnni")
        placement = plan(model.graph, PassContext(target), anchors=("Conv", "Gemm", "MatMul"), exclude=())
        known = dict.fromkeys(measured_tensors(placement), RANGE) | (ranges or {})
        assert QdqWriter(model.graph, placement, known, target, per_channel=per_channel).write() == len(placement.roles)
        model.graph.sort()
        return load(serialized(model))

    return run


def parameters(value: ir.Value | None) -> tuple[float, int]:
    """Scale and zero point of the DequantizeLinear behind a tensor."""
    assert value is not None
    node = value.producer()
    assert node is not None
    assert node.op_type == "DequantizeLinear"
    scale, zero_point = (v.const_value.numpy() for v in node.inputs[1:3])  # type: ignore[union-attr]
    return float(scale), int(zero_point)


def find(model: ir.Model, op_type: str, index: int = 0) -> ir.Node:
    return [node for node in model.graph if node.op_type == op_type][index]


def test_weights_and_bias_of_a_convolution(write: Any) -> None:
    w = np.array([1.27, -0.127]).reshape(2, 1, 1, 1)
    model = write("g (float[1, 1, 4, 4] x) => (float[1, 2, 4, 4] y) { y = Conv(x, w, b) }", {"w": w, "b": [0.5, -0.5]})
    conv = find(model, "Conv")
    assert parameters(conv.inputs[0]) == (pytest.approx(0.02), 128)
    weight = conv.inputs[1].producer()
    assert weight.inputs[0].const_value.numpy().reshape(-1).tolist() == [127, -127]
    np.testing.assert_allclose(weight.inputs[1].const_value.numpy(), [0.01, 0.001], rtol=1e-6)
    assert weight.attributes.get_int("axis", 1) == 0
    bias = conv.inputs[2].producer()
    levels = bias.inputs[0].const_value.numpy()
    assert levels.dtype == np.int32
    np.testing.assert_allclose(levels * bias.inputs[1].const_value.numpy(), [0.5, -0.5], rtol=1e-4)
    np.testing.assert_allclose(bias.inputs[1].const_value.numpy(), [0.02 * 0.01, 0.02 * 0.001], rtol=1e-6)


def test_the_output_keeps_its_name_and_is_quantized(write: Any) -> None:
    text = "g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) { y = Conv(x, w) }"
    model = write(text, {"w": np.ones((1, 1, 1, 1))}, {"y": Range(0, 5.1)})
    (y,) = model.graph.outputs
    assert y.name == "y"
    assert parameters(y) == (pytest.approx(0.02), 0)


def test_products_give_floats_where_no_integer_node_reads_them(write: Any) -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) { a = MatMul(x, w) y = Gemm(a, w) }"
    model = write(text, {"w": np.eye(4)})
    assert model.graph.outputs[0].producer().op_type == "Gemm"
    assert find(model, "Gemm").inputs[0].producer().op_type == "DequantizeLinear"


def test_movers_keep_the_parameters(write: Any) -> None:
    text = """g (float[1, 1, 4, 4] x) => (float[1, 1, 1, 1] y)
        { a = Conv(x, w) m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
          y = Conv <strides = [2, 2]> (m, w) }"""
    model = write(text, {"w": np.ones((1, 1, 1, 1))}, {"a": Range(0, 5.1)})
    pool = find(model, "MaxPool")
    assert parameters(pool.inputs[0]) == parameters(find(model, "Conv", 1).inputs[0]) == (pytest.approx(0.02), 0)


def test_softmax_has_fixed_parameters(write: Any) -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) { a = MatMul(x, w) s = Softmax(a) y = MatMul(s, w) }"
    model = write(text, {"w": np.eye(4)})
    assert parameters(find(model, "MatMul", 1).inputs[0]) == (1 / 256, 0)


def test_a_constant_operand_is_stored_in_integers(write: Any) -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) { a = MatMul(x, w) s = Add(a, c) y = MatMul(s, w) }"
    c = np.array([0.0, 1.0, -1.55, 1.0])
    model = write(text, {"w": np.eye(4), "c": c})
    operand = find(model, "Add").inputs[1]
    scale, zero_point = parameters(operand)
    levels = operand.producer().inputs[0].const_value.numpy()
    assert levels.dtype == np.uint8
    np.testing.assert_allclose((levels.astype(float) - zero_point) * scale, c, atol=scale / 2)
    assert "c" not in [v.name for v in model.graph.initializers.values() if v.uses()]


def test_one_scale_per_weight(write: Any) -> None:
    w = np.array([[1.27, 0.127], [0.0, 0.0]])
    text = "g (float[1, 2] x) => (float[1, 2] y) { y = Gemm(x, w, b) }"
    model = write(text, {"w": w, "b": [1.0, -1.0]}, per_channel=False)
    weight = find(model, "Gemm").inputs[1].producer()
    assert weight.inputs[1].const_value.shape.numpy() == ()
    assert weight.inputs[0].const_value.numpy().reshape(-1).tolist() == [127, 13, 0, 0]


def test_a_tensor_has_one_pair_for_all_integer_readers(write: Any) -> None:
    text = """g (float[1, 4] x) => (float[1, 4] y, float[1, 4] z, float[1, 4] r)
        { y = MatMul(x, w) z = MatMul(x, w) r = Neg(x) }"""
    model = write(text, {"w": np.eye(4)})
    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 1
    assert find(model, "Neg").inputs[0] is model.graph.inputs[0]  # floats read what was not quantized


def test_floats_read_behind_the_pair_of_an_integer_result(write: Any) -> None:
    text = "g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) { a = Conv(x, w) y = Neg(a) }"
    model = write(text, {"w": np.ones((1, 1, 1, 1))})
    assert find(model, "Neg").inputs[0].producer().op_type == "DequantizeLinear"
