import numpy as np
import pytest

from onnxcomp.passes.cleanup.deduplicate import DeduplicateInitializers

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
ONE = np.array([1, 2], np.float32)


@pytest.mark.parametrize("size", [2, 5000])
def test_merges_equal_tensors(make_model, check, size):
    text = f"{OPSET} g (float[{size}] x) => (float[{size}] y) {{ t = Mul(x, a) \n u = Add(t, b) \n y = Sub(u, c) }}"
    values = np.arange(size, dtype=np.float32)
    outcome = check(DeduplicateInitializers(), make_model(text, {"a": values, "b": values.copy(), "c": values + 1}))
    assert list(outcome.model.graph.initializers) == ["a", "c"]
    assert outcome.stats.counters == {"initializers removed": 1}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([1, 2], np.float32), np.array([1, 3], np.float32)),
        (np.array([1, 2], np.float32), np.array([[1, 2]], np.float32)),
        (np.array([0.0, 2], np.float32), np.array([-0.0, 2], np.float32)),
    ],
)
def test_keeps_different_tensors(make_model, check, a, b):
    text = f"{OPSET} g (float[1, 2] x) => (float[1, 2] y) {{ t = Mul(x, a) \n y = Add(t, b) }}"
    assert not check(DeduplicateInitializers(), make_model(text, {"a": a, "b": b})).stats.modified


def test_types_count(make_model, check):
    text = f"""{OPSET} g (int64[2] x, int32[2] z) => (int64[2] y, int32[2] u) {{ y = Add(x, a) \n u = Add(z, b) }}"""
    weights = {"a": np.zeros(2, np.int64), "b": np.zeros(2, np.int32)}
    assert not check(DeduplicateInitializers(), make_model(text, weights)).stats.modified


def test_keeps_the_interface(make_model, check):
    text = f"""{OPSET} g (float[2] x, float[2] a) => (float[2] y, float[2] b)
        {{ t = Mul(x, a) \n u = Add(t, b) \n y = Add(u, c) }}"""
    outcome = check(DeduplicateInitializers(), make_model(text, {"a": ONE, "b": ONE, "c": ONE}))
    assert not outcome.stats.modified


def test_uses_in_subgraphs_follow(make_model, check):
    text = f"""{OPSET} g (bool k, float[2] x) => (float[2] y)
        {{ t = Mul(x, a)
           y = If (k) <then_branch = p () => (float[2] s) {{ s = Add(t, b) }},
                       else_branch = q () => (float[2] e) {{ e = Sub(t, b) }}> }}"""
    outcome = check(DeduplicateInitializers(), make_model(text, {"a": ONE, "b": ONE}))
    assert list(outcome.model.graph.initializers) == ["a"]


def test_strings(make_model, check):
    text = f"""{OPSET} g () => (string[2] y, string[2] z, string[2] u)
        {{ y = Identity(a) \n z = Identity(b) \n u = Identity(c) }}"""
    weights = {
        "a": np.array(["x", "yz"], object),
        "b": np.array(["x", "yz"], object),
        "c": np.array(["xy", "z"], object),
    }
    outcome = check(DeduplicateInitializers(), make_model(text, weights))
    assert list(outcome.model.graph.initializers) == ["a", "c"]
