import numpy as np
import pytest

from onnxcomp.passes.cleanup.activations import SimplifyActivations

CONSTANTS = {
    "zero": np.float32(0), "six": np.array([6], np.float32), "one": np.float32(1),
    "quarter": np.array([0.25], np.float32),
    "quarters": np.full((3, 1), 0.25, np.float32), "slopes": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "row": np.ones(4, np.float32), "wide": np.ones((1, 1, 1, 1), np.float32), "nan": np.float32(np.nan),
}  # fmt: skip


def _model(make_model, nodes, opset=17, outputs="float[2, 3, 4] y", inputs="float[2, 3, 4] x"):
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    text = f'<ir_version: 7, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {nodes} }}'
    return make_model(text, {name: array for name, array in CONSTANTS.items() if name in words})


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("a = Max(x, zero) y = Min(a, one)", {"Clip": 1}),
        ("a = Min(one, x) y = Max(zero, a)", {"Clip": 1}),
        ("a = Relu(x) y = Min(a, one)", {"Clip": 1}),
        ("y = Min(x, one)", {"Clip": 1}),
        ("y = Max(x, six)", {"Clip": 1}),
        ("y = PRelu(x, quarter)", {"LeakyRelu": 1}),
        ("y = PRelu(x, quarters)", {"LeakyRelu": 1}),
        ("a = Neg(x) b = Max(a, zero) c = Min(b, one) y = Sub(c, b)", {"Clip": 2, "Neg": 1, "Sub": 1}),
        ("a = Max(x, six) y = Min(a, one)", {"Clip": 2}),  # no range is left: one after the other
    ],
)
def test_it_matches(make_model, check, nodes, expected, opset):
    assert check(SimplifyActivations(), _model(make_model, nodes, opset)).ops == expected


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Min(x, row)",
        "y = Max(x, nan)",
        "a = Neg(x) y = Min(x, a)",
        "y = Min(x, one, zero)",
        "y = PRelu(x, slopes)",
    ],
)
def test_near_misses(make_model, check, nodes):
    outcome = check(SimplifyActivations(), _model(make_model, nodes))
    assert not outcome.stats.modified
    assert outcome.reasons


def test_a_bound_that_adds_a_dimension(make_model, check):
    model = _model(make_model, "y = Min(x, wide)", outputs="float[1, 2, 3, 4] y")
    assert not check(SimplifyActivations(), model).stats.modified


def test_integers_are_left_alone(make_model, check):
    model = make_model(
        '<ir_version: 7, opset_import: ["" : 17]> g (int64[4] x) => (int64[4] y) { y = Min(x, c) }', {"c": np.int64(1)}
    )
    assert not check(SimplifyActivations(), model).stats.modified


def test_a_graph_output_in_the_middle(make_model, check):
    model = _model(make_model, "a = Max(x, zero) y = Min(a, one)", outputs="float[2, 3, 4] y, float[2, 3, 4] a")
    assert check(SimplifyActivations(), model).ops == {"Clip": 2}


def test_bodies(make_model, check):
    nodes = """y = If (c) <then_branch = t () => (float[2, 3, 4] p) { a = Max(x, zero) p = Min(a, one) },
                           else_branch = e () => (float[2, 3, 4] q) { q = PRelu(x, quarter) }>"""
    model = _model(make_model, nodes, inputs="bool c, float[2, 3, 4] x")
    assert check(SimplifyActivations(), model).ops == {"If": 1, "Clip": 1, "LeakyRelu": 1}
