"""The order in which units go float, on a chain of layers of which some do not survive 8 bits."""

from collections.abc import Callable
from typing import Any

import pytest

from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.sensitivity import by_harm
from onnxcomp.search.variants import Switch, Variants

STATIC = Step("quantize-static", {"anchors": ["MatMul"], "method": "percentile"})
DYNAMIC = Step("quantize-dynamic")


def groups_of(variants: Variants) -> list[Switch]:
    return [Switch(step, unit.nodes) for step, units in enumerate(variants.units()) for unit in units]


def order(variants: Variants, **changes: Any) -> list[str]:
    settings: dict[str, Any] = {"cost": lambda _: 1.0, "progress": lambda _: None, "late": lambda: False}
    steps = len(variants.units())
    return [group.nodes[0] for group in by_harm(variants, groups_of(variants), steps, **settings | changes).order]


@pytest.mark.parametrize("step", [STATIC, DYNAMIC])
def test_the_harmful_layer_comes_first(chain: Callable[..., Any], step: Step) -> None:
    found = order(chain(5).variants(Recipe((step,))))
    assert found[0] == "fc5"
    assert sorted(found) == [f"fc{i}" for i in range(8)]


def test_two_harmful_layers_are_found_though_neither_helps_alone(chain: Callable[..., Any]) -> None:
    assert set(order(chain(2, 5).variants(Recipe((STATIC,))))[:2]) == {"fc2", "fc5"}


def test_what_is_dear_in_float_goes_later(chain: Callable[..., Any]) -> None:
    variants = chain().variants(Recipe((STATIC,)))
    first = order(variants)[0]
    dear = order(variants, cost=lambda group: 1000.0 if group.nodes[0] == first else 1.0)
    assert dear[0] != first


def test_what_costs_nothing_is_no_reason_to_leave_it(chain: Callable[..., Any]) -> None:
    found = order(chain(5).variants(Recipe((STATIC,))), cost=lambda group: 0.0 if group.nodes[0] == "fc1" else 1.0)
    assert found[0] == "fc5"
    assert order(chain(5).variants(Recipe((STATIC,))), cost=lambda _: 0.0)[0] == "fc5"


def test_units_of_all_steps_are_in_the_order(chain: Callable[..., Any]) -> None:
    variants = chain(5).variants(Recipe((Step("quantize-static", {**STATIC.settings, "exclude": ["fc5"]}), DYNAMIC)))
    found = order(variants)
    assert sorted(found) == [f"fc{i}" for i in range(8)]
    assert found[0] == "fc5"  # of the second step


def test_late_gives_every_group_once(chain: Callable[..., Any]) -> None:
    asked = iter([False] * 3 + [True] * 1000)
    found = order(chain(5).variants(Recipe((STATIC,))), late=lambda: next(asked))
    assert sorted(found) == [f"fc{i}" for i in range(8)]
