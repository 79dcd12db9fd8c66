"""How much is pruned: what is tried and what is found, given which amounts keep the budget."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from onnxcomp.data import InputSpec, synthetic
from onnxcomp.pipeline import PassReport
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.build import Builder, Built
from onnxcomp.search.candidates import Candidate
from onnxcomp.search.judge import Task
from onnxcomp.search.pruning import may_prune, prune
from onnxcomp.search.result import CandidateResult
from onnxcomp.search.work import Work
from onnxcomp.target import Goal, Technique, get_target

STATIC = Recipe((Step("quantize-static"),))


def share(recipe: Recipe) -> float:
    (found,) = recipe.steps[0].settings.values()
    return float(found)


class Workshop:
    """Builds candidates that hold nothing but their names; those milder than `least` change nothing.

    Shares of the cost come to the same model where they are the same multiple of `rounded` percent.
    """

    def __init__(self, *, limit: Callable[[Recipe], float], least: float = 1.0, rounded: int = 1) -> None:
        self._limit = limit
        self._least = least
        self._rounded = rounded

    def outcome(self, step: Step) -> str | None:
        (kept,) = step.settings.values()
        return str(round(100 * kept) // self._rounded) if kept < self._least else None

    def build(self, wanted: list[Candidate]) -> list[Built]:
        (candidate,) = wanted
        if share(candidate.recipe) >= self._least:
            return []
        passes = tuple(PassReport(step.name, modified=True) for step in candidate.recipe.steps)
        result = CandidateResult(candidate.name, candidate.recipe, passes, 1)
        return [Built(result, cast("Any", None), candidate.name, candidate.recipe)]

    def judge(self, candidate: Built) -> None:
        if share(candidate.recipe) < self._limit(candidate.recipe):
            candidate.result.rejected = "it loses too much"


def search(
    shop: Workshop, follow: Recipe | None, *, goal: Goal = "latency", turns: int = 99
) -> tuple[list[float], Built | None]:
    best = None
    if follow is not None:
        best = Built(CandidateResult("best", follow, (), 1), cast("Any", None), "best", follow)
    left = [turns]

    def late() -> bool:
        left[0] -= 1
        return left[0] < 0

    tried, found = prune(best, cast("Builder", shop), shop.judge, goal=goal, late=late)
    return [share(one.recipe) for one in tried], found


@pytest.mark.parametrize("limit", [0.85, 0.8, 0.45, 0.3, 0.05])
@pytest.mark.parametrize("follow", [None, Recipe()])
def test_the_boldest_that_keeps_the_budget_is_found(limit: float, follow: Recipe | None) -> None:
    tried, found = search(Workshop(limit=lambda _: limit), follow)
    assert found is not None
    assert found.result.rejected is None
    assert limit <= share(found.recipe) < max(limit + 0.05, 0.1) + 1e-9
    assert len(tried) <= 5


def test_what_follows_is_tried_milder_until_it_keeps_the_budget() -> None:
    shop = Workshop(limit=lambda recipe: 0.3 if len(recipe.steps) == 2 else 0.36)
    tried, found = search(shop, STATIC)
    assert found is not None
    assert [step.name for step in found.recipe.steps] == ["prune-channels", "recover", "quantize-static"]
    assert share(found.recipe) == 0.4
    assert tried[-3:] == [0.3, 0.35, 0.4]


def test_amounts_that_come_to_the_same_channels_are_tried_once() -> None:
    shop = Workshop(limit=lambda recipe: 0.35 if len(recipe.steps) == 2 else 0.6, rounded=25)
    tried, found = search(shop, STATIC)
    assert tried == [0.55, 0.3, 0.5, 0.75]  # the float model, then with what follows
    assert found is not None
    assert share(found.recipe) == 0.75


def test_nothing_is_found_where_all_lose_too_much() -> None:
    tried, found = search(Workshop(limit=lambda _: 2.0), STATIC)
    assert found is None
    assert max(tried) == 0.95
    tried, found = search(Workshop(limit=lambda recipe: 0.0 if len(recipe.steps) == 2 else 2.0), STATIC)
    assert found is None
    assert tried[-3:] == [0.1, 0.15, 0.2]


def test_a_model_without_channels_to_prune_is_asked_once() -> None:
    assert search(Workshop(limit=lambda _: 0.0, least=0.0), STATIC) == ([], None)


def test_amounts_too_small_to_change_anything_are_no_failures() -> None:
    tried, found = search(Workshop(limit=lambda _: 0.68, least=0.72), None)
    assert found is not None
    assert share(found.recipe) == 0.7
    assert max(tried) == 0.7


def test_for_size_it_is_parameters_that_count() -> None:
    shop = Workshop(limit=lambda _: 0.5)
    for goal, what in (("size", "params"), ("latency", "macs"), ("balanced", "macs")):
        _, found = search(shop, STATIC, goal=cast("Goal", goal))
        assert found is not None
        assert list(found.recipe.steps[0].settings) == [what]


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_no_step_is_begun_late(turns: int) -> None:
    tried, found = search(Workshop(limit=lambda _: 0.3), STATIC, turns=turns)
    assert len(tried) <= turns
    assert found is None or len(found.recipe.steps) == 3


@pytest.mark.parametrize(
    ("techniques", "real", "made_up"), [(None, True, False), (("prune",), True, True), (("static",), False, False)]
)
def test_made_up_inputs_tell_not_what_matters(
    samples: Any, techniques: tuple[Technique, ...] | None, real: bool, made_up: bool
) -> None:
    """But who asks for pruning by name gets it."""
    feeds = samples([{"x": np.zeros((1, 2), np.float32)}])
    noise = synthetic([InputSpec("x", np.dtype(np.float32), (1, 2))], count=1, seed=0)
    for calibration, expected in ((feeds, real), (noise, made_up), (None, False)):
        work = Work(Task(feeds), get_target("auto"), calibration=calibration, techniques=techniques)
        assert may_prune(work) == expected
