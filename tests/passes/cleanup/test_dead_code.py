import numpy as np
import pytest

from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'


def test_removes_chains_and_their_weights(make_model, check):
    text = f"{OPSET} g (float[2] x) => (float[2] y) {{ a = Exp(x) \n b = Add(a, w) \n y = Neg(x) }}"
    outcome = check(RemoveDeadCode(), make_model(text, {"w": np.ones(2, np.float32), "v": np.ones(2, np.float32)}))
    assert outcome.ops == {"Neg": 1}
    assert outcome.stats.counters == {"nodes removed": 2, "initializers removed": 2}


def test_keeps_what_one_output_needs(make_model, check):
    text = f"{OPSET} g (float[2, 2] x) => (float[2, 1] y) {{ a, y = Split <axis = 1> (x) }}"
    assert not check(RemoveDeadCode(), make_model(text)).stats.modified


@pytest.mark.parametrize("body", ["t = Add(x, w)", "i = Neg(w) \n t = Add(x, i)"])
def test_a_use_in_a_subgraph_is_a_use(make_model, check, body):
    text = f"""{OPSET} g (bool c, float[2] x) => (float[2] y)
        {{ y = If (c) <then_branch = a () => (float[2] t) {{ {body} }},
                      else_branch = b () => (float[2] e) {{ dead = Abs(x) \n e = Neg(x) }}> }}"""
    outcome = check(RemoveDeadCode(), make_model(text, {"w": np.ones(2, np.float32)}))
    assert outcome.stats.counters == {"nodes removed": 1}
    assert list(outcome.model.graph.initializers) == ["w"]


def test_removes_unused_control_flow_with_what_it_captured(make_model, check):
    text = f"""{OPSET} g (bool c, float[2] x) => (float[2] y)
        {{ n = Abs(x)
           dead = If (c) <then_branch = a () => (float[2] t) {{ t = Add(n, w) }},
                          else_branch = b () => (float[2] e) {{ e = Neg(n) }}>
           y = Neg(x) }}"""
    outcome = check(RemoveDeadCode(), make_model(text, {"w": np.ones(2, np.float32)}))
    assert outcome.ops == {"Neg": 1}
    assert not outcome.model.graph.initializers


def test_keeps_the_interface(make_model, check):
    text = f"{OPSET} g (float[2] x, float[2] unused, float[2] w) => (float[2] y, float[2] k) {{ y = Neg(x) }}"
    weights = {"w": np.ones(2, np.float32), "k": np.ones(2, np.float32)}
    assert not check(RemoveDeadCode(), make_model(text, weights)).stats.modified


def test_removes_functions_and_imports_that_nothing_uses(make_model, check):
    text = """<ir_version: 8, opset_import: ["" : 17, "f" : 1, "com.microsoft" : 1]>
        g (float[2] x) => (float[2] y) { y = f.Used(x) }
        <domain: "f", opset_import: ["" : 17, "f" : 1]> Used (a) => (b) { u = Abs(a) \n b = f.Inner(a) }
        <domain: "f", opset_import: ["" : 17]> Inner (a) => (b) { b = Neg(a) }
        <domain: "f", opset_import: ["" : 17]> Unused (a) => (b) { b = Neg(a) }"""
    outcome = check(RemoveDeadCode(), make_model(text))
    assert outcome.stats.counters == {"nodes removed": 1, "functions removed": 1, "imports removed": 1}
    assert [name for _, name, _ in outcome.model.functions] == ["Used", "Inner"]
    assert set(outcome.model.opset_imports) == {"", "f"}


def test_clears_notes_but_those_of_the_model(make_model, check):
    model = make_model(f"{OPSET} g (float[2] x) => (float[2] y) {{ t = Abs(x) \n y = Neg(t) }}")
    model.metadata_props["author"] = "someone"
    model.doc_string = "what it is for"
    node = model.graph[0]
    node.doc_string, node.metadata_props["trace"] = "line 1", "line 2"
    node.outputs[0].metadata_props["trace"] = "line 3"
    model.graph.inputs[0].doc_string = "an input"
    model.graph.doc_string = "torch"
    outcome = check(RemoveDeadCode(), model)
    assert outcome.stats.counters == {"notes removed": 4}
    assert model.metadata_props == {"author": "someone"}
    assert model.doc_string
