import numpy as np
import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.passes.cleanup.deduplicate import DeduplicateInitializers
from onnxcomp.passes.cleanup.unshare import UnshareConfig, UnshareInitializers

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
W = {"w": np.arange(16, dtype=np.float32).reshape(4, 4) / 16}


def test_every_layer_gets_its_own(make_model, check):
    text = f"{OPSET} g (float[2, 4] x) => (float[2, 4] y) {{ a = MatMul(x, w) \n b = MatMul(a, w) \n y = Gemm(b, w) }}"
    outcome = check(UnshareInitializers(), make_model(text, W))
    assert sorted(outcome.model.graph.initializers) == ["w", "w_1", "w_2"]
    assert check(DeduplicateInitializers(), outcome.model).stats.counters == {"initializers removed": 2}


@pytest.mark.parametrize(
    "nodes",
    [
        "a = MatMul(x, w) \n y = Neg(a)",  # used once
        "a = Add(x, w) \n y = Mul(a, w)",  # no weights
    ],
)
def test_leaves_alone(make_model, check, nodes):
    text = f"{OPSET} g (float[4, 4] x) => (float[4, 4] y) {{ {nodes} }}"
    assert not check(UnshareInitializers(), make_model(text, W)).stats.modified


def test_other_uses_keep_the_original(make_model, check):
    text = f"{OPSET} g (float[4, 4] x) => (float[4, 4] y) {{ a = MatMul(x, w) \n y = Add(a, w) }}"
    outcome = check(UnshareInitializers(), make_model(text, W))
    assert outcome.model.graph[1].inputs[1].name == "w"
    assert outcome.model.graph[0].inputs[1].name == "w_1"


def test_overridable_initializer_is_left(make_model, check):
    text = f"""{OPSET} g (float[4, 4] x, float[4, 4] w) => (float[4, 4] y)
        {{ a = MatMul(x, w) \n y = MatMul(a, w) }}"""
    assert "graph input" in check(UnshareInitializers(), make_model(text, W)).reasons


def test_subgraphs(make_model, check):
    text = f"""{OPSET} g (bool k, float[4, 4] x) => (float[4, 4] y)
        {{ y = If (k) <then_branch = p () => (float[4, 4] s) {{ s = MatMul(x, w) }},
                       else_branch = q () => (float[4, 4] e) {{ e = MatMul(w, x) }}> }}"""
    assert check(UnshareInitializers(), make_model(text, W)).stats.counters == {"copies made": 1}


def test_settings_are_checked():
    with pytest.raises(RecipeError):
        UnshareConfig(ops=())
