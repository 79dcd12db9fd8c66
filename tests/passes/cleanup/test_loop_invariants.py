import pytest

from onnxcomp.passes.cleanup.loop_invariants import HoistLoopInvariants

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3] x, int64 n)'
BODY = """body = b (int64 i, bool c, float[3, 3] wi, float[1, 3] si) => (bool d, float[3, 3] wo, float[1, 3] so) {
    d = Identity(c)  so = MatMul(si, wi)  wp = Identity(wi)  wo = Identity(wp) }"""
START = "w = Constant <value = float[3, 3] {0, 1, 0, 0, 0, 1, 1, 0, 0}> ()  t = Constant <value = bool {1}> ()"


def test_a_weight_leaves_the_state(make_model, check):
    text = f"{HEAD} => (float[1, 3] y, float[3, 3] z) {{ {START} u, y = Loop <{BODY}> (n, t, w, x)  z = Neg(u) }}"
    outcome = check(HoistLoopInvariants(), make_model(text))
    assert outcome.stats.counters == {"loop states hoisted": 1}
    (loop,) = [node for node in outcome.model.graph if node.op_type == "Loop"]
    assert [value.name for value in loop.inputs] == ["n", "t", "x"]
    (product,) = [node for node in loop.attributes["body"].as_graph() if node.op_type == "MatMul"]
    assert product.inputs[1].name == "w"


def test_a_weight_that_an_inner_body_reads(make_model, check):
    inner = """then_branch = p () => (float[1, 3] a) { a = MatMul(si, wi) },
        else_branch = q () => (float[1, 3] e) { e = Identity(si) }"""
    body = f"""body = b (int64 i, bool c, float[3, 3] wi, float[1, 3] si) => (bool d, float[3, 3] wo, float[1, 3] so) {{
        d = Identity(c)  so = If <{inner}> (c)  wo = Identity(wi) }}"""
    text = f"{HEAD} => (float[1, 3] y) {{ {START} u, y = Loop <{body}> (n, t, w, x) }}"
    assert check(HoistLoopInvariants(), make_model(text)).stats.modified


@pytest.mark.parametrize(
    ("last", "reason"),
    [("wo = Identity(wi)", "state wi is returned"), ("wo = Neg(wi)", None)],
    ids=["returned", "changed"],
)
def test_what_is_returned_or_changed_stays(make_model, check, last, reason):
    body = f"""body = b (int64 i, bool c, float[3, 3] wi, float[1, 3] si) => (bool d, float[3, 3] wo, float[1, 3] so) {{
        d = Identity(c)  so = MatMul(si, wi)  {last} }}"""
    text = f"{HEAD} => (float[1, 3] y, float[3, 3] u) {{ {START} u, y = Loop <{body}> (n, t, w, x) }}"
    outcome = check(HoistLoopInvariants(), make_model(text))
    assert not outcome.stats.modified
    assert [skip.reason for skip in outcome.skipped] == ([reason] if reason else [])


def test_scan_outputs_stay_in_their_places(make_model, check):
    body = """body = b (int64 i, bool c, float[3, 3] wi, float[1, 3] si)
        => (bool d, float[3, 3] wo, float[1, 3] so, float[1, 3] each) {
        d = Identity(c)  so = MatMul(si, wi)  each = Neg(so)  wo = Identity(wi) }"""
    text = f"{HEAD} => (float[1, 3] y, float[k, 1, 3] all) {{ {START} u, y, all = Loop <{body}> (n, t, w, x) }}"
    outcome = check(HoistLoopInvariants(), make_model(text))
    assert outcome.stats.counters == {"loop states hoisted": 1}


def test_a_body_that_returns_its_input_itself(make_model, check):
    body = """body = b (int64 i, bool c, float[3, 3] wi, float[1, 3] si) => (bool d, float[3, 3] wi, float[1, 3] so) {
        d = Identity(c)  so = MatMul(si, wi) }"""
    text = f"{HEAD} => (float[1, 3] y) {{ {START} u, y = Loop <{body}> (n, t, w, x) }}"
    assert check(HoistLoopInvariants(), make_model(text)).stats.counters == {"loop states hoisted": 1}


def test_a_state_that_becomes_another_stays(make_model, check):
    body = """body = b (int64 i, bool c, float[1, 3] wi, float[1, 3] si) => (bool d, float[1, 3] wi, float[1, 3] wi) {
        d = Identity(c) }"""
    text = f"{HEAD} => (float[1, 3] y) {{ {START} v = Neg(x) u, y = Loop <{body}> (n, t, v, x) }}"
    model = make_model(text)
    assert not check(HoistLoopInvariants(), model).stats.modified
