"""Attention as exporters write it, with any shape, scale and mask; and everything that only looks like it."""

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxcomp.errors import ModelError
from onnxcomp.facts import all_nodes
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup import fuse_attention
from onnxcomp.passes.cleanup.fuse_attention import FuseAttention
from onnxcomp.runtime import Limits
from onnxcomp.target import get_target

LOWEST = np.finfo(np.float32).min
CONSTANTS = {
    "apart": np.array([0, 0, 2, 4]),
    "apart_rest": np.array([0, -1, 2, 4]),
    "apart_batch": np.array([-1, 0, 2, 4]),
    "merged": np.array([0, 0, 8]),
    "merged_rest": np.array([0, -1, 8]),
    "heads_depth": np.array([2, 4]),
    "heads": np.array([2]),
    "depth": np.array([4]),
    "width": np.array([8]),
    "flat": np.array([-1]),
    "first": np.array([0]),
    "third": np.array([2]),
    "two": np.float32(2),
    "quarter": np.float32(0.25),
    "half": np.float32(0.5),
    "zero": np.float32(0),
}
KEYS = {
    "one": "kt = Transpose <perm = [0, 2, 3, 1]> (kr)",
    "two": "k1 = Transpose <perm = [0, 2, 1, 3]> (kr)  kt = Transpose <perm = [0, 1, 3, 2]> (k1)",
    "reshapes": """k1 = Transpose <perm = [0, 2, 1, 3]> (kr)
        kb = Shape <start = 0, end = 1> (k1)  kl = Shape <start = 2, end = 3> (k1)
        k_flat = Concat <axis = 0> (flat, kl, depth)  k2 = Reshape(k1, k_flat)  k3 = Transpose <perm = [0, 2, 1]> (k2)
        k_four = Concat <axis = 0> (kb, heads, depth, kl)  kt = Reshape(k3, k_four)""",
}
SCALES = {
    "div": ("s = MatMul(qt, kt)  d = Div(s, two)", 0.5),
    "mul": ("s = MatMul(qt, kt)  d = Mul(quarter, s)", 0.25),
    "none": ("d = MatMul(qt, kt)", 1),
    "query": ("qs = Mul(qt, half)  d = MatMul(qs, kt)", 0.5),
    "both": ("qs = Mul(qt, half)  ks = Div(kt, two)  d = MatMul(qs, ks)", 0.25),
    "everywhere": ("qs = Mul(half, qt)  ks = Mul(kt, half)  s = MatMul(qs, ks)  d = Div(s, half)", 0.5),
}
SPLITS = ("", "_rest", "_batch", "_shapes")
EXPANDED = {"Mul": 1, "Shape": 2, "Concat": 1, "Expand": 1}
INPUTS = "float[B, S, 8] q, float[B, L, 8] k, float[B, L, 8] v"
OF_THREE = "float[B, 3, 8] q, float[B, 3, 8] k, float[B, 3, 8] v"


def split(name: str, how: str) -> str:
    if how != "_shapes":
        return f"{name}r = Reshape({name}, apart{how})"
    return f"""{name}_shape = Shape({name})  {name}_lead = Slice({name}_shape, first, third)
        {name}_apart = Concat <axis = 0> ({name}_lead, heads_depth)  {name}r = Reshape({name}, {name}_apart)"""


def attention(
    *, how: str = "", key: str = "one", scale: str = "div", mask: bool = False, guard: bool = False, add: str = "d, m"
) -> str:
    """Write an attention out, from ``q``, ``k``, ``v`` and the mask ``m`` to ``y``."""
    merge = "wt_shape = Shape(wt)  wt_lead = Slice(wt_shape, first, third)  out = Concat <axis = 0> (wt_lead, width)"
    return f"""{split("q", how)}  {split("k", how)}  {split("v", how)}
        qt = Transpose <perm = [0, 2, 1, 3]> (qr)  vt = Transpose <perm = [0, 2, 1, 3]> (vr)
        {KEYS[key]}  {SCALES[scale][0]}
        {f"a = Add({add})  p = Softmax <axis = -1> (a)" if mask else "p = Softmax <axis = -1> (d)"}
        {"n = IsNaN(p)  g = Where(n, zero, p)  w = MatMul(g, vt)" if guard else "w = MatMul(p, vt)"}
        wt = Transpose <perm = [0, 2, 1, 3]> (w)
        {merge if how == "_shapes" else ""}
        y = Reshape(wt, {"out" if how == "_shapes" else "merged_rest" if how == "_rest" else "merged"})"""


def make(
    nodes: str,
    mask: str | None = None,
    *,
    inputs: str = INPUTS,
    outputs: str = "float[B, S, 8] y",
    opset: int = 17,
    functions: str = "",
    **constants: Any,
) -> ir.Model:
    """Load a model with the constants that it names; ``mask`` is the shape of the input ``m``."""
    masked = "" if mask is None else f", float[{mask}] m"
    imports = f'["": {opset}, "own": 1]' if functions else f'["": {opset}]'
    text = f"<ir_version: 8, opset_import: {imports}> g ({inputs}{masked}) => ({outputs}) {{ {nodes} }} {functions}"
    proto = onnx.parser.parse_model(text)
    read = set(re.findall(r"\w+", nodes))
    for name, value in (CONSTANTS | constants).items():
        if name in read:
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return load(proto.SerializeToString())


def fused(outcome: Any, **others: int) -> None:
    assert outcome.ops == {"Attention": 1, **others}
    assert outcome.stats.counters == {"Attention fused": 1}
    assert not outcome.skipped
    assert outcome.model.opset_imports[""] == 23


def declined(outcome: Any, reason: str) -> None:
    assert not outcome.stats.modified
    assert reason in outcome.reasons


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20, 22, 23])
def test_opsets(check: Any, opset: int) -> None:
    fused(check(FuseAttention(), make(attention(), opset=opset)))


@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize("key", KEYS)
def test_ways_to_split(check: Any, how: str, key: str) -> None:
    fused(check(FuseAttention(), make(attention(how=how, key=key))))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("key", KEYS)
def test_scales(check: Any, scale: str, key: str) -> None:
    outcome = check(FuseAttention(), make(attention(scale=scale, key=key)))
    fused(outcome)
    assert outcome.model.graph[0].attributes["scale"].as_float() == SCALES[scale][1]


@pytest.mark.parametrize(
    ("mask", "others"),
    [
        ("B, 1, S, L", {"Mul": 1}),
        ("B, 2, S, L", {"Mul": 1}),
        ("1, 1, S, L", {"Mul": 1}),
        ("2, S, L", {"Mul": 1}),
        ("S, L", {"Mul": 1}),
        ("B, 1, 1, L", EXPANDED),
        ("B, 1, S, 1", EXPANDED),
        ("1, L", EXPANDED),
        ("L", EXPANDED),
        ("1", EXPANDED),
        ("B, 1, T, L", EXPANDED),
        ("N, 1, S, L", {"Mul": 1}),
    ],
)
def test_masks(check: Any, mask: str, others: dict[str, int]) -> None:
    fused(check(FuseAttention(), make(attention(mask=True), mask)), **others)
    fused(check(FuseAttention(), make(attention(mask=True, add="m, d", how="_shapes"), mask)), **others)


def test_a_mask_of_known_shape_is_expanded_by_a_constant(check: Any) -> None:
    model = make(attention(mask=True), "B, 1, 1, 3", inputs=OF_THREE, outputs="float[B, 3, 8] y")
    fused(check(FuseAttention(), model), Mul=1, Expand=1)


def test_constant_masks(check: Any, apply: Any) -> None:
    def model(mask: Any) -> ir.Model:
        constant = np.asarray(mask, np.float32)
        return make(attention(mask=True), inputs=OF_THREE, outputs="float[B, 3, 8] y", m=constant)

    fused(check(FuseAttention(), model(np.where(np.tri(3), 0, -np.inf))))
    fused(check(FuseAttention(), model(np.where([[1], [0], [1]], 0, np.full((3, 3), LOWEST)))), Mul=1)
    fused(check(FuseAttention(), model(3)), Expand=1)
    declined(
        apply(FuseAttention(), model(np.where([[1], [0], [1]], 0, np.full((3, 3), -np.inf)))),
        "its mask hides all keys from a query",
    )


def feed(batch: int, queries: int, keys: int, mask: Any = None, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"q": (batch, queries, 8), "k": (batch, keys, 8), "v": (batch, keys, 8)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return arrays if mask is None else arrays | {"m": np.asarray(mask, np.float32)}


def answers(model: ir.Model, feeds: dict[str, Any]) -> tuple[Any, Any]:
    """Run the model before and after."""
    before = open_session(model).run(feeds)["y"]
    assert FuseAttention().run(model, PassContext(get_target("auto"))).modified
    return before, open_session(model).run(feeds)["y"]


@pytest.mark.parametrize("hidden", [LOWEST, -np.inf, -1e9, -1e4])
@pytest.mark.parametrize("guard", [False, True])
def test_rows_hidden_in_part_or_whole(hidden: float, guard: bool) -> None:
    """A query whose keys are all hidden sees all alike, or nothing where they are at -infinity."""
    mask = np.zeros((2, 1, 3, 4))
    mask[0, 0, 0], mask[0, 0, 1, 2:], mask[1, 0, 2, :3] = hidden, hidden, hidden
    before, after = answers(make(attention(mask=True, guard=guard), "B, 1, S, L"), feed(2, 3, 4, mask))
    if np.isinf(hidden):
        assert not after[0, 0].any()
        assert np.isnan(before[0, 0]).all() or guard
        before[0, 0] = 0
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


def test_nan_and_infinity_stay() -> None:
    mask = np.zeros((1, 1, 3, 4))
    mask[0, 0, 0, 1], mask[0, 0, 1, 2] = np.nan, np.inf
    before, after = answers(make(attention(mask=True), "B, 1, S, L"), feed(1, 3, 4, mask))
    assert np.isnan(after[0, :2]).all()
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


shapes_of_masks = st.lists(st.booleans(), max_size=4)


@given(
    st.tuples(st.sampled_from(SPLITS), st.sampled_from(list(KEYS)), st.sampled_from(list(SCALES))),
    st.none() | shapes_of_masks,
    st.booleans(),
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)),
)
def test_any_attention(
    form: tuple[str, str, str], whole: list[bool] | None, guard: bool, sizes: tuple[int, int, int, int]
) -> None:
    how, key, scale = form
    batch, queries, keys, seed = sizes
    nodes = attention(how=how, key=key, scale=scale, mask=whole is not None, guard=guard)
    names, dims = "B2SL"[4 - len(whole or ()) :], (batch, 2, queries, keys)[4 - len(whole or ()) :]
    declared = None if whole is None else ", ".join(n if w else "1" for n, w in zip(names, whole, strict=True))
    mask = None
    if whole is not None:
        mask = np.random.default_rng(seed).normal(size=[d if w else 1 for d, w in zip(dims, whole, strict=True)])
    if declared == "":
        return  # a scalar has no text form
    before, after = answers(make(nodes, declared), feed(batch, queries, keys, mask, seed))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("qr = Reshape(q, apart)", "q2 = Neg(q)  qx = Reshape(q2, apart)  qr = Neg(qx)", "not split from three"),
        ("[0, 2, 1, 3]> (qr)", "[2, 0, 1, 3]> (qr)  ", "not split from three"),
        ("w = MatMul(p, vt)", "vs = Mul(vt, half)  w = MatMul(p, vs)", "not split from three"),
        ("y = Reshape(wt, merged)", "yr = Reshape(wt, merged)  y = Neg(yr)", None),
        ("y = Reshape(wt, merged)", "wn = Neg(wt)  y = Reshape(wn, merged)", "not merged to three"),
        ("d = Div(s, two)", "d = Mul(s, minus)", "not positive"),
        ("d = Div(s, two)", "d = Mul(s, zero)", "not positive"),
        ("axis = -1", "axis = 2", "last is normalized"),
    ],
)
def test_near_misses(check: Any, old: str, new: str, reason: str | None) -> None:
    nodes = attention().replace(old, new)
    assert nodes != attention()
    if "[2, 0" in new:
        model = make(
            nodes, inputs=INPUTS.replace("B", "2").replace("S", "2").replace("L", "2"), outputs="float[2, 2, 8] y"
        )
    else:
        model = make(nodes, minus=np.float32(-1))
    outcome = check(FuseAttention(), model)
    if reason is None:
        fused(outcome, Neg=1)
    else:
        declined(outcome, reason)


@pytest.mark.parametrize(
    "nodes", ["y = Softmax(q)", "p = Softmax(q)  y = MatMul(p, square)", "a = Add(q, q)  y = Softmax(a)"]
)
def test_other_models_are_left_alone(check: Any, nodes: str) -> None:
    outcome = check(FuseAttention(), make(nodes, square=np.eye(8, dtype=np.float32)))
    assert not outcome.stats.modified
    assert not outcome.skipped


@pytest.mark.parametrize("used", ["s", "d", "p", "w", "wt", "a"])
def test_values_in_between_that_are_used_elsewhere(check: Any, used: str) -> None:
    nodes = attention(mask=True)
    as_output = make(nodes, "B, 1, S, L", outputs=f"float[B, S, 8] y, float[B, a, b, c] {used}")
    declined(check(FuseAttention(), as_output), "used elsewhere too")
    as_input = make(f"{nodes}  z = Relu({used})", "B, 1, S, L", outputs="float[B, S, 8] y, float[B, a, b, c] z")
    declined(check(FuseAttention(), as_input), "used elsewhere too")


def test_shared_heads_stay_for_the_others(check: Any) -> None:
    outcome = check(FuseAttention(), make(attention(), outputs="float[B, S, 8] y, float[B, 2, L, 4] vt"))
    fused(outcome, Reshape=1, Transpose=1)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ("float[B, S, 8] q, float[C, L, 8] k, float[C, L, 8] v", "one batch"),
        ("float[B, S, 8] q, float[1, L, 8] k, float[1, L, 8] v", "one batch"),
        ("float[?, S, 8] q, float[?, L, 8] k, float[?, L, 8] v", "one batch"),
        ("float[B, S, N] q, float[B, L, N] k, float[B, L, N] v", "not split from three axes"),
    ],
)
def test_shapes_that_prove_too_little(apply: Any, inputs: str, reason: str) -> None:
    declined(apply(FuseAttention(), make(attention(), inputs=inputs)), reason)


def test_a_reshape_that_mixes_batch_and_sequence(check: Any) -> None:
    inputs = "float[2, 3, 8] q, float[2, 3, 8] k, float[2, 3, 8] v"
    model = make(attention(), inputs=inputs, outputs="float[3, 2, 8] y", apart=np.array([3, 2, 2, 4]))
    declined(check(FuseAttention(), model), "not split from three axes")


@pytest.mark.parametrize("mask", ["2, 1, S, L", "1, B, 1, 1, L", "B, 2, 3, L"])
def test_masks_that_may_widen_the_scores(apply: Any, mask: str) -> None:
    one = "float[1, 1, 8] q, float[1, L, 8] k, float[1, L, 8] v"
    outcome = apply(FuseAttention(), make(attention(mask=True), mask, inputs=one))
    assert not outcome.stats.modified
    assert "its mask" in outcome.reasons or "four axes" in outcome.reasons


def test_float16_declines(apply: Any) -> None:
    half = {name: np.float16(CONSTANTS[name]) for name in ("two", "quarter", "half", "zero")}
    model = make(attention(), inputs=INPUTS.replace("float", "float16"), outputs="float16[B, S, 8] y", **half)
    declined(apply(FuseAttention(), model), "float32")


def test_two_layers_share_one_mask(check: Any) -> None:
    first = attention(mask=True)
    second = re.sub(r"\b(qr|kr|vr|qt|kt|vt|s|d|a|p|w|wt)\b", r"\g<1>2", first)
    second = second.replace("y = ", "z = ").replace("(q,", "(y,")
    outcome = check(FuseAttention(), make(f"{first} {second}", "B, 1, 1, L", outputs="float[B, S, 8] z"))
    assert outcome.ops == {"Attention": 2, **EXPANDED}


def test_a_subgraph(check: Any) -> None:
    nodes = f"""apart = Constant <value_ints = [0, 0, 2, 4]> ()  merged = Constant <value_ints = [0, 0, 8]> ()
        {attention().replace("y = ", "t = ")}"""
    body = f"""c = ReduceMax <keepdims = 0> (q)  b = Greater(c, zero)
        y = If (b) <then_branch = yes () => (float[B, S, 8] t) {{ {nodes} }},
                    else_branch = no () => (float[B, S, 8] e) {{ e = Neg(q) }}>"""
    model = make(re.sub(r"\b(apart|merged)\b", r"own_\1", body))
    outcome = check(FuseAttention(), model)
    assert (outcome.ops["Attention"], outcome.ops["Softmax"]) == (1, 0)


def test_an_old_runtime_declines(monkeypatch: pytest.MonkeyPatch, apply: Any) -> None:
    model = make(attention())
    monkeypatch.setattr(fuse_attention, "limits", lambda: Limits(22, 10))
    declined(apply(FuseAttention(), model), "the installed onnxruntime loads up to 22")


def test_models_with_functions_are_not_upgraded(apply: Any) -> None:
    function = '<opset_import: ["": 17], domain: "own"> twice (x) => (z) { z = Add(x, x) }'
    nodes = f"{attention()}  u = own.twice(y)"
    outputs = "float[B, S, 8] u"
    declined(apply(FuseAttention(), make(nodes, outputs=outputs, functions=function)), "functions of their own")


def test_output_keeps_its_name(apply: Any) -> None:
    """Activation ranges are kept by name."""
    nodes = attention().replace("y = ", "merged_heads = ") + "  y = Relu(merged_heads)"
    outcome = apply(FuseAttention(), make(nodes))
    assert [value.name for node in all_nodes(outcome.model) for value in node.outputs] == ["merged_heads", "y"]


def test_an_empty_batch_is_an_error() -> None:
    model = make(attention())
    assert FuseAttention().run(model, PassContext(get_target("auto"))).modified
    with pytest.raises(ModelError):
        open_session(model).run(feed(0, 3, 4))
