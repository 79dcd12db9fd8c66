import numpy as np
import pytest

from onnxcomp.passes.cleanup.gelu import FuseGelu

SCALARS = {
    name: np.float32(value) for name, value in {"r2": 2**0.5, "r2i": 0.5**0.5, "one": 1, "half": 0.5, "two": 2}.items()
}
USUAL = "a = Div(x, r2) \n b = Erf(a) \n c = Add(b, one) \n d = Mul(x, c) \n y = Mul(d, half)"


def _text(nodes, opset=20, outputs="float[2, 3, 4] y"):
    return f'<ir_version: 9, opset_import: ["" : {opset}]> g (float[2, 3, 4] x) => ({outputs}) {{ {nodes} }}'


@pytest.mark.parametrize(
    "nodes",
    [
        USUAL,
        "a = Mul(x, r2i) \n b = Erf(a) \n c = Add(one, b) \n h = Mul(x, half) \n y = Mul(h, c)",
        "a = Div(x, r2) \n b = Erf(a) \n c = Add(b, one) \n d = Mul(c, half) \n y = Mul(x, d)",
        "a = Div(x, r2) \n b = Erf(a) \n c = Add(b, one) \n d = Mul(c, x) \n y = Div(d, two)",
    ],
)
def test_every_order(make_model, check, nodes):
    outcome = check(FuseGelu(), make_model(_text(nodes), SCALARS))
    assert outcome.ops == {"Gelu": 1}


def test_two_in_a_row_with_a_gate(make_model, check):
    first = USUAL.replace("y =", "g =")
    second = "e = Div(g, r2) \n f = Erf(e) \n i = Add(f, one) \n j = Mul(g, i) \n k = Mul(j, half) \n y = Mul(k, x)"
    assert check(FuseGelu(), make_model(_text(f"{first} \n {second}"), SCALARS)).ops == {"Gelu": 2, "Mul": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        USUAL.replace("Div(x, r2)", "Div(x, two)"),
        USUAL.replace("Add(b, one)", "Add(b, two)"),
        USUAL.replace("Mul(d, half)", "Mul(d, two)"),
        USUAL.replace("Erf", "Tanh"),
        f"n = Neg(x) \n {USUAL.replace('Mul(x, c)', 'Mul(n, c)')}",
    ],
)
def test_near_misses(make_model, check, nodes):
    assert not check(FuseGelu(), make_model(_text(nodes), SCALARS)).stats.modified


def test_older_opset_declines(make_model, check):
    outcome = check(FuseGelu(), make_model(_text(USUAL, 19), SCALARS))
    assert outcome.reasons == "Gelu needs opset 20"


@pytest.mark.parametrize("used", ["a", "b", "c"])
def test_intermediate_output_declines(make_model, check, used):
    text = _text(USUAL, outputs=f"float[2, 3, 4] y, float[2, 3, 4] {used}")
    assert not check(FuseGelu(), make_model(text, SCALARS)).stats.modified


def test_scalar_that_widens_the_output_declines(make_model, check):
    text = _text(USUAL, outputs="float[1, 2, 3, 4] y")
    weights = SCALARS | {"half": np.full((1, 1, 1, 1), 0.5, np.float32)}
    assert not check(FuseGelu(), make_model(text, weights)).stats.modified
