"""What follows a pruning step measures activations anew, whether the steps run in one go or from a kept front."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.data import Feed
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.fronts import Fronts
from onnxcomp.search.memory import Memory
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

PRUNED = Recipe((Step("prune-channels", {"ratio": 0.5, "round": 1}), Step("recover")))
WHOLE = Recipe((*PRUNED.steps, Step("quantize-static", {"method": "minmax"})))


@pytest.fixture
def model(parse: Callable[..., Any]) -> ir.Model:
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(16, 32)), "b": rng.normal(size=(32, 32)), "c": rng.normal(size=(32, 8))}
    text = """g (float[N, 16] x) => (float[N, 8] y)
        { h = MatMul(x, a) i = Relu(h) j = MatMul(i, b) k = Relu(j) y = MatMul(k, c) }"""
    return load(parse(text, weights).SerializeToString())


@pytest.fixture
def feeds() -> list[Feed]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(32, 16)).astype(np.float32)} for _ in range(8)]


def test_ranges_are_those_of_the_pruned_model(model: ir.Model, feeds: list[Feed], samples: Any) -> None:
    data, target = samples(feeds), get_target("cpu-x86-vnni")
    verifier = Verifier(model, feeds[:2])

    def context(start: ir.Model) -> PassContext:
        return PassContext(target, samples=data, ranges=RangeStore(start, data))

    small, _ = run_recipe(model, PRUNED, context(model), verifier)
    wanted, _ = run_recipe(small, Recipe(WHOLE.steps[2:]), context(small), verifier)
    at_once, reports = run_recipe(model, WHOLE, context(model), verifier)
    assert [report.modified for report in reports] == [True, True, True]
    fronts = Fronts(model, context(model), verifier, lambda _stage, _share: None, Memory())
    front = fronts.of(WHOLE)
    assert fronts.of(PRUNED) is front
    assert [report.name for report in front.passes] == ["prune-channels", "recover"]
    from_front, _ = run_recipe(front.model, Recipe(WHOLE.steps[2:]), front.ctx, verifier)
    stale, _ = run_recipe(small, Recipe(WHOLE.steps[2:]), context(model), verifier)
    answers = [open_session(each).run(feeds[3])["y"] for each in (wanted, at_once, from_front, stale)]
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])
    assert not np.array_equal(answers[3], answers[0])
