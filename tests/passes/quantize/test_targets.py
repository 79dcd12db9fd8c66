"""What the facts of a target change in the quantized model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.passes.quantize.dynamic import QuantizeDynamic, QuantizeDynamicConfig
from onnxcomp.passes.quantize.static import QuantizeStatic
from onnxcomp.target import TARGETS

Parse = Callable[..., onnx.ModelProto]
STATIC = QuantizeStatic()
DYNAMIC = QuantizeDynamic(QuantizeDynamicConfig(min_elements=0))
INTEGER = [name for name, target in TARGETS.items() if target.roles]
CONV = "Conv <pads = [1, 1, 1, 1]>"
RESIDUAL = f"""g (float[N, 8, 8, 8] x) => (float[N, 8, 8, 8] y) {{
    a = {CONV} (x, w33, b8) r = Relu(a) b = {CONV} (r, v33) s = Add(b, r) t = Relu(s) y = {CONV} (t, w33) }}"""
LSTM = """g (float[5, N, 16] x) => (float[5, 1, N, 8] y) { y, h, c = LSTM <hidden_size = 8> (x, lw, lr) }"""


@pytest.fixture
def residual(parse: Parse, quantize: Any, weights: Any) -> Callable[[str], Any]:
    def run(target: str) -> Any:
        return quantize(STATIC, parse(RESIDUAL, {n: weights[n] for n in ("w33", "v33", "b8")}), target=target)

    return run


@pytest.mark.parametrize("target", INTEGER)
def test_a_residual_block(residual: Any, target: str) -> None:
    done, facts = residual(target), TARGETS[target]
    done.check()
    assert done.stats.counters["int8 anchors"] == 3
    assert done.stats.counters["int8 joins"] == 1
    assert done.sqnr > 18
    constants = {name: value.const_value.numpy() for name, value in done.after.graph.initializers.items()}
    most = max(np.abs(array.astype(int)).max() for array in constants.values() if array.ndim == 4)
    assert most == (63 if facts.reduce_range else 127)
    points = {
        constants[node.inputs[2].name].dtype.name: constants[node.inputs[2].name]
        for node in done.after.graph
        if node.op_type == "QuantizeLinear"
    }
    assert points.keys() == {facts.activations}
    assert {node.domain for node in done.after.graph} == {""}


@pytest.mark.parametrize("target", [name for name in INTEGER if TARGETS[name].readable])
def test_onnxruntime_fuses_what_its_own_targets_promise(residual: Any, target: str) -> None:
    fused = residual(target).fused
    assert fused["QLinearConv"] == 3
    assert fused["QLinearAdd"] == 1


def test_tensorrt_takes_float_biases_and_rounds_only_for_integers(residual: Any) -> None:
    done = residual("tensorrt")
    assert done.after.graph.initializers["b8"].dtype.name == "FLOAT"
    quantizers = [node for node in done.after.graph if node.op_type == "QuantizeLinear"]
    assert [node.inputs[0].name for node in quantizers] == ["x", "r", "b", "t"]
    for node in quantizers:
        assert node.inputs[2].const_value.numpy() == 0
    assert done.after.graph.outputs[0].producer().op_type == "Conv"
    levels = [v.const_value for n, v in done.after.graph.initializers.items() if v.const_value.dtype.name == "INT32"]
    assert levels == []


def test_cuda_quantizes_nothing_and_says_why(residual: Any, parse: Parse, quantize: Any, gaussian: Any) -> None:
    done = residual("cuda")
    assert not done.stats.modified
    assert "float16" in done.reasons[""]
    text = "g (float[N, 64] x) => (float[N, 32] y) { y = MatMul(x, w) }"
    dynamic = quantize(DYNAMIC, parse(text, {"w": gaussian(64, 32)}), target="cuda")
    assert not dynamic.stats.modified
    assert "float16" in dynamic.reasons[""]


def test_portable_models_hold_standard_operators_only(parse: Parse, quantize: Any, gaussian: Any) -> None:
    proto = parse(LSTM, {"lw": gaussian(1, 32, 16), "lr": gaussian(1, 32, 8)})
    assert quantize(DYNAMIC, proto, target="cpu-x86-vnni").stats.modified
    done = quantize(DYNAMIC, proto, target="portable")
    assert not done.stats.modified
    assert set(done.reasons.values()) == {"portable has no dynamic kernel of this type"}
    assert DYNAMIC.units(done.before, done.ctx) == []
