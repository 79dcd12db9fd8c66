import math
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxcomp.model import load
from onnxcomp.passes.quantize.useful import useful_range, useful_ranges
from onnxcomp.statistics import Range

Parse = Callable[..., onnx.ModelProto]
INF = math.inf
CONSTANTS = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)}
GATE = "a = Add(x, three) b = Clip(a, zero, six) h = Mul(b, sixth) y = Mul(x, h)"


def model_of(parse: Parse, nodes: str) -> onnx.ModelProto:
    # x is made by a node: the range of an input is not the pass's to choose
    return parse(f"g (float[N] s) => (float[N] y) {{ x = Identity(s) {nodes} }}", CONSTANTS)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = HardSwish(x)", Range(-3, INF)),
        ("y = Relu(x)", Range(0, INF)),
        ("y = Clip(x, zero, six)", Range(0, 6)),
        ("y = Clip(x, , six)", Range(-INF, 6)),
        ("y = HardSigmoid <alpha = 0.5, beta = 0.25> (x)", Range(-0.5, 1.5)),
        ("r = Relu(x) h = HardSwish(x) y = Add(r, h)", Range(-3, INF)),
        ("r = Relu(x) y = Add(r, x)", Range(-INF, INF)),
        (GATE, Range(-3, INF)),
        ("a = Add(three, x) b = Clip(a, zero, six) y = Mul(b, x)", Range(-3, INF)),
        ("a = Add(x, three) b = Relu(a) y = Mul(x, b)", Range(-3, INF)),
        ("a = Add(x, three) b = Clip(a, sixth, six) y = Mul(x, b)", Range(-INF, INF)),  # the gate never closes
        (f"{GATE.replace('y =', 'z =')} y = Add(z, x)", Range(-INF, INF)),  # x is also read by the side
        (f"{GATE.replace('y =', 'z =')} y = Add(z, h)", Range(-INF, INF)),  # so is the gate
        ("y = Sigmoid(x)", Range(-INF, INF)),
        ("y = Clip(x, six, zero)", Range(-INF, INF)),
    ],
)
def test_readers_do_not_tell_apart_what_is_outside(parse: Parse, nodes: str, expected: Range) -> None:
    proto = model_of(parse, nodes)
    x = next(value for node in load(proto.SerializeToString()).graph for value in node.outputs if value.name == "x")
    found = useful_range(x)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # By execution: saturating there changes no output
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    samples = np.linspace(-20, 20, 401, dtype=np.float32)
    whole = session.run(None, {"s": samples})[0]
    saturated = session.run(None, {"s": np.clip(samples, found.low, found.high)})[0]
    np.testing.assert_allclose(saturated, whole, atol=1e-6)


def test_an_output_of_the_graph_is_useful_everywhere(parse: Parse) -> None:
    proto = parse("g (float[N] s) => (float[N] x, float[N] y) { x = Identity(s) y = Relu(x) }", {})
    x = load(proto.SerializeToString()).graph.outputs[0]
    assert useful_range(x) == Range(-INF, INF)


def test_measured_ranges_shrink_and_never_become_empty(parse: Parse) -> None:
    graph = load(model_of(parse, "y = HardSwish(x)").SerializeToString()).graph
    assert useful_ranges(graph, {"x": Range(-9, 4), "s": Range(-9, 4)}) == {"x": Range(-3, 4), "s": Range(-9, 4)}
    assert useful_ranges(graph, {"x": Range(-9, -5)}) == {"x": Range(-9, -5)}
    assert useful_ranges(graph, {"x": Range(-1, 4)}) == {"x": Range(-1, 4)}
