"""Adjoints of operators: what they tell of a small change is what a small change does."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import load, open_session
from onnxcomp.passes.prune.adjoints import ADJOINTS

CASES = {  # operator: its call, shapes of x and of what else it reads as constants
    "Add": ("Add(x, a)", (2, 3, 4), {"a": (3, 1)}),
    "Sub": ("Sub(x, a)", (2, 3, 4), {"a": (4,)}),
    "Mul": ("Mul(x, a)", (2, 3, 4), {"a": (3, 1)}),
    "Div": ("Div(x, a)", (2, 3, 4), {"a": (3, 1)}),
    "Relu": ("Relu(x)", (2, 9), {}),
    "LeakyRelu": ("LeakyRelu <alpha = 0.2> (x)", (2, 9), {}),
    "Clip": ("Clip(x, low, high)", (2, 9), {"low": (), "high": ()}),
    "Sigmoid": ("Sigmoid(x)", (2, 9), {}),
    "HardSigmoid": ("HardSigmoid <alpha = 0.4> (x)", (2, 9), {}),
    "HardSwish": ("HardSwish(x)", (2, 9), {}),
    "Tanh": ("Tanh(x)", (2, 9), {}),
    "Erf": ("Erf(x)", (2, 9), {}),
    "Gelu": ("Gelu(x)", (2, 9), {}),
    "Gelu tanh": ('Gelu <approximate = "tanh"> (x)', (2, 9), {}),
    "Sqrt": ("Sqrt(x)", (2, 9), {}),
    "Pow": ("Pow(x, two)", (2, 9), {"two": ()}),
    "Flatten": ("Flatten(x)", (2, 3, 4), {}),
    "Transpose": ("Transpose <perm = [2, 0, 1]> (x)", (2, 3, 4), {}),
    "Concat": ("Concat <axis = 1> (x, a)", (2, 3, 4), {"a": (2, 1, 4)}),
    "Softmax": ("Softmax <axis = 1> (x)", (2, 5), {}),
    "Gemm": ("Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, a, b)", (3, 4), {"a": (5, 4), "b": (5,)}),
    "Gemm turned": ("Gemm <transA = 1> (x, a)", (4, 3), {"a": (4, 5)}),
    "MatMul": ("MatMul(x, a)", (2, 3, 4), {"a": (4, 5)}),
    "MatMul many": ("MatMul(x, a)", (2, 3, 4), {"a": (1, 4, 5)}),
    "Conv": ("Conv <pads = [1, 0, 1, 2], strides = [2, 1]> (x, a, b)", (2, 3, 6, 5), {"a": (4, 3, 3, 2), "b": (4,)}),
    "Conv depthwise": ("Conv <group = 4, dilations = [2]> (x, a)", (1, 4, 9), {"a": (4, 1, 3)}),
    "MaxPool": ("MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", (1, 2, 7, 6), {}),
    "MaxPool ceiled": ("MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", (1, 2, 5, 5), {}),
    "GlobalAveragePool": ("GlobalAveragePool(x)", (2, 3, 4, 4), {}),
    "ReduceMean": ("ReduceMean <keepdims = 0> (x, axes)", (2, 3, 4), {"axes": (1,)}),
    "LayerNormalization": ("LayerNormalization(x, a, b)", (2, 3, 5), {"a": (5,), "b": (5,)}),
}


def model_of(parse: Callable[..., onnx.ModelProto], name: str, rng: np.random.Generator) -> ir.Model:
    call, shape, others = CASES[name]
    fixed = {"low": np.array(-0.5), "high": np.array(0.7), "two": np.array(2.0)}
    given = {key: fixed.get(key, rng.uniform(0.5, 1.5, size)) for key, size in others.items()}
    weights: dict[str, np.ndarray] = {key: array.astype(np.float32) for key, array in given.items()}
    if "axes" in weights:
        weights["axes"] = np.array([1], np.int64)
    sizes = ", ".join(map(str, shape))
    model = load(parse(f"g (float[{sizes}] x) => (float y) {{ y = {call} }}", weights, opset=20).SerializeToString())
    for key, value in model.graph.initializers.items():
        if key not in ("axes", "low", "high", "two"):
            model.graph.inputs.append(value)
    return model


@pytest.mark.parametrize("name", CASES)
def test_it_tells_what_a_small_change_does(parse: Callable[..., onnx.ModelProto], name: str) -> None:
    rng = np.random.default_rng(1)
    model = model_of(parse, name, rng)
    (node,) = model.graph
    session = open_session(model, optimize=False)
    positive = name in ("Sqrt", "Pow")
    feed = {v.name: rng.normal(size=tuple(v.shape)).astype(np.float32) for v in model.graph.inputs if v.shape}
    feed["x"] = np.abs(feed["x"]) + 0.5 if positive else feed["x"]
    feed |= {k: np.abs(v) + 0.5 for k, v in feed.items() if name == "Div" and k == "a"}
    read = [
        feed.get(str(v.name), None if v.const_value is None else v.const_value.numpy())
        for v in node.inputs
        if v is not None
    ]
    (given,) = session.run(feed).values()
    slope = rng.normal(size=given.shape).astype(np.float32)
    found = ADJOINTS[node.op_type](node, read, given, slope)
    for value, array, told in zip(node.inputs, read, found, strict=False):
        if told is None or value is None or value.name not in feed:
            continue
        assert told.shape == array.shape
        way = rng.normal(size=array.shape).astype(np.float32)
        step = np.float32(2e-3)
        ends = [session.run(feed | {str(value.name): array + sign * step * way})["y"] for sign in (1, -1)]
        measured = float(((ends[0] - ends[1]).astype(np.float64) * slope).sum()) / (2 * float(step))
        assert float((told * way).sum()) == pytest.approx(measured, rel=0.03, abs=0.02)


def test_every_adjoint_is_held_against_its_operator() -> None:
    alike = {"Reshape", "Squeeze", "Unsqueeze", "Identity"}  # as Flatten
    assert {name.split()[0] for name in CASES} | alike == set(ADJOINTS)
