import re

import numpy as np
import pytest

from onnxcomp.passes.cleanup.layer_norm import FuseLayerNorm

RNG = np.random.default_rng(3)
WEIGHTS = {
    "two": np.float32(2),
    "eps": np.float32(1e-5),
    "g": RNG.normal(size=8).astype(np.float32),
    "b": RNG.normal(size=8).astype(np.float32),
    "last": np.array([-1]),
}
HEAD = "m = ReduceMean <axes = [-1]> (x) \n d = Sub(x, m)"
SQUARE = "s = Pow(d, two) \n v = ReduceMean <axes = [-1]> (s)"
ROOT = "e = Add(v, eps) \n q = Sqrt(e)"
TAIL = "n = Div(d, q) \n k = Mul(n, g) \n y = Add(k, b)"
USUAL = f"{HEAD} \n {SQUARE} \n {ROOT} \n {TAIL}"


def _text(nodes, opset=17, outputs="float[2, 4, 8] y"):
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[2, 4, 8] x) => ({outputs}) {{ {nodes} }}'


@pytest.mark.parametrize(
    "nodes",
    [
        USUAL,
        USUAL.replace("Pow(d, two)", "Mul(d, d)"),
        USUAL.replace("axes = [-1]", "axes = [2]"),
        USUAL.replace("n = Div(d, q)", "r = Reciprocal(q) \n n = Mul(d, r)"),
        USUAL.replace("n = Div(d, q)", "r = Reciprocal(q) \n n = Mul(r, d)"),
        USUAL.replace("Add(v, eps)", "Add(eps, v)").replace("Mul(n, g)", "Mul(g, n)").replace("Add(k, b)", "Add(b, k)"),
        USUAL.replace("s = Pow(d, two)", "d2 = Sub(x, m) \n s = Pow(d2, two)"),
        USUAL.replace("k = Mul(n, g) \n y = Add(k, b)", "y = Mul(n, g)"),
    ],
)
def test_every_form(make_model, check, nodes):
    outcome = check(FuseLayerNorm(), make_model(_text(nodes), WEIGHTS))
    assert outcome.ops == {"LayerNormalization": 1}


def test_axes_as_input(make_model, check):
    nodes = USUAL.replace("ReduceMean <axes = [-1]> (x)", "ReduceMean(x, last)")
    nodes = nodes.replace("ReduceMean <axes = [-1]> (s)", "ReduceMean(s, last)")
    assert check(FuseLayerNorm(), make_model(_text(nodes, 18), WEIGHTS)).ops == {"LayerNormalization": 1}


def test_two_axes_and_wide_parameters(make_model, check):
    nodes = USUAL.replace("axes = [-1]", "axes = [1, 2]")
    weights = WEIGHTS | {name: RNG.normal(size=(1, 4, 8)).astype(np.float32) for name in "gb"}
    outcome = check(FuseLayerNorm(), make_model(_text(nodes), weights))
    assert outcome.ops == {"LayerNormalization": 1}
    assert {tuple(v.shape) for v in outcome.model.graph.initializers.values() if v.name in "gb"} == {(4, 8)}


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        (USUAL.replace("axes = [-1]", "axes = [1]"), {"g": np.ones((4, 1), np.float32)}),
        (USUAL.replace("Pow(d, two)", "Pow(d, eps)"), {}),
        (USUAL.replace("Sub(x, m)", "Sub(m, x)"), {}),
        (USUAL.replace("k = Mul(n, g)", "k = Mul(n, n)"), {}),
        (USUAL.replace("Mul(n, g)", "Mul(n, two)"), {}),
        (USUAL.replace("Mul(n, g)", "Add(n, g)"), {}),
        (USUAL.replace("axes = [-1]> (s)", "axes = [0]> (s)"), {}),
        (USUAL.replace("Sqrt(e)", "Exp(e)"), {}),
    ],
)
def test_near_misses(make_model, apply, nodes, weights):
    assert not apply(FuseLayerNorm(), make_model(_text(nodes), WEIGHTS | weights)).stats.modified


def test_older_opset_declines(make_model, check):
    outcome = check(FuseLayerNorm(), make_model(_text(USUAL, 16), WEIGHTS))
    assert outcome.reasons == "LayerNormalization needs opset 17"


@pytest.mark.parametrize("used", ["m", "d", "s", "v", "q"])
def test_intermediate_output_declines(make_model, check, used):
    last = 8 if used in "ds" else 1
    text = _text(USUAL, outputs=f"float[2, 4, 8] y, float[2, 4, {last}] {used}")
    assert not check(FuseLayerNorm(), make_model(text, WEIGHTS)).stats.modified


def test_normalized_value_as_output_declines(make_model, check):
    outcome = check(FuseLayerNorm(), make_model(_text(USUAL, outputs="float[2, 4, 8] y, float[2, 4, 8] n"), WEIGHTS))
    assert "no constant scale" in outcome.reasons


def test_bias_stays_where_the_scaled_value_is_used(make_model, check):
    outcome = check(FuseLayerNorm(), make_model(_text(USUAL, outputs="float[2, 4, 8] y, float[2, 4, 8] k"), WEIGHTS))
    assert outcome.ops == {"LayerNormalization": 1, "Add": 1}


def test_shared_parameters(make_model, check):
    second = re.sub(r"\b([mdsveqnk])\b", r"\g<1>2", USUAL.replace("(x", "(y").replace("y = Add", "z = Add"))
    text = _text(f"{USUAL} \n {second}", outputs="float[2, 4, 8] z")
    assert check(FuseLayerNorm(), make_model(text, WEIGHTS)).ops == {"LayerNormalization": 2}
