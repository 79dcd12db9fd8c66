import numpy as np
import pytest

from onnxcomp.passes.cleanup.hard_swish import FuseHardSwish

SCALARS = {
    name: np.float32(value)
    for name, value in {"zero": 0, "three": 3, "six": 6, "sixth": 1 / 6, "five": 5, "two": 2}.items()
}


def _text(nodes, opset=17, outputs="float[2, 3, 4] y"):
    return f'<ir_version: 7, opset_import: ["" : {opset}]> g (float[2, 3, 4] x) => ({outputs}) {{ {nodes} }}'


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(c, six)",
        "a = Add(three, x) \n b = Clip(a, zero, six) \n c = Div(b, six) \n y = Mul(c, x)",
        "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(b, sixth) \n y = Mul(x, c)",
        "a = Add(x, three) \n b = Clip(a, zero, six) \n d = Mul(x, sixth) \n y = Mul(d, b)",
    ],
)
def test_every_order(make_model, check, nodes):
    outcome = check(FuseHardSwish(), make_model(_text(nodes), SCALARS))
    assert outcome.ops == {"HardSigmoid": 1, "Mul": 1}


def test_bounds_as_attributes(make_model, check):
    nodes = "a = Add(x, three) \n b = Clip <min = 0.0, max = 6.0> (a) \n c = Mul(x, b) \n y = Div(c, six)"
    assert check(FuseHardSwish(), make_model(_text(nodes, 9), SCALARS)).ops == {"HardSigmoid": 1, "Mul": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, two) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(c, six)",
        "a = Add(x, three) \n b = Clip(a, zero, five) \n c = Mul(x, b) \n y = Div(c, six)",
        "a = Add(x, three) \n b = Clip(a, , six) \n c = Mul(x, b) \n y = Div(c, six)",
        "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(c, five)",
        "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(six, c)",
        "n = Neg(x) \n a = Add(n, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(c, six)",
    ],
)
def test_near_misses(make_model, apply, nodes):
    assert not apply(FuseHardSwish(), make_model(_text(nodes), SCALARS)).stats.modified


@pytest.mark.parametrize("used", ["a", "b", "c"])
def test_intermediate_output_declines(make_model, check, used):
    nodes = "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n y = Div(c, six)"
    text = _text(nodes, outputs=f"float[2, 3, 4] y, float[2, 3, 4] {used}")
    assert not check(FuseHardSwish(), make_model(text, SCALARS)).stats.modified


def test_in_a_product_and_in_a_subgraph(make_model, check):
    body = "a = Add(x, three) \n b = Clip(a, zero, six) \n c = Mul(x, b) \n d = Div(c, six) \n t = Mul(d, x)"
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (bool k, float[2] x) => (float[2] y)
        {{ y = If (k) <then_branch = p () => (float[2] t) {{ {body} }},
                       else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""
    assert check(FuseHardSwish(), make_model(text, SCALARS)).ops["HardSigmoid"] == 1
