from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

from onnxcomp.model import serialized
from onnxcomp.pipeline import Verifier, recipe_of, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.variants import Switch, Variant, Variants
from onnxcomp.statistics import collect_grams

DYNAMIC = Step("quantize-dynamic")
STATIC = Step("quantize-static", {"anchors": ["MatMul"]})
UPGRADE = Step("upgrade-opset", {"minimum": 18})
ALL = [f"fc{i}" for i in range(8)]
RECIPES = {
    "dynamic": (DYNAMIC,),
    "static": (STATIC,),
    "upgraded": (UPGRADE, DYNAMIC),
    "both": (UPGRADE, STATIC, DYNAMIC),
}


def floats(model: ir.Model) -> set[str]:
    """Name the layers that are float matrix products with float weights."""
    weights = {str(n.name): n.inputs[1] for n in model.graph if n.op_type == "MatMul"}
    return {name for name, weight in weights.items() if weight is not None and weight.is_initializer()}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("switches", [[], [Switch(0, ("fc3",))], [Switch(0, ("fc1", "fc2")), Switch(0, ("fc6",))]])
def test_the_recipe_of_a_variant_makes_the_variant(
    chain: Callable[..., Any], name: str, switches: list[Switch]
) -> None:
    plain = chain()
    variant = plain.variants(Recipe(RECIPES[name])).build(switches)
    assert variant.modified
    carried = recipe_of(variant.model)  # without the steps that found nothing to do
    for recipe in (Recipe.from_toml(variant.recipe.to_toml()), carried):
        again, _ = run_recipe(plain.model, recipe, plain.ctx, Verifier(plain.model, plain.feeds))
        assert serialized(again) == serialized(variant.model)
    assert [step for step in variant.recipe.steps if step in carried.steps] == [*carried.steps]


@pytest.mark.parametrize("done", [0, 1])
def test_steps_in_front_without_units_are_done_once(
    chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    calls = []

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(args)
        return collect_grams(*args, **settings)

    monkeypatch.setattr("onnxcomp.passes.quantize.rounding.collect_grams", counted)
    plain = chain()
    verifier, recipe = Verifier(plain.model, plain.feeds[:2]), Recipe((Step("round-weights"), STATIC))
    base, _ = run_recipe(plain.model, Recipe(recipe.steps[:done]), plain.ctx, verifier)
    variants = Variants(base, recipe, plain.ctx, verifier, done=done)
    found = [variants.build(switches) for switches in ([], [Switch(0, ("fc3",))])]
    assert len(calls) == 1
    assert [[unit.name for unit in units] for units in variants.units()] == [ALL]
    assert [floats(variant.model) for variant in found] == [set(), {"fc3"}]
    assert all(variant.recipe.steps[0] == Step("round-weights") for variant in found)
    assert all(recipe_of(variant.model).steps[0] == Step("round-weights") for variant in found)


@pytest.mark.parametrize("step", [DYNAMIC, STATIC])
def test_nothing_left_out_is_the_recipe_itself(chain: Callable[..., Any], step: Step) -> None:
    variant = chain().variants(Recipe((step,))).build(())
    assert variant.recipe == Recipe((step,))
    assert not floats(variant.model)


@pytest.mark.parametrize("step", [DYNAMIC, STATIC])
@pytest.mark.parametrize("out", [("fc3",), ("fc0", "fc7"), tuple(ALL)])
def test_what_is_left_out_stays_float(chain: Callable[..., Any], step: Step, out: tuple[str, ...]) -> None:
    variant = chain().variants(Recipe((step,))).build([Switch(0, out)])
    assert variant.recipe.steps[0].settings["exclude"] == [*out]
    assert floats(variant.model) == set(out)
    assert variant.modified == (len(out) < len(ALL))


def test_what_the_user_excluded_stays_so(chain: Callable[..., Any]) -> None:
    mine = Step("quantize-dynamic", {"exclude": ["fc1"], "min_elements": 100})
    variants = chain().variants(Recipe((mine,)))
    assert [[unit.name for unit in found] for found in variants.units()] == [[n for n in ALL if n != "fc1"]]
    variant = variants.build([Switch(0, ("fc3",))])
    assert dict(variant.recipe.steps[0].settings) == {"exclude": ["fc1", "fc3"], "min_elements": 100}
    assert floats(variant.model) == {"fc1", "fc3"}
    assert mine.settings["exclude"] == ["fc1"]


def test_units_are_listed_by_step_without_the_exact_ones(chain: Callable[..., Any]) -> None:
    plain = chain()
    some = Step("quantize-static", {"anchors": ["MatMul"], "exclude": ["fc4", "fc5"]})
    variants = plain.variants(Recipe((UPGRADE, some, DYNAMIC)))
    static, dynamic = ({unit.name for unit in found} for found in variants.units())
    assert set(ALL) - static == {"fc4", "fc5"} == dynamic
    assert not plain.ctx.skipped


def test_a_switch_belongs_to_one_step(chain: Callable[..., Any]) -> None:
    """What static INT8 leaves, dynamic INT8 may take; what both leave stays float."""
    variants = chain().variants(Recipe((UPGRADE, STATIC, DYNAMIC)))

    def kinds(variant: Variant) -> Counter[str]:
        return Counter(n.op_type for n in variant.model.graph)

    first = variants.build([Switch(0, ("fc4",))])
    assert (kinds(first)["MatMulInteger"], floats(first.model)) == (1, set())
    both = variants.build([Switch(0, ("fc4",)), Switch(1, ("fc4",))])
    assert (kinds(both)["MatMulInteger"], floats(both.model)) == (0, {"fc4"})
    assert [dict(step.settings) for step in both.recipe.steps] == [
        {"minimum": 18},
        {"anchors": ["MatMul"], "exclude": ["fc4"]},
        {"exclude": ["fc4"]},
    ]


def test_variants_do_not_depend_on_each_other(chain: Callable[..., Any]) -> None:
    plain = chain()
    before = serialized(plain.model)
    variants = plain.variants(Recipe((UPGRADE, STATIC)))
    first = serialized(variants.build([Switch(0, ("fc2",))]).model)
    variants.build([Switch(0, ("fc5",))])
    assert serialized(variants.build([Switch(0, ("fc2",))]).model) == first
    assert serialized(plain.model) == before
