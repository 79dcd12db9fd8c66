"""Recurrent layers: what units that others can stand in for did is made up for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.gates import Gates, gates_of
from onnxcomp.passes.prune.recover import Recover
from onnxcomp.target import get_target
from tests.passes.prune.test_recover import error

Parse = Callable[..., onnx.ModelProto]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def net(parse: Parse, kind: str, direction: str, *, bias: bool = True) -> ir.Model:
    """A layer of 3 units, each there twice, between products; of the 6 inputs 3 are there twice."""
    gates, sides = GATES[kind], 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(0)

    def rows(*shape: int) -> np.ndarray:  # [sides, gates x 6, ...]: of each gate 3 rows, twice
        found = rng.normal(size=(sides, gates, 3, *shape)) * 0.5
        return np.concatenate([found, found], axis=2).reshape(sides, gates * 6, *shape)

    # what reads the states of twins is the same for both, but that of the first ones has the larger weights
    states = rng.normal(size=(2, sides, gates, 3, 3))
    large = np.concatenate([states[0] + 3 * states[1], -3 * states[1]], axis=-1)
    small = np.concatenate([states[0], 0 * states[1]], axis=-1)
    first = rng.normal(size=(4, 3))
    weights = {
        "first": np.concatenate([first, first * 0.02], axis=1),
        "w": rows(6),
        "r": np.concatenate([large, small], axis=2).reshape(sides, gates * 6, 6) * 0.5,
        "last": rng.normal(size=(sides * 6, 2)),
        "size": np.array([0, 0, -1]),
    }
    if bias:
        weights["b"] = np.concatenate([rows(), rows()], axis=1)
    lbr = ", linear_before_reset = 1" if kind == "GRU" else ""
    text = f"""g (float[T, N, 4] x) => (float[T, N, 2] y) {{ c = MatMul(x, first)
        s = {kind} <hidden_size = 6, direction = "{direction}"{lbr}> (c, w, r{", b" if bias else ""})
        t = Transpose <perm = [0, 2, 1, 3]> (s) f = Reshape(t, size) y = MatMul(f, last) }}"""
    return load(parse(text, weights).SerializeToString())


def feeds(runs: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(7, 2, 4)).astype(np.float32)} for _ in range(runs)]


@pytest.mark.parametrize(
    ("kind", "direction", "bias"),
    [
        ("LSTM", "bidirectional", True),
        ("LSTM", "reverse", False),
        ("GRU", "forward", True),
        ("RNN", "bidirectional", False),
    ],
)
def test_units_and_inputs_that_are_there_twice_are_made_up_for(
    parse: Parse, samples: Any, kind: str, direction: str, bias: bool
) -> None:
    original = net(parse, kind, direction, bias=bias)
    model = original.clone()
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=samples(feeds(32, 0)), threads=1)
    assert PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, criterion="l2")).run(model, ctx).modified
    sliced = error(original, model, feeds(3, 9))
    ctx.skipped.clear()
    assert Recover().run(model, ctx).modified
    assert sliced > 1e-3
    assert error(original, model, feeds(3, 9)) < 1e-7


def test_states_of_a_gate_that_is_reset_before_the_sum_stay(parse: Parse) -> None:
    model = net(parse, "GRU", "forward")
    node = next(n for n in model.graph if n.op_type == "GRU")
    node.attributes.pop("linear_before_reset")
    other = net(parse, "GRU", "forward")
    small = next(n for n in other.graph if n.op_type == "GRU")
    small.attributes["hidden_size"] = ir.AttrInt64("hidden_size", 3)
    node.name = small.name = "s"
    found = gates_of(small, node, {"s": {3: np.arange(3)}})
    assert isinstance(found, list)
    assert [part.index for part in found] == [1, 2]
    small.attributes.pop("linear_before_reset")
    found = gates_of(small, node, {"s": {3: np.arange(3)}})
    assert isinstance(found, list)
    assert [part.index for part in found] == [1]
    assert isinstance(found[0], Gates)
    assert gates_of(small, None, {}) == "the original has no such node"
    assert "left" in str(gates_of(small, node, {}))
