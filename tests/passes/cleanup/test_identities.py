import numpy as np
import pytest

from onnxcomp.passes.cleanup.identities import RemoveIdentities

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
WEIGHTS = {
    "zero": np.float32(0),
    "zeros": np.zeros((1, 1, 1), np.float32),
    "wide_zeros": np.zeros((1, 1, 1, 1), np.float32),
    "row": np.zeros(4, np.float32),
    "one": np.ones(1, np.float32),
    "two": np.full(1, 2, np.float32),
    "half_ones": np.array([1, 1, 1, 0.5], np.float32),
    "pads0": np.zeros(6, np.int64),
    "pads1": np.array([0, 0, 0, 0, 0, 1]),
    "first": np.zeros(1, np.int64),
    "last": np.array([2**31 - 1]),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
    "minus1": np.array([-1]),
    "shape234": np.array([2, 3, 4]),
    "shape024": np.array([0, -1, 4]),
    "shape243": np.array([2, 4, 3]),
    "ones3": np.ones(3, np.int64),
    "ones4": np.ones(4, np.int64),
    "true": np.array(True),
    "false": np.array(False),
}
GONE = [
    "t = Identity(a)",
    "t = Dropout(a)",
    "t = Dropout(a, zero, false)",
    "t = Cast <to = 1> (a)",
    "t = Transpose <perm = [0, 1, 2]> (a)",
    "s = Transpose <perm = [2, 0, 1]> (a) \n t = Transpose <perm = [1, 2, 0]> (s)",
    "s = Transpose(a) \n t = Transpose(s)",
    "s = Transpose(a) \n t = Transpose <perm = [2, 1, 0]> (s)",
    "t = Reshape(a, shape234)",
    "t = Reshape(a, shape024)",
    "t = Squeeze(a)",
    "s = Unsqueeze(a, axis1) \n t = Squeeze(s, axis1)",
    "s = Unsqueeze(a, minus1) \n t = Squeeze(s, minus1)",
    "t = Expand(a, ones3)",
    "t = Expand(a, shape234)",
    "t = Add(a, zero)",
    "t = Add(zeros, a)",
    "t = Add(a, row)",
    "t = Sub(a, zero)",
    "t = Mul(a, one)",
    "t = Mul(one, a)",
    "t = Div(a, one)",
    "t = Concat <axis = 1> (a)",
    "t = Sum(a)",
    "t = Max(a)",
    "t = Pad(a, pads0)",
    "t = Clip(a)",
    "t = Slice(a, first, last)",
    "t = Slice(a, first, last, axis1, axis1)",
]
KEPT = [
    "t = Dropout(a, zero, true)",
    "i = Cast <to = 7> (a) \n t = Cast <to = 1> (i)",
    "s = Transpose <perm = [2, 0, 1]> (a) \n t = Transpose <perm = [2, 0, 1]> (s)",
    "t = Reshape(a, shape243)",
    "s = Unsqueeze(a, axis1) \n t = Squeeze(s, zero_int)",
    "t = Expand(a, ones4)",
    "t = Add(a, wide_zeros)",
    "t = Sub(zero, a)",
    "t = Mul(a, two)",
    "t = Mul(a, half_ones)",
    "t = Div(one, a)",
    "t = Concat <axis = 1> (a, a)",
    "t = Pad(a, pads1)",
    "t = Clip(a, zero)",
    "t = Clip(a, , zero)",
    "t = Slice(a, axis1, last)",
    "t = Slice(a, first, axis2)",
    "t = Slice(a, first, last, axis1, axis2)",
]


def _text(nodes, output="float[A, B, C] y"):
    return f"{OPSET} g (float[2, 3, 4] x) => ({output}) {{ a = Abs(x) \n {nodes} \n y = Neg(t) }}"


@pytest.mark.parametrize("nodes", GONE)
def test_removes(make_model, check, nodes):
    outcome = check(RemoveIdentities(), make_model(_text(nodes), WEIGHTS))
    assert outcome.stats.modified
    assert outcome.model.graph[-1].inputs[0].producer().op_type == "Abs"


@pytest.mark.parametrize("nodes", [n for n in KEPT if "zero_int" not in n])
def test_keeps(make_model, apply, nodes):
    proto_text = _text(nodes, "float[A, B, C, D] y" if "4)" in nodes or "wide" in nodes else "float[A, B, C] y")
    if "Dropout" in nodes:  # its outputs are random
        assert not apply(RemoveIdentities(), make_model(proto_text, WEIGHTS)).stats.modified
        return
    assert not apply(RemoveIdentities(), make_model(proto_text, WEIGHTS)).stats.modified


def test_a_graph_output_keeps_its_name(make_model, check):
    text = f"{OPSET} g (float[N, 3] x) => (float[M, 3] y) {{ a = Abs(x) \n b = Neg(a) \n y = Identity(b) }}"
    outcome = check(RemoveIdentities(), make_model(text))
    assert outcome.ops == {"Abs": 1, "Neg": 1}
    assert str(outcome.model.graph.outputs[0].shape[0]) == "M"


def test_a_renamed_output_is_still_seen_by_others(make_model, check):
    text = f"""{OPSET} g (bool c, float[3] x) => (float[3] y, float[3] z)
        {{ a = Abs(x) \n y = Identity(a)
           z = If (c) <then_branch = p () => (float[3] t) {{ t = Neg(a) }},
                       else_branch = q () => (float[3] e) {{ e = Exp(y) }}> }}"""
    assert check(RemoveIdentities(), make_model(text)).ops == {"Abs": 1, "If": 1, "Neg": 1, "Exp": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Identity(x) \n z = Neg(x)",  # an input handed through
        "y = Identity(w) \n z = Neg(x)",  # an initializer handed through
        "z = Neg(x) \n y = Identity(z)",  # two names for one value
    ],
)
def test_an_output_that_is_handed_through_stays(make_model, check, nodes):
    text = f"{OPSET} g (float[3] x) => (float[3] y, float[3] z) {{ {nodes} }}"
    outcome = check(RemoveIdentities(), make_model(text, {"w": np.ones(3, np.float32)}))
    assert not outcome.stats.modified
    assert "needs its name" in outcome.reasons


def test_shared_initializers_behind_identities(make_model, check):
    text = f"""{OPSET} g (float[1, 3, 4] x) => (float[1, 3, 4] y)
        {{ a = Identity(w) \n b = Identity(w) \n t = BatchNormalization(x, w, a, b, w)
           y = BatchNormalization(t, b, b, a, w) }}"""
    outcome = check(RemoveIdentities(), make_model(text, {"w": np.array([1, 2, 3], np.float32)}))
    assert outcome.ops == {"BatchNormalization": 2}
    assert list(outcome.model.graph.initializers) == ["w"]


def test_subgraph_output_may_not_come_from_outside(make_model, check):
    text = f"""{OPSET} g (bool c, float[3] x) => (float[3] y)
        {{ a = Abs(x)
           y = If (c) <then_branch = p () => (float[3] t) {{ t = Identity(a) }},
                       else_branch = q () => (float[3] e) {{ i = Identity(a) \n e = Neg(i) }}> }}"""
    outcome = check(RemoveIdentities(), make_model(text))
    assert outcome.ops == {"Abs": 1, "If": 1, "Identity": 1, "Neg": 1}


def test_inside_a_function(make_model, check):
    text = """<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2] x) => (float[2] y) { y = f.F(x) }
        <domain: "f", opset_import: ["" : 17]> F (a) => (b) { i = Identity(a) \n n = Neg(i) \n b = Identity(n) }"""
    outcome = check(RemoveIdentities(), make_model(text))
    assert outcome.ops == {"F": 1, "Neg": 1}


def test_a_function_that_hands_through_stays(make_model, check):
    text = """<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2] x) => (float[2] y) { y = f.F(x) }
        <domain: "f", opset_import: ["" : 17]> F (a) => (b) { b = Identity(a) }"""
    assert not check(RemoveIdentities(), make_model(text)).stats.modified


def test_used_mask_keeps_dropout(make_model, check):
    text = f"{OPSET} g (float[2] x) => (float[2] y, bool[2] m) {{ y, m = Dropout(x) }}"
    outcome = check(RemoveIdentities(), make_model(text))
    assert "another of its outputs" in outcome.reasons


def test_unknown_dimension_is_the_same_where_it_is_alone(make_model, check):
    text = f"{OPSET} g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ r = Reshape(x, s) \n y = Neg(r) }}"
    assert check(RemoveIdentities(), make_model(text, {"s": np.array([-1, 3, 4])})).ops == {"Neg": 1}


def test_unknown_broadcast_stays(make_model, check):
    text = f"{OPSET} g (float[N, 4] x) => (float[M, 4] y) {{ y = Add(x, z) }}"
    assert not check(RemoveIdentities(), make_model(text, {"z": np.zeros((3, 4), np.float32)})).stats.modified


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_overridable_neutral_element_stays(make_model, check, op):
    text = f"{OPSET} g (float[4] x, float n) => (float[4] y) {{ y = {op}(x, n) }}"
    neutral = np.float32(op == "Mul")
    assert not check(RemoveIdentities(), make_model(text, {"n": neutral})).stats.modified


def test_old_opset_forms(make_model, check):
    text = """<ir_version: 6, opset_import: ["" : 9]> g (float[1, 1, 2] x) => (float[1, 1, 2] y)
        { a = Pad <pads = [0, 0, 0, 0, 0, 0]> (x) \n b = Clip(a) \n c = Slice <starts = [0], ends = [2147483647]> (b)
          d = Unsqueeze <axes = [0]> (c) \n e = Squeeze <axes = [0]> (d) \n y = Neg(e) }"""
    outcome = check(RemoveIdentities(), make_model(text))
    assert {op for op in outcome.ops if op != "Unsqueeze"} == {"Neg"}
