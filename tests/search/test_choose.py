import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.measure import Ratio
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.choose import objection, ranked, worth_saving
from onnxcomp.search.result import CandidateResult
from onnxcomp.target import Budget, Goal

ORIGINAL = 1000


def candidate(name: str = "c", *, size: int = 500, ratio: float = 0.5, width: float = 0.01) -> CandidateResult:
    return CandidateResult(name, Recipe(), (), size, latency=Ratio(ratio, ratio - width, ratio + width))


def order(goal: Goal, *candidates: CandidateResult) -> list[str]:
    return [c.name for c in ranked(candidates, ORIGINAL, goal)]


def test_each_goal_has_its_own_order() -> None:
    fast = candidate("fast", ratio=0.3, size=900)
    small = candidate("small", ratio=0.9, size=200)
    both = candidate("both", ratio=0.4, size=300)
    assert order("latency", small, both, fast) == ["fast", "both", "small"]
    assert order("size", fast, both, small) == ["small", "both", "fast"]
    assert order("balanced", fast, small, both) == ["both", "small", "fast"]


def test_of_those_that_tie_the_other_respect_decides() -> None:
    assert order("latency", candidate("a", ratio=0.500, size=400), candidate("b", ratio=0.509, size=300)) == ["b", "a"]
    assert order("latency", candidate("a", ratio=0.500, size=400), candidate("b", ratio=0.520, size=300)) == ["a", "b"]
    assert order("size", candidate("a", size=300, ratio=0.9), candidate("b", size=302, ratio=0.5)) == ["b", "a"]
    assert order("size", candidate("a", size=300, ratio=0.9), candidate("b", size=310, ratio=0.5)) == ["a", "b"]
    even = [candidate("a", ratio=0.50, size=400), candidate("b", ratio=0.4, size=502)]
    assert order("balanced", *even) == ["a", "b"]


def test_of_those_that_tie_in_both_the_simpler_comes_first() -> None:
    many, few = (Recipe(tuple(Step(name) for name in names)) for names in (("fuse-gelu", "fold-bias"), ("fold-bias",)))
    goals: tuple[Goal, ...] = ("latency", "size", "balanced")
    for goal in goals:
        complex_one = candidate("complex", size=400, ratio=0.4)
        simple = candidate("simple", size=401, ratio=0.401)
        complex_one.recipe, simple.recipe = many, few
        assert order(goal, complex_one, simple) == ["simple", "complex"]
        simple.size, simple.latency = 480, Ratio(0.48, 0.47, 0.49)
        assert order(goal, complex_one, simple) == ["complex", "simple"]


def test_nothing_to_order() -> None:
    assert order("latency") == []


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0.05, 2)), max_size=8),
    st.sampled_from(["latency", "size", "balanced"]),
)
def test_the_order_is_complete_and_its_first_is_near_the_best(numbers: list[tuple[int, float]], goal: Goal) -> None:
    made = [candidate(str(i), size=size, ratio=ratio) for i, (size, ratio) in enumerate(numbers)]
    found = ranked(made, ORIGINAL, goal)
    assert sorted(c.name for c in found) == sorted(c.name for c in made)
    costs = {
        "latency": lambda c: c.latency.ratio,
        "size": lambda c: c.size,
        "balanced": lambda c: c.latency.ratio * c.size,
    }
    if made:
        assert costs[goal](found[0]) <= 1.02 * 1.000001 * min(map(costs[goal], made))


@pytest.mark.parametrize(
    ("made", "goal", "budget", "reason"),
    [
        (candidate(), "latency", Budget(), None),
        (candidate(), "size", Budget(), None),
        (candidate(), "balanced", Budget(), None),
        (candidate(ratio=1.1), "latency", Budget(), "slower"),
        (candidate(ratio=1.1), "size", Budget(), "slower"),
        (candidate(ratio=1.1), "size", Budget(max_latency_ratio=1.2), None),
        (candidate(ratio=0.5), "size", Budget(max_latency_ratio=0.4), "slower"),
        (candidate(size=500), "latency", Budget(max_size=499), "larger than 499"),
        (candidate(size=500), "latency", Budget(max_size=500), None),
        (candidate(size=1001), "latency", Budget(), "larger than the original"),
        (candidate(size=1000), "latency", Budget(), None),
        (candidate(size=1000), "size", Budget(), "not smaller"),
        (candidate(ratio=0.95, width=0.1), "latency", Budget(), "not clearly faster"),
        (candidate(ratio=0.95, width=0.1), "size", Budget(), None),
        (candidate(ratio=1.01, size=990), "balanced", Budget(), None),
        (candidate(ratio=1.02, size=999), "balanced", Budget(), "not better"),
    ],
)
def test_what_rules_a_candidate_out(made: CandidateResult, goal: Goal, budget: Budget, reason: str | None) -> None:
    found = objection(made, ORIGINAL, goal, budget, fallback=False)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in str(found)


def test_the_fallback_must_only_be_no_worse() -> None:
    same = candidate(size=ORIGINAL, ratio=1.0, width=0.02)
    assert objection(same, ORIGINAL, "latency", Budget(), fallback=True) is None
    assert objection(same, ORIGINAL, "latency", Budget(), fallback=False) is not None
    assert objection(candidate(size=1001), ORIGINAL, "latency", Budget(), fallback=True) is not None
    assert objection(candidate(ratio=1.2), ORIGINAL, "latency", Budget(), fallback=True) is not None
    assert objection(same, ORIGINAL, "latency", Budget(max_size=900), fallback=True) is not None
    slower = candidate(size=900, ratio=1.015, width=0.01)  # by its whole interval
    assert objection(slower, ORIGINAL, "latency", Budget(), fallback=True) is not None
    assert objection(slower, ORIGINAL, "size", Budget(), fallback=True) is None  # as any other that is smaller


def test_only_what_is_clearly_better_than_all_that_is_kept_is_worth_saving() -> None:
    fast, small = candidate("fast", ratio=0.3, size=900), candidate("small", ratio=0.9, size=200)
    assert worth_saving(fast, [], ORIGINAL, "latency")
    assert worth_saving(fast, [small], ORIGINAL, "latency")
    assert not worth_saving(small, [fast], ORIGINAL, "latency")
    assert worth_saving(small, [fast], ORIGINAL, "size")
    assert not worth_saving(candidate(ratio=0.299), [fast], ORIGINAL, "latency")  # a tie
    assert not worth_saving(candidate(ratio=0.2), [candidate(ratio=0.1), fast], ORIGINAL, "latency")
