import numpy as np
import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.passes.cleanup.fold_constants import FoldConstants, FoldConstantsConfig

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
W = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}


def test_folds_a_chain(make_model, check):
    text = f"""{OPSET} g (float[2, 4] x) => (float[2, 3] y)
        {{ a = Transpose(w) \n b = Neg(a) \n y = MatMul(x, b) }}"""
    outcome = check(FoldConstants(), make_model(text, W))
    assert outcome.ops == {"MatMul": 1}
    assert outcome.stats.counters == {"nodes folded": 2}
    assert list(outcome.model.graph.initializers) == ["b"]


def test_folds_all_outputs_and_optional_inputs(make_model, check):
    text = f"""{OPSET} g (float[3, 2] x) => (float[3, 2] y)
        {{ c = Clip(w, , five) \n a, b = Split <axis = 1> (c) \n t = Add(x, a) \n y = Add(t, b) }}"""
    outcome = check(FoldConstants(), make_model(text, W | {"five": np.float32(5)}))
    assert outcome.ops == {"Add": 2}


@pytest.mark.parametrize(
    ("nodes", "folds"),
    [
        ("s = Shape(x) \n a = Gather(s, two)", True),
        ("s = Shape(x) \n a = Gather(s, minus)", True),
        ("s = Shape(x) \n a = Slice(s, one, two)", True),
        ("s = Shape(x) \n a = Slice(s, one, big, zero, one)", True),
        ("a = Shape <start = 1> (x)", True),
        ("a = Shape <start = -2, end = -1> (x)", True),
        ("a = Shape(x)", False),  # the batch is not known
        ("s = Shape(x) \n a = Gather(s, zero)", False),
        ("s = Shape(x) \n a = Slice(s, zero, two)", False),
        ("a = Shape <end = 1> (x)", False),
        ("s = Size(x) \n a = Reshape(s, one)", False),
    ],
)
def test_known_dimensions(make_model, check, nodes, folds):
    scalars = {"zero": 0, "one": 1, "two": 2, "minus": -1, "big": 2**62}
    constants = {name: np.array([value], np.int64) for name, value in scalars.items()}
    text = f"{OPSET} g (float[N, 3, 4] x) => (int64[K] y) {{ {nodes} \n y = Neg(a) }}"
    outcome = check(FoldConstants(), make_model(text, constants))
    assert outcome.stats.modified == folds
    assert outcome.ops["Neg"] == 1
    assert outcome.ops["Gather"] + outcome.ops["Slice"] <= (not folds)


def test_known_size(make_model, check):
    text = f"{OPSET} g (float[2, 3] x) => (int64 y) {{ a = Size(x) \n y = Neg(a) }}"
    outcome = check(FoldConstants(), make_model(text))
    assert outcome.ops == {"Neg": 1}
    assert "it is a graph output" in outcome.reasons


def test_zero_and_minus_one_dimensions_are_unknown(make_model, apply):
    text = f"{OPSET} g (float[0, 3] x) => (int64[2] y) {{ s = Shape(x) \n y = Neg(s) }}"
    assert not apply(FoldConstants(), make_model(text)).stats.modified


def test_shapes_known_only_after_folding(make_model, check):
    text = f"""{OPSET} g (float[2, 6] x) => (float[K] y)
        {{ s = Shape(x) \n n = ReduceProd <keepdims = 1> (s) \n f = Reshape(x, n)
        t = Shape(f) \n e = Expand(one, t) \n y = Add(f, e) }}"""
    outcome = check(FoldConstants(), make_model(text, {"one": np.ones(1, np.float32)}))
    assert outcome.ops == {"Reshape": 1, "Add": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        "r = RandomNormalLike(w) \n z = Mul(r, zero) \n y = Add(x, z)",
        "q = QuantizeLinear(w, s, p) \n d = DequantizeLinear(q, s, p) \n y = Add(x, d)",
        "d = DequantizeLinear(p3, s, p) \n y = Add(x, d)",
    ],
)
def test_leaves_alone(make_model, check, nodes):
    text = f"{OPSET} g (float[3, 4] x) => (float[3, 4] y) {{ {nodes} }}"
    weights = {"zero": np.float32(0), "s": np.float32(0.1), "p": np.uint8(3), "p3": np.full((3, 4), 7, np.uint8)}
    assert not check(FoldConstants(), make_model(text, W | weights)).stats.modified


def test_leaves_growth_alone(make_model, check):
    text = f"""{OPSET} g (float[1000, 3] x) => (float[1000, 3] y)
        {{ e = Expand(one, shape) \n y = Add(x, e) }}"""
    weights = {"one": np.ones(1, np.float32), "shape": np.array([1000, 3])}
    outcome = check(FoldConstants(), make_model(text, weights))
    assert not outcome.stats.modified
    assert "bytes larger" in outcome.reasons
    assert check(FoldConstants(FoldConstantsConfig(max_growth=20_000)), make_model(text, weights)).stats.modified


def test_never_computes_a_huge_result(make_model, apply):
    text = f"""{OPSET} g (float[1] x) => (float[K] y) {{ e = ConstantOfShape(shape) \n y = Add(x, e) }}"""
    outcome = apply(FoldConstants(), make_model(text, {"shape": np.array([10**12])}))
    assert not outcome.stats.modified
    assert "bytes larger" in outcome.reasons


def test_shared_weight_is_not_doubled(make_model, check):
    text = f"""{OPSET} g (float[2, 300] x) => (float[2, 300] y)
        {{ t = Transpose(w) \n a = MatMul(x, w) \n y = MatMul(a, t) }}"""
    weights = {"w": np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)}
    outcome = check(FoldConstants(), make_model(text, weights), atol=1e-2)
    assert not outcome.stats.modified


def test_overridable_initializer_is_no_constant(make_model, check):
    text = f"{OPSET} g (float[3, 4] x, float[3, 4] w) => (float[3, 4] y) {{ n = Neg(w) \n y = Add(x, n) }}"
    assert not check(FoldConstants(), make_model(text, W)).stats.modified


def test_folds_inside_a_subgraph_from_outside(make_model, check):
    text = f"""{OPSET} g (bool c, float[4] x) => (float[4] y)
        {{ y = If (c) <then_branch = a () => (float[4] t) {{ n = Neg(v) \n t = Add(x, n) }},
                      else_branch = b () => (float[4] e) {{ e = Abs(x) }}> }}"""
    outcome = check(FoldConstants(), make_model(text, {"v": np.arange(4, dtype=np.float32)}))
    assert outcome.ops == {"If": 1, "Add": 1, "Abs": 1}


def test_control_flow_with_constants_is_left(make_model, check):
    text = f"""{OPSET} g (float[4] x) => (float[4] y)
        {{ y = If (c) <then_branch = a () => (float[4] t) {{ t = Neg(x) }},
                      else_branch = b () => (float[4] e) {{ e = Abs(x) }}> }}"""
    assert not check(FoldConstants(), make_model(text, {"c": np.array(True)})).stats.modified


def test_strings_are_left(make_model, check):
    text = f"""{OPSET} g (float[1] x) => (float[1] y)
        {{ c = Constant <value_strings = ["1", "2"]> () \n i = Cast <to = 1> (c)
           s = ReduceSum(i) \n y = Add(x, s) }}"""
    outcome = check(FoldConstants(), make_model(text))
    assert outcome.ops["Cast"] == 1


def test_settings_are_checked():
    with pytest.raises(RecipeError):
        FoldConstantsConfig(max_growth=-1)
