"""Fixtures for testing graph rewrites: write a model as text, run a pass, compare with onnxruntime."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxcomp.facts import all_nodes
from onnxcomp.model import load
from onnxcomp.passbase import Pass, PassContext, PassStats, Skip
from onnxcomp.runtime import Session
from onnxcomp.target import get_target


@dataclass
class Outcome:
    """What a pass did to a model, with the model."""

    model: ir.Model
    stats: PassStats
    skipped: list[Skip]
    ops: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.ops = Counter(node.op_type for node in all_nodes(self.model))

    @property
    def reasons(self) -> str:
        return "; ".join(skip.reason for skip in self.skipped)


def _model(text: str, weights: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """Parse ``onnx.parser`` text; weights are added as initializers."""
    proto = onnx.parser.parse_model(text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto)
    return load(proto.SerializeToString())


def _feed(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw an input for every graph input without a default; unknown dimensions become 3."""
    rng = np.random.default_rng(seed)
    feed = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        shape = tuple(d if isinstance(d, int) and d > 0 else 3 for d in value.shape or ())
        dtype = np.dtype(value.dtype.numpy())
        if dtype.kind == "b":
            feed[value.name] = np.asarray(rng.random(shape) < 0.5)
        elif dtype.kind in "iu":
            feed[value.name] = np.asarray(rng.integers(0, 3, shape), dtype)
        else:
            feed[value.name] = np.asarray(rng.normal(size=shape), dtype)
    return feed


def _outputs(model: ir.Model, feed: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return Session(ir.to_proto(model).SerializeToString(), optimize=False).run(feed)


def _apply(rewrite: Pass[Any], model: ir.Model) -> Outcome:
    ctx = PassContext(get_target("cpu-x86-vnni"))
    stats = rewrite.run(model, ctx)
    return Outcome(model, stats, ctx.skipped)


def _check(rewrite: Pass[Any], model: ir.Model, *, rtol: float = 1e-4, atol: float = 1e-5) -> Outcome:
    """Run a pass and hold it to the contract that every exact pass has.

    The outputs keep their names, shapes and values; ``modified`` is true exactly when the serialized model changed; a
    second run changes nothing; the result passes onnx's checker and loads in onnxruntime.
    """
    before = ir.to_proto(model)
    feeds = [_feed(model, seed) for seed in range(3)]
    expected = [_outputs(model, feed) for feed in feeds]
    outcome = _apply(rewrite, model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert outcome.stats.modified == (before != after)
    assert outcome.stats.modified == bool(outcome.stats.counters)
    for feed, wanted in zip(feeds, expected, strict=True):
        got = _outputs(model, feed)
        assert list(got) == list(wanted)
        for name, array in wanted.items():
            assert np.shape(got[name]) == np.shape(array), name
            if np.asarray(array).dtype.kind == "f":
                np.testing.assert_allclose(got[name], array, rtol=rtol, atol=atol, err_msg=name)
            else:
                np.testing.assert_array_equal(got[name], array, err_msg=name)
    again = _apply(rewrite, model)
    assert not again.stats.modified
    assert ir.to_proto(model) == after
    return outcome


@pytest.fixture
def make_model() -> Callable[..., ir.Model]:
    return _model


@pytest.fixture
def apply() -> Callable[..., Outcome]:
    return _apply


@pytest.fixture
def check() -> Callable[..., Outcome]:
    return _check
