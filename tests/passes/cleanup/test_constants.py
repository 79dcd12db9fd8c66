import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.passes.cleanup.constants import LiftConstants

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[2, 3] y)'


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("Constant <value = float[3] {1, 2, 3}> ()", np.array([1, 2, 3], np.float32)),
        ("Constant <value_float = 2.5> ()", np.float32(2.5)),
        ("Constant <value_floats = [1.0, 2.0, 3.0]> ()", np.array([1, 2, 3], np.float32)),
    ],
)
def test_lifts_every_form(make_model, check, constant, expected):
    model = make_model(f"{HEAD} {{ c = {constant} \n y = Add(x, c) }}")
    outcome = check(LiftConstants(), model)
    assert outcome.ops == {"Add": 1}
    lifted = model.graph.initializers["c"].const_value.numpy()
    np.testing.assert_array_equal(lifted, expected)
    assert lifted.dtype == expected.dtype
    assert lifted.shape == expected.shape


@pytest.mark.parametrize(
    ("constant", "shape"), [("value_ints = [3, 2]", (2,)), ("value = int64[2] {3, 2}", (2,)), ("value_int = 6", ())]
)
def test_lifts_integers(make_model, check, constant, shape):
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (int64[2] x) => (int64[2] y)
        {{ c = Constant <{constant}> ()\n y = Add(x, c) }}"""
    outcome = check(LiftConstants(), make_model(text))
    tensor = outcome.model.graph.initializers["c"].const_value
    assert tensor.dtype == ir.DataType.INT64
    assert tuple(tensor.shape) == shape


@pytest.mark.parametrize("attribute", ['value_string = "é"', 'value_strings = ["é", "b"]'])
def test_lifts_strings(make_model, check, attribute):
    shape = "" if "value_string " in attribute else "[2]"
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g () => (string{shape} y)
        {{ c = Constant <{attribute}> ()\n y = Identity(c) }}"""
    outcome = check(LiftConstants(), make_model(text))
    assert outcome.ops == {"Identity": 1}


def test_keeps_a_graph_output(make_model, check):
    model = make_model(f"{HEAD} {{ y = Constant <value = float[2, 3] {{1, 2, 3, 4, 5, 6}}> () }}")
    outcome = check(LiftConstants(), model)
    assert not outcome.stats.modified
    assert outcome.reasons == "it is a graph output"


def test_subgraph_keeps_its_constants_inside(make_model, check):
    branch = "{} () => (float[2, 3] {}) {{ {} = Constant <value_float = {}> () \n {} = Add(x, {}) }}"
    then = branch.format("a", "t", "tc", 1.0, "t", "tc")
    other = branch.format("b", "e", "ec", 2.0, "e", "ec")
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[2, 3] x) => (float[2, 3] y)
        {{ y = If (c) <then_branch = {then}, else_branch = {other}> }}"""
    model = make_model(text)
    outcome = check(LiftConstants(), model)
    assert outcome.ops == {"If": 1, "Add": 2}
    assert not model.graph.initializers


def test_optional_input_and_shared_constant(make_model, check):
    text = f"""{HEAD} {{ lo = Constant <value_float = 0.1> ()
        t = Clip(x, , lo) \n y = Max(t, lo) }}"""
    outcome = check(LiftConstants(), make_model(text))
    assert outcome.ops == {"Clip": 1, "Max": 1}


def test_leaves_functions_alone(make_model, check):
    text = """<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2, 3] x) => (float[2, 3] y) { y = f.Half(x) }
        <domain: "f", opset_import: ["" : 17]> Half (a) => (b)
        { c = Constant <value_float = 0.5> () \n b = Mul(a, c) }"""
    outcome = check(LiftConstants(), make_model(text))
    assert not outcome.stats.modified


def test_newer_format_keeps_overridable_initializers(make_model, check):
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }"""
    model = make_model(text, {"w": np.ones(2, np.float32)})
    assert not check(LiftConstants(), model).stats.modified
    assert len(model.graph.inputs) == 2


HEAD_WITH_INPUTS = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 2] x, float[2, 2] w'
WEIGHTS = "=> (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}>"


def test_weights_that_are_inputs_too_become_constants(make_model, check):
    model = make_model(f"{HEAD_WITH_INPUTS}, float[2] b) {WEIGHTS} {{ p = MatMul(x, w) \n y = Add(p, b) }}")
    outcome = check(LiftConstants(), model)
    assert [value.name for value in outcome.model.graph.inputs] == ["x"]
    assert set(outcome.model.graph.initializers) == {"w", "b"}
    assert outcome.stats.counters == {"weights that were inputs": 2}


@pytest.mark.parametrize(
    ("more", "operator"),
    [("", "MatMul"), (", float[2] b", "Add")],
    ids=["not all are inputs", "none is the weight of a layer"],
)
def test_defaults_of_inputs_stay(make_model, check, more, operator):
    model = make_model(f"{HEAD_WITH_INPUTS}{more}) {WEIGHTS} {{ p = {operator}(x, w) \n y = Add(p, b) }}")
    before = [value.name for value in model.graph.inputs]
    outcome = check(LiftConstants(), model)
    assert not outcome.stats.modified
    assert [value.name for value in outcome.model.graph.inputs] == before
