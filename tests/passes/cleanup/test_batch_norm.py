import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.passes.cleanup.batch_norm import FoldBatchNorm

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
RNG = np.random.default_rng(7)


def _bn(channels, dtype=np.float32):
    values = {name: RNG.normal(size=channels).astype(dtype) for name in ("gamma", "beta", "mean")}
    return values | {"var": RNG.uniform(0.1, 2, channels).astype(dtype)}


def _f32(*shape):
    return RNG.normal(size=shape).astype(np.float32)


NORM = "y = BatchNormalization <epsilon = 0.01> (t, gamma, beta, mean, var)"
CONV = f"{OPSET} g (float[2, 4, 7, 6] x) => (float[A, B, C, D] y)"


@pytest.mark.parametrize(
    ("nodes", "weight", "channels"),
    [
        ("t = Conv(x, w)", (6, 4, 3, 3), 6),
        ("t = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)", (6, 4, 3, 3), 6),
        ("t = Conv <group = 4> (x, w, b)", (8, 1, 3, 3), 8),
        ("t = Conv <group = 2> (x, w)", (6, 2, 1, 1), 6),
        ("t = ConvTranspose(x, w)", (4, 5, 3, 3), 5),
        ("t = ConvTranspose <group = 2, strides = [2, 2]> (x, w, b)", (4, 3, 3, 3), 6),
        ("t = ConvTranspose <group = 4> (x, w, b)", (4, 2, 2, 2), 8),
    ],
)
def test_convolutions(make_model, check, nodes, weight, channels):
    weights = {"w": _f32(*weight), **_bn(channels)} | ({"b": _f32(channels)} if "b)" in nodes else {})
    outcome = check(FoldBatchNorm(), make_model(f"{CONV} {{ {nodes} \n {NORM} }}", weights))
    assert set(outcome.ops) <= {"Conv", "ConvTranspose"}
    assert outcome.stats.counters == {"BatchNormalization folded": 1}
    assert outcome.model.graph.outputs[0].name == "y"
    assert "w" in outcome.model.graph.initializers
    assert "gamma" not in outcome.model.graph.initializers


@pytest.mark.parametrize(
    ("nodes", "weight", "bias"),
    [
        ("t = Gemm(x, w)", (4, 5), None),
        ("t = Gemm <transB = 1> (x, w, b)", (5, 4), (5,)),
        ("t = Gemm <transA = 1, alpha = 0.5, beta = 2.0> (xt, w, b)", (4, 5), (1, 5)),
        ("t = Gemm <transB = 1, alpha = 0.3, beta = 0.0> (x, w, b)", (5, 4), (1,)),
        ("t = Gemm(x, w, b)", (4, 5), ()),
        ("t = MatMul(x, w)", (4, 5), None),
    ],
)
def test_matrices(make_model, check, nodes, weight, bias):
    text = f"{OPSET} g (float[3, 4] x) => (float[A, B] y) {{ xt = Transpose(x) \n {nodes} \n {NORM} }}"
    weights = {"w": _f32(*weight), **_bn(5)} | ({} if bias is None else {"b": _f32(*bias)})
    outcome = check(FoldBatchNorm(), make_model(text, weights))
    assert outcome.ops == {"Transpose": 1, "Gemm": 1}


@pytest.mark.parametrize("bias", [(3, 1), (3, 5)])
def test_gemm_with_a_bias_per_row_declines(make_model, check, bias):
    text = f"{OPSET} g (float[3, 4] x) => (float[A, B] y) {{ t = Gemm(x, w, b) \n {NORM} }}"
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 5), "b": _f32(*bias), **_bn(5)}))
    assert "not one constant per channel" in outcome.reasons


def test_matmul_of_more_dimensions_declines(make_model, check):
    text = f"{OPSET} g (float[2, 5, 4] x) => (float[A, B, C] y) {{ t = MatMul(x, w) \n {NORM} }}"
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 5), **_bn(5)}))
    assert "matrix" in outcome.reasons


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("t = Conv(x, w) \n y = BatchNormalization(t, gamma, beta, mean, var) \n z = Neg(t)", "used elsewhere"),
        ("z = Conv(x, w) \n y = BatchNormalization(z, gamma, beta, mean, var)", "used elsewhere"),
        (
            "t = Conv(x, w) \n y, z, v = BatchNormalization <training_mode = 1> (t, gamma, beta, mean, var)",
            "training mode",
        ),
        ("t = Relu(x) \n z = Neg(t) \n y = BatchNormalization(t, gamma, beta, mean, var)", "comes before it"),
        ("d = Neg(w) \n t = Conv(x, d) \n z = Neg(t) \n y = BatchNormalization(z, gamma, beta, mean, var)", "before"),
        ("d = Neg(w) \n z = Neg(x) \n t = Conv(x, d) \n y = BatchNormalization(t, gamma, beta, mean, var)", "constant"),
        (
            "n = Neg(var) \n z = Neg(x) \n t = Conv(x, w) \n y = BatchNormalization(t, gamma, beta, mean, n)",
            "constants",
        ),
    ],
)
def test_near_misses(make_model, apply, nodes, reason):
    z = "float[A1] z" if "training" in nodes else "float[A1, B1, C1, D1] z"
    text = f"{OPSET} g (float[2, 4, 7, 6] x) => (float[A, B, C, D] y, {z}) {{ {nodes} }}"
    outcome = apply(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 3, 3), **_bn(4)}))
    assert not outcome.stats.modified
    assert reason in outcome.reasons


def test_overridable_weight_declines(make_model, check):
    text = f"""{OPSET} g (float[1, 4, 7, 6] x, float[4, 4, 1, 1] w) => (float[A, B, C, D] y)
        {{ t = Conv(x, w) \n {NORM} }}"""
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 1, 1), **_bn(4)}))
    assert "not a floating-point constant" in outcome.reasons


def test_impossible_variance_declines(make_model, apply):
    weights = {"w": _f32(4, 4, 1, 1), **_bn(4), "var": np.full(4, -1, np.float32)}
    outcome = apply(FoldBatchNorm(), make_model(f"{CONV} {{ t = Conv(x, w) \n {NORM} }}", weights))
    assert "variance" in outcome.reasons


def test_overflowing_half_precision_declines(make_model, apply):
    text = f"{OPSET} g (float16[1, 1, 2, 2] x) => (float16[A, B, C, D] y) {{ t = Conv(x, w) \n {NORM} }}"
    weights = {"w": np.full((1, 1, 1, 1), 6e4, np.float16), **_bn(1, np.float16), "gamma": np.array([9], np.float16)}
    assert "overflow" in apply(FoldBatchNorm(), make_model(text, weights)).reasons


def test_shared_weights_are_copied(make_model, check):
    text = f"""{OPSET} g (float[2, 4, 7, 6] x) => (float[A, B, C, D] y, float[A1, B1, C1, D1] z)
        {{ t = Conv(x, w, b) \n {NORM}
           u = Conv(x, w, b) \n z = BatchNormalization(u, mean, beta, gamma, var) \n }}"""
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 3, 3), "b": _f32(4), **_bn(4)}))
    assert outcome.ops == {"Conv": 2}
    assert len(outcome.model.graph.initializers) == 4


def test_weight_that_is_a_graph_output_is_copied(make_model, check):
    text = f"""{OPSET} g (float[2, 4, 7, 6] x) => (float[A, B, C, D] y, float[4, 4, 1, 1] w)
        {{ t = Conv(x, w) \n {NORM} }}"""
    assert check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 1, 1), **_bn(4)})).ops == {"Conv": 1}


def test_subgraph_with_weights_outside(make_model, check):
    text = f"""{OPSET} g (bool c, float[2, 4, 7, 6] x) => (float[A, B, C, D] y)
        {{ y = If (c) <
            then_branch = p () => (float[A1, B1, C1, D1] s)
                {{ t = Conv(x, w) \n s = BatchNormalization(t, gamma, beta, mean, var) }},
            else_branch = q () => (float[A2, B2, C2, D2] e) {{ e = Conv(x, w) }}> }}"""
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 1, 1), **_bn(4)}))
    assert outcome.ops == {"If": 1, "Conv": 2}


def test_output_captured_by_a_subgraph_declines(make_model, check):
    text = f"""{OPSET} g (bool c, float[2, 4, 7, 6] x) => (float[A, B, C, D] y, float[A3, B3, C3, D3] z)
        {{ t = Conv(x, w) \n {NORM}
           z = If (c) <then_branch = p () => (float[A1, B1, C1, D1] s) {{ s = Neg(t) }},
                       else_branch = q () => (float[A2, B2, C2, D2] e) {{ e = Neg(x) }}> }}"""
    outcome = check(FoldBatchNorm(), make_model(text, {"w": _f32(4, 4, 1, 1), **_bn(4)}))
    assert "used elsewhere" in outcome.reasons


@pytest.mark.parametrize(("dtype", "name"), [(np.float16, "float16"), (np.float64, "double")])
def test_weights_keep_their_type(make_model, apply, dtype, name):
    text = f"{OPSET} g ({name}[3, 4] x) => ({name}[A, B] y) {{ t = Gemm(x, w) \n {NORM} }}"
    model = make_model(text, {"w": _f32(4, 4).astype(dtype), **_bn(4, dtype)})
    assert apply(FoldBatchNorm(), model).stats.modified
    assert {v.const_value.dtype for v in model.graph.initializers.values()} == {ir.DataType.from_numpy(np.dtype(dtype))}


def test_opset_7_with_spatial(make_model, apply):
    text = """<ir_version: 4, opset_import: ["" : 7]> g (float[1, 4, 2, 2] x) => (float[A, B, C, D] y)
        { t = Conv(x, w) \n y = BatchNormalization <spatial = 0> (t, gamma, beta, mean, var) }"""
    weights = {"w": _f32(4, 4, 1, 1), **{name: np.ones((4, 2, 2), np.float32) for name in _bn(1)}}
    assert "every position" in apply(FoldBatchNorm(), make_model(text, weights)).reasons
