"""Running a model piece by piece."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import ModelError
from onnxcomp.model import load
from onnxcomp.statistics import Relay, runs

Parse = Callable[..., onnx.ModelProto]

# a residual net: two branches, a body that reads an outer tensor, an integer tensor between pieces
NET = """g (float[N, 3] x) => (float[N, 3] y) {
    a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) s = Add(b, c) n = Shape(s) d = MatMul(s, w2)
    z = Reshape(d, n) t = ReduceSum <keepdims = 0> (z) g = Greater(t, zero)
    e = If (g) <then_branch = p () => (float[N, 3] q) { q = Add(z, b) },
                else_branch = r () => (float[N, 3] u) { u = Sub(z, b) }>
    y = Tanh(e) }"""
TENSORS = ("a", "c", "s", "d", "z", "e", "y")


@pytest.fixture
def model(parse: Parse) -> ir.Model:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(3, 3)) for name in ("w", "v", "w2")} | {"zero": np.zeros(())}
    return load(parse(NET, weights).SerializeToString())


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(rows, 3)).astype(np.float32)} for rows in (1, 4, 2)]


@pytest.mark.parametrize("most", [0, 60, 1 << 20])
def test_pieces_give_what_the_whole_gives(model: ir.Model, feeds: Any, samples: Any, most: int) -> None:
    whole = list(runs(model, samples(feeds), TENSORS))
    with Relay(model, feeds, TENSORS, most_bytes=most) as relay:
        for piece in (("a",), ("s", "c"), ("z", "d"), ("e",), ("y",), ("y",)):
            for found, expected in zip(relay.ahead(piece), whole, strict=True):
                assert set(found) == set(piece)
                for name in piece:
                    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_weight_that_changes_between_pieces_changes_what_follows_alone(
    model: ir.Model, feeds: Any, samples: Any
) -> None:
    other = model.clone()
    other.graph.initializers["w2"].const_value = ir.tensor(np.eye(3, dtype=np.float32))
    before, after = (list(runs(each, samples(feeds), TENSORS)) for each in (model, other))
    with Relay(model, feeds, TENSORS) as relay:
        pieces = [list(relay.ahead(["s"]))]
        model.graph.initializers["w2"].const_value = other.graph.initializers["w2"].const_value
        pieces.append(list(relay.ahead(["y"])))
    for index in range(len(feeds)):
        np.testing.assert_allclose(pieces[0][index]["s"], before[index]["s"], rtol=1e-5)
        np.testing.assert_allclose(pieces[1][index]["y"], after[index]["y"], rtol=1e-5)


def test_what_nobody_will_ask_for_is_neither_run_nor_kept(
    model: ir.Model, feeds: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Relay(model, feeds, ["a", "s"], most_bytes=0) as relay:
        kept = []
        for piece in ("a", "s"):
            list(relay.ahead([piece]))
            relay.finished([piece])
            kept.append(sorted(path.name for path in tmp_path.rglob("*.npy")))
        assert len(kept[0]) == len(feeds)  # x is gone, a is there
        list(relay.ahead([]))
        assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.iterdir())


def test_a_sequence_between_pieces_is_refused(parse: Parse) -> None:
    text = """g (float[2] x) => (float[2] y) {
        s = SequenceConstruct(x, x) i = Constant <value = int64 {0}> () a = SequenceAt(s, i) y = Tanh(a) }"""
    model = load(parse(text).SerializeToString())
    with (
        Relay(model, [{"x": np.zeros(2, np.float32)}], ["s", "y"]) as relay,
        pytest.raises(ModelError, match="s is no tensor"),
    ):
        list(relay.ahead(["s"]))


def test_an_unknown_tensor_is_a_key_error(model: ir.Model, feeds: Any) -> None:
    with pytest.raises(KeyError):
        Relay(model, feeds, ["nothing"])
