"""Rescue, on models where one layer does not survive 8 bits, and on made-up variants whose noise is known."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.passbase import Unit
from onnxcomp.pipeline import PassReport
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.rescue import rescue
from onnxcomp.search.variants import Switch, Variant

DYNAMIC = Step("quantize-dynamic")
STATIC = Step("quantize-static", {"anchors": ["MatMul"], "method": "percentile"})


def never() -> bool:
    return False


def ignore(_: float | None) -> None:
    pass


@dataclass
class MadeUp:
    """Variants whose model is the set of float units; each unit that is not float adds its noise."""

    noise: dict[str, float]
    steps: int = 1
    built: list[frozenset[str]] = field(default_factory=list)

    def units(self) -> list[list[Unit]]:
        units = [Unit(name, "MatMul", (name,)) for name in self.noise]
        return [units[i :: self.steps] for i in range(self.steps)]

    def simulation(self) -> None:
        return None

    def build(self, switches: Iterable[Switch]) -> Variant:
        switches = list(switches)
        step_of = {unit.name: step for step, found in enumerate(self.units()) for unit in found}
        assert all(step_of[name] <= switch.step for switch in switches for name in switch.nodes)
        floats = frozenset(name for switch in switches for name in switch.nodes if step_of[name] == switch.step)
        self.built.append(floats)
        noise = sum(share for name, share in self.noise.items() if name not in floats)
        made = len(floats) < len(self.noise)
        report = PassReport("p", modified=made, noise=noise if made else None)
        return Variant(floats, (report,), Recipe())  # type: ignore[arg-type]


def run(
    variants: MadeUp,
    acceptable: Callable[[Any], bool],
    late: Callable[[], bool] = never,
    late_to_order: Callable[[], bool] | None = None,
) -> tuple[list[frozenset[str]], tuple[Variant, list[Switch]] | None]:
    """Rescue; return the models that were asked about, and what was found."""
    asked: list[frozenset[str]] = []

    def ask(model: Any) -> bool:
        asked.append(model)
        return acceptable(model)

    return asked, rescue(variants, ask, ignore, late, late_to_order=late_to_order)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [DYNAMIC, STATIC])
@pytest.mark.parametrize("harmful", [3, 6])
def test_finds_the_layer_that_does_the_harm(chain: Callable[..., Any], step: Step, harmful: int) -> None:
    planted = chain(harmful)
    variants = planted.variants(Recipe((step,)))
    assert planted.sqnr(variants.build(()).model) < 3
    shares: list[float | None] = []
    found = rescue(variants, planted.acceptable, shares.append, never)
    assert found is not None
    variant, switches = found
    behind = (f"act{harmful}",) if step is STATIC else ()  # static units hold what runs in integers behind an anchor
    assert switches == [Switch(0, (f"fc{harmful}", *behind))]
    assert variant.recipe.steps[0].settings["exclude"] == [f"fc{harmful}", *behind]
    assert planted.sqnr(variant.model) >= 20
    *told, last = shares
    assert last is None
    assert told == sorted(told)  # type: ignore[type-var]
    assert all(share is not None and 0 <= share <= 1 for share in told)


def test_finds_both_of_two(chain: Callable[..., Any]) -> None:
    """Neither helps alone: that the one is worse must not hide the other."""
    planted = chain(2, 5)
    found = rescue(planted.variants(Recipe((DYNAMIC,))), planted.acceptable, ignore, never)
    assert found is not None
    variant, switches = found
    names = {name for switch in switches for name in switch.nodes}
    assert names == {"fc2", "fc5"}
    assert planted.acceptable(variant.model)


def test_a_sound_candidate_keeps_all_but_one(chain: Callable[..., Any]) -> None:
    plain = chain()
    found = rescue(plain.variants(Recipe((DYNAMIC,))), plain.acceptable, ignore, never)
    assert found is not None
    assert len(found[1]) == 1


def test_none_is_acceptable(chain: Callable[..., Any]) -> None:
    planted = chain(3)
    assert rescue(planted.variants(Recipe((DYNAMIC,))), lambda _: False, ignore, never) is None


harms = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40, unique=True)


@given(harms, st.data(), st.integers(1, 3))
def test_as_few_as_promised(values: list[float], data: st.DataObject, steps: int) -> None:
    variants = MadeUp({f"n{i}": value for i, value in enumerate(values)}, steps)
    order = sorted(variants.noise, key=lambda name: -variants.noise[name])
    needed = data.draw(st.integers(1, len(values)))
    asked, found = run(variants, lambda floats: set(order[:needed]) <= floats)
    if needed == len(values):
        assert found is None  # all of them float is the model before
        return
    assert found is not None
    variant, switches = found
    names = [name for switch in switches for name in switch.nodes]
    assert variant.model == set(names) == set(order[: len(names)])
    assert needed <= len(names) <= needed - 1 + max(1, (needed - 1) // 4)
    assert len(asked) <= 3 + 2 * math.log2(len(values) + 1)


def test_the_least_harmful_come_last() -> None:
    asked, found = run(MadeUp({"a": 0.0, "b": 0.5, "c": 0.1, "d": 0.2}), lambda _: False)
    assert found is None
    assert asked == [{"b"}, {"b", "d"}, {"b", "d", "c"}]  # with all of them float nothing is left to ask about
    assert run(MadeUp({}), lambda _: True) == ([], None)


def test_many_units_are_tried_in_groups_of_neighbours() -> None:
    noise = {f"n{i}": 1e-3 for i in range(500)} | {"n217": 1.0}
    variants = MadeUp(noise, steps=2)
    _, found = run(variants, lambda floats: "n217" in floats)
    assert found is not None
    (switch,) = found[1]
    assert switch.step == 1
    assert "n217" in switch.nodes
    numbers = [int(name[1:]) for name in switch.nodes]
    assert numbers == list(range(numbers[0], numbers[-1] + 1, 2))  # every other unit is of the other step
    assert len(variants.built) < 80


def test_late_takes_what_there_is() -> None:
    noise = {f"n{i}": float(20 - i) for i in range(20)}

    def five(floats: frozenset[str]) -> bool:
        return {f"n{i}" for i in range(5)} <= floats

    asked, found = run(MadeUp(noise), five, late=lambda: True)
    assert (len(asked), found) == (1, None)
    asked, found = run(MadeUp(noise), lambda _: True, late=lambda: True)
    assert found is not None
    assert len(asked) == len(found[1]) == 1

    questions: list[int] = []

    def late_from_the_fourth_trial_on() -> bool:
        questions.append(1)
        return len(questions) > len(noise) + 3  # each unit is measured first

    asked, found = run(MadeUp(noise), five, late=late_from_the_fourth_trial_on)
    assert found is not None
    assert len(found[1]) == 8  # 1, 2, 4, 8: enough, and no time to try fewer
    assert asked[-1] == found[0].model


def test_units_that_no_time_is_left_to_measure_count_as_harmless() -> None:
    noise = {f"n{i}": float(i) for i in range(8)}  # the last are the worst
    questions: list[int] = []

    def late_to_order() -> bool:
        questions.append(1)
        return len(questions) > 4

    asked, _ = run(MadeUp(noise), lambda floats: len(floats) == 4, late_to_order=late_to_order)
    assert asked[0] == {"n3"}
    assert {"n0", "n1", "n2", "n3"} in asked


def test_a_unit_so_bad_that_its_noise_is_infinite() -> None:
    asked, found = run(MadeUp(dict.fromkeys("abcdefgh", 0.1) | {"f": math.inf}), lambda floats: "f" in floats)
    assert found is not None
    assert asked == [{"f"}]


def test_a_layer_that_no_step_may_quantize(chain: Callable[..., Any]) -> None:
    """Left out of static INT8 alone, it would be taken by dynamic INT8, which harms as much."""
    planted = chain(3)
    found = rescue(planted.variants(Recipe((STATIC, DYNAMIC))), planted.acceptable, ignore, never)
    assert found is not None
    assert planted.acceptable(found[0].model)
    assert found[1] == [Switch(0, ("fc3", "act3")), Switch(1, ("fc3", "act3"))]
    assert [step.settings["exclude"] for step in found[0].recipe.steps] == [["fc3", "act3"]] * 2
