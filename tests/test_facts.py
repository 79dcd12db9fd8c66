from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcomp.facts import feature_outputs, input_bounds, input_specs, is_quantized, parameter_count, unfinite_weights
from onnxcomp.model import load

Parse = Callable[..., onnx.ModelProto]


def test_inputs(parse: Parse) -> None:
    text = """g (float[N, 3, 0] a, int64[2] b, bool c, string[2] d, float e, float[3] w) => (float[3] y)
        { y = Neg(w) }"""
    model = load(parse(text, {"w": np.ones(3)}).SerializeToString())
    specs = {spec.name: spec for spec in input_specs(model)}
    assert list(specs) == ["a", "b", "c", "d", "e", "w"]
    assert (specs["a"].dtype, specs["a"].shape) == (np.float32, (None, 3, None))
    assert (specs["b"].dtype, specs["b"].shape) == (np.int64, (2,))
    assert (specs["c"].dtype, specs["c"].shape) == (np.bool_, ())
    assert specs["d"].dtype is None
    assert [name for name, spec in specs.items() if spec.optional] == ["w"]


@pytest.mark.parametrize(
    ("nodes", "bound"),
    [
        ("y = Gather(t, i)", 5),
        ("y = Gather <axis = 1> (t, i)", 7),
        ("y = Gather <axis = -1> (t, i)", 7),
        ("a = Cast <to = 6> (i) b = Unsqueeze(a, zero) y = Gather(t, b)", 5),
        ("a = Gather(big, i) b = Gather(t, i) y = Concat <axis = 0> (a, b)", 5),
        ("a = Identity(i) b = Gather(t, i) c = Gather(big, a) y = Concat <axis = 0> (b, c)", 5),
        ("a = Add(i, zero) y = Gather(t, a)", None),  # not the same numbers any more
        ("y = Gather(f, zero)", None),
    ],
)
def test_input_bounds(parse: Parse, nodes: str, bound: int | None) -> None:
    weights = {"t": np.zeros((5, 7)), "big": np.zeros((9, 7)), "zero": np.array([0])}
    proto = parse(f"g (int64[1] i, float[4] f) => (float y) {{ {nodes} }}", weights)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert input_bounds(load(proto.SerializeToString())) == ({} if bound is None else {"i": bound})


def test_parameters(parse: Parse) -> None:
    text = """g (bool c, float[3] x) => (float[3] y) {
        k = Constant <value = float[65] {ONES}> ()
        s = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
        n = ReduceSum <keepdims = 0> (k)
        z = Mul(x, n)
        y = If (c) <
            then_branch = t () => (float[3] p) <float[3] v = {1.0, 2.0, 3.0}> { p = Add(z, v) },
            else_branch = e () => (float[3] q) { q = Add(z, s) }
        >
    }""".replace("ONES", ", ".join(["1.0"] * 65))
    model = load(parse(text, {"w": np.ones((4, 5)), "scalar": np.float32(1)}).SerializeToString())
    # two initializers, one in a branch, and the Constant of more than 64 elements
    assert parameter_count(model) == 20 + 1 + 3 + 65


def test_parameters_of_the_samples(sample_models: Path) -> None:
    for path in sample_models.glob("*/model.onnx"):
        weights = [numpy_helper.to_array(t).size for t in onnx.load(path).graph.initializer]
        assert 0 <= parameter_count(load(path)) - sum(weights) < 64


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = Neg(x)", False),
        ("q = QuantizeLinear(x, one) y = DequantizeLinear(q, one)", True),
        ("q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)", True),
    ],
)
def test_is_quantized(parse: Parse, nodes: str, expected: bool) -> None:
    model = load(parse(f"g (float[3] x) => (float[3] y) {{ {nodes} }}", {"one": np.float32(1)}).SerializeToString())
    assert is_quantized(model) is expected


@pytest.mark.parametrize(
    ("nodes", "features"),
    [
        ("y = LayerNormalization(x, w, w)", True),
        ("y = com.microsoft.SkipLayerNormalization(x, x, w, w)", True),
        ("n = ReduceL2 <axes = [1]> (x) y = Div(x, n)", True),
        ("y = LpNormalization(x)", True),
        ("m = ReduceMean <axes = [1], keepdims = 0> (x) y = Reshape(m, shape)", True),
        (
            "m = ReduceMean(x) s = Squeeze(m) t = Unsqueeze(s, axes) c = Cast <to = 1> (t) y = Flatten(c)",
            True,
        ),
        ("y = MatMul(x, w2)", False),
        ("y = Gemm(x, w2, w)", False),
        ("p = MatMul(x, w2) y = Softmax(p)", False),
        ("p = MatMul(x, w2) y = Sigmoid(p)", False),
        ("p = MatMul(x, w2) e = Exp(p) s = ReduceSum(e, axes) y = Div(e, s)", False),  # a softmax in pieces
        ("n = LayerNormalization(x, w, w) y = Gemm(n, w2, w)", False),  # what counts is the end
        ("m = ReduceMean <axes = [1]> (x) p = Add(m, w) y = Reshape(p, shape)", False),
        ("y = Identity(x)", False),  # no operator at all
        ("p = MatMul(x, w2) y = Mul(p, scalar)", False),  # logits times a temperature
        ("p = MatMul(x, w2) y = Mul(one, p)", False),
        ("p = MatMul(x, w2) c = Constant <value_float = 2.0> () y = Div(p, c)", False),
        ("p = MatMul(x, w2) s = Div(p, scalar) y = Reshape(s, shape)", False),
        ("n = ReduceL2 <axes = [1]> (x) d = Div(x, n) y = Mul(d, scalar)", True),  # a scaled embedding
        ("p = MatMul(x, w2) y = Mul(p, w)", True),  # a gain for each element
    ],
)
def test_outputs_that_are_features(parse: Parse, nodes: str, features: bool) -> None:
    weights = {"w": np.ones(4), "w2": np.ones((4, 4)), "shape": np.array([1, -1]), "axes": np.array([0])}
    weights |= {"scalar": np.array(2.0), "one": np.ones((1, 1))}
    model = load(parse(f"g (float[4, 4] x) => (float[A, B] y) {{ {nodes} }}", weights).SerializeToString())
    assert feature_outputs(model) == ({"y"} if features else frozenset())


@pytest.mark.parametrize(("op", "gates", "outputs"), [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)])
def test_recurrent_states_are_features_and_scores_beside_them_are_not(
    parse: Parse, op: str, gates: int, outputs: int
) -> None:
    names = ["sequence", "state", "cell"][:outputs]
    text = f"""g (float[T, B, 4] x) => (float[C, D] scores, {", ".join(f"float {name}" for name in names[1:])}) {{
        {", ".join(names)} = {op} <hidden_size = 4> (x, w, r)
        flat = Reshape(sequence, shape)  scores = MatMul(flat, m)
    }}"""
    weights = {"w": np.ones((1, gates * 4, 4)), "r": np.ones((1, gates * 4, 4)), "m": np.ones((4, 2))}
    proto = parse(text, {**weights, "shape": np.array([-1, 4])})
    assert feature_outputs(load(proto.SerializeToString())) == set(names[1:])


def test_infinity_is_no_weight_where_it_bounds_or_masks(parse: Parse) -> None:
    text = """g (float[2, 2] x) => (float[2, 2] y) {
        a = MatMul (x, w)  b = Clip (a, low, high)  c = Add (b, mask)  y = Max (c, broken) }"""
    infinity, masked = np.float32(np.inf), np.array([[0, -np.inf], [0, 0]])
    weights = {"w": masked, "low": -infinity, "high": infinity, "mask": masked, "broken": np.float32(np.nan)}
    assert sorted(unfinite_weights(load(parse(text, weights).SerializeToString()))) == ["broken", "w"]
