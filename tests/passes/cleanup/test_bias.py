import numpy as np
import pytest

from onnxcomp.passes.cleanup.bias import FoldBias

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
RNG = np.random.default_rng(11)
CONV = f"{OPSET} g (float[2, 4, 6, 6] x) => (float[A, B, C, D] y)"
MATRIX = f"{OPSET} g (float[3, 4] x) => (float[A, B] y)"


def _f32(*shape):
    return RNG.uniform(0.5, 2, size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (6, 1, 1), (), (1,), (1, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    "op", ["Add(t, c)", "Add(c, t)", "Sub(t, c)", "Sub(c, t)", "Mul(t, c)", "Mul(c, t)", "Div(t, c)"]
)
def test_after_conv(make_model, check, shape, op):
    weights = {"w": _f32(6, 2, 3, 3), "b": _f32(6), "c": _f32(*shape)}
    text = f"{CONV} {{ t = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b) \n y = {op} }}"
    outcome = check(FoldBias(), make_model(text, weights))
    assert outcome.ops == {"Conv": 1}
    assert set(outcome.model.graph.initializers) == {"w", "b"}


@pytest.mark.parametrize("linear", ["ConvTranspose <group = 2> (x, w)", "ConvTranspose <group = 2> (x, w, b)"])
@pytest.mark.parametrize("op", ["Add(t, c)", "Mul(t, c)", "Sub(c, t)"])
def test_after_conv_transpose(make_model, check, linear, op):
    weights = {"w": _f32(4, 3, 2, 2), "b": _f32(6), "c": _f32(6, 1, 1)}
    assert check(FoldBias(), make_model(f"{CONV} {{ t = {linear} \n y = {op} }}", weights)).ops == {"ConvTranspose": 1}


@pytest.mark.parametrize("shape", [(5,), (1, 5), (), (1, 1)])
@pytest.mark.parametrize(
    "linear",
    ["Gemm(x, w)", "Gemm <alpha = 0.5, beta = 3.0> (x, w, b)", "Gemm <transB = 1> (x, v, b)", "MatMul(x, w)"],
)
@pytest.mark.parametrize("op", ["Add(t, c)", "Mul(t, c)", "Sub(c, t)", "Div(t, c)"])
def test_after_matrix_products(make_model, check, linear, op, shape):
    weights = {"w": _f32(4, 5), "v": _f32(5, 4), "b": _f32(5), "c": _f32(*shape)}
    outcome = check(FoldBias(), make_model(f"{MATRIX} {{ t = {linear} \n y = {op} }}", weights))
    takes_bias = "Gemm" in linear or op[:3] in ("Add", "Sub")
    assert outcome.ops == {"Gemm" if takes_bias else "MatMul": 1}


def test_scale_and_shift_in_a_row(make_model, check):
    weights = {"w": _f32(6, 4, 3, 3), "s": _f32(1, 6, 1, 1), "c": _f32(1, 6, 1, 1)}
    outcome = check(FoldBias(), make_model(f"{CONV} {{ t = Conv(x, w) \n u = Mul(t, s) \n y = Add(u, c) }}", weights))
    assert outcome.ops == {"Conv": 1}
    assert outcome.stats.counters == {"Mul folded": 1, "Add folded": 1}


@pytest.mark.parametrize(
    ("op", "constant", "reason"),
    [
        ("Add(t, c)", (4, 4), "per output channel"),  # varies over positions
        ("Add(t, c)", (6,), "per output channel"),  # along the width
        ("Mul(t, c)", (1, 1, 4, 1), "per output channel"),
        ("Add(t, c)", (2, 6, 1, 1), "per output channel"),
        ("Add(t, c)", (1, 1, 6, 1, 1), "per output channel"),  # makes the output wider
        ("Div(c, t)", (6, 1, 1), "divides by the output"),
    ],
)
def test_near_misses(make_model, apply, op, constant, reason):
    y = "float[A, B, C, D, E] y" if len(constant) == 5 else "float[A, B, C, D] y"
    channels = 6
    text = f"{OPSET} g (float[2, 4, 6, {8 if constant == (6,) else 6}] x) => ({y}) {{ t = Conv(x, w) \n y = {op} }}"
    outcome = apply(FoldBias(), make_model(text, {"w": _f32(channels, 4, 3, 3), "c": _f32(*constant)}))
    assert not outcome.stats.modified
    assert reason in outcome.reasons


def test_one_channel_that_would_be_widened_declines(make_model, check):
    text = f"{CONV} {{ t = Conv(x, w) \n y = Add(t, c) }}"
    outcome = check(FoldBias(), make_model(text, {"w": _f32(1, 4, 3, 3), "c": _f32(1, 6, 1, 1)}))
    assert not outcome.stats.modified


def test_division_by_zero_declines(make_model, apply):
    text = f"{CONV} {{ t = Conv(x, w) \n y = Div(t, c) }}"
    outcome = apply(FoldBias(), make_model(text, {"w": _f32(6, 4, 3, 3), "c": np.float32(0)}))
    assert "divides by 0" in outcome.reasons


def test_never_before_a_convolution(make_model, check):
    text = f"{CONV} {{ t = Add(x, c) \n y = Conv <pads = [1, 1, 1, 1]> (t, w) }}"
    assert not check(FoldBias(), make_model(text, {"w": _f32(6, 4, 3, 3), "c": _f32(1, 4, 1, 1)})).stats.modified


def test_matmul_of_more_dimensions_takes_scales_but_no_bias(make_model, check):
    text = f"""{OPSET} g (float[2, 3, 4] x) => (float[A, B, C] y)
        {{ t = MatMul(x, w) \n s = Mul(t, c) \n y = Add(s, c) }}"""
    outcome = check(FoldBias(), make_model(text, {"w": _f32(4, 5), "c": _f32(5)}))
    assert outcome.ops == {"MatMul": 1, "Add": 1}
    assert "not known to give a matrix" in outcome.reasons


def test_matmul_of_unknown_rank_declines(make_model, apply):
    text = f"""{OPSET} g (float[3, 4] x, int64[K] shape) => (float[A, B] y)
        {{ r = Reshape(x, shape) \n t = MatMul(r, w) \n y = Add(t, c) }}"""
    outcome = apply(FoldBias(), make_model(text, {"w": _f32(4, 5), "c": _f32(5)}))
    assert "not known to give a matrix" in outcome.reasons


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Conv(x, w) \n y = Add(t, c) \n z = Neg(t)",
        "z = Conv(x, w) \n y = Add(z, c)",
        "t = Conv(x, w) \n z = Add(t, t) \n y = Add(t, c)",
    ],
)
def test_output_used_elsewhere_declines(make_model, check, nodes):
    text = f"{OPSET} g (float[2, 4, 6, 6] x) => (float[A, B, C, D] y, float[A1, B1, C1, D1] z) {{ {nodes} }}"
    outcome = check(FoldBias(), make_model(text, {"w": _f32(6, 4, 3, 3), "c": _f32(6, 1, 1)}))
    assert "used elsewhere" in outcome.reasons


def test_shared_constants_and_weights(make_model, check):
    text = f"""{OPSET} g (float[2, 4, 6, 6] x) => (float[A, B, C, D] y, float[A1, B1, C1, D1] z)
        {{ t = Conv(x, w) \n y = Mul(t, c) \n u = Conv(x, w) \n z = Add(u, c) }}"""
    outcome = check(FoldBias(), make_model(text, {"w": _f32(6, 4, 3, 3), "c": _f32(6, 1, 1)}))
    assert outcome.ops == {"Conv": 2}


def test_overridable_constant_declines(make_model, check):
    text = f"""{OPSET} g (float[2, 4, 6, 6] x, float[6, 1, 1] c) => (float[A, B, C, D] y)
        {{ t = Conv(x, w) \n y = Add(t, c) }}"""
    weights = {"w": _f32(6, 4, 3, 3), "c": _f32(6, 1, 1)}
    assert not check(FoldBias(), make_model(text, weights)).stats.modified


def test_integers_are_left(make_model, check):
    text = f"{OPSET} g (int32[3, 4] x) => (int32[A, B] y) {{ t = MatMul(x, w) \n y = Add(t, c) }}"
    weights = {"w": np.ones((4, 5), np.int32), "c": np.ones(5, np.int32)}
    assert not check(FoldBias(), make_model(text, weights)).stats.modified


def test_inside_a_subgraph(make_model, check):
    text = f"""{OPSET} g (bool c, float[2, 4, 6, 6] x) => (float[A, B, C, D] y)
        {{ y = If (c) <then_branch = p () => (float[A1, B1, C1, D1] s) {{ t = Conv(x, w) \n s = Add(t, k) }},
                       else_branch = q () => (float[A2, B2, C2, D2] e) {{ e = Conv(x, w) }}> }}"""
    outcome = check(FoldBias(), make_model(text, {"w": _f32(6, 4, 3, 3), "k": _f32(6, 1, 1)}))
    assert outcome.ops == {"If": 1, "Conv": 2}
