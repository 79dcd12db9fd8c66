import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp import registry
from onnxcomp.errors import RecipeError
from onnxcomp.recipe import Recipe, Step

HEAD = "schema_version = 1\n"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DYNAMIC = {
    "ops": st.lists(st.sampled_from(["MatMul", "Gemm", "LSTM", "Gather"]), max_size=4),
    "min_elements": st.integers(0, 2**40),
    "exclude": st.lists(texts, max_size=3),
}
STATIC = {
    "anchors": st.lists(st.sampled_from(["Conv", "Gemm", "MatMul"]), max_size=3),
    "per_channel": st.booleans(),
    "exclude": st.lists(texts, max_size=3),
}
steps = st.one_of(
    st.sampled_from(["fold-bias", "fold-constants", "remove-dead-code"]).map(Step),
    st.fixed_dictionaries({}, optional=DYNAMIC).map(lambda settings: Step("quantize-dynamic", settings)),
    st.fixed_dictionaries({}, optional=STATIC).map(lambda settings: Step("quantize-static", settings)),
    st.integers(7, 20).map(lambda minimum: Step("upgrade-opset", {"minimum": minimum})),
)


@given(st.lists(steps, max_size=5))
def test_text_round_trip(made: list[Step]) -> None:
    recipe = Recipe(tuple(made))
    again = Recipe.from_toml(recipe.to_toml())
    assert again == recipe
    assert [step.make().config for step in again.steps] == [step.make().config for step in recipe.steps]
    assert again.to_toml() == recipe.to_toml()


def test_tuples_are_written_as_lists() -> None:
    step = Step("quantize-static", {"anchors": ("Conv",), "exclude": ("a", "b")})
    again = Recipe.from_toml(Recipe((step,)).to_toml())
    assert again.steps[0].make().config == step.make().config


def test_order_and_repeats_are_kept() -> None:
    names = ["remove-dead-code", "fold-bias", "remove-dead-code"]
    text = HEAD + "".join(f'[[pass]]\nname = "{name}"\n' for name in names)
    assert [step.name for step in Recipe.from_toml(text).steps] == names


def test_an_empty_recipe() -> None:
    assert Recipe.from_toml(HEAD) == Recipe()
    assert Recipe.from_toml(Recipe().to_toml()) == Recipe()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("schema_version = ", "not valid TOML"),
        ("", "schema_version must be 1, got None"),
        ("schema_version = 2", "schema_version must be 1, got 2"),
        ('schema_version = "1"', "schema_version must be 1"),
        (HEAD + "passes = []", "unknown key 'passes'"),
        (HEAD + "pass = 3", "list of tables"),
        (HEAD + '[pass]\nname = "fold-bias"', "list of tables"),
        (HEAD + "pass = [1]", "list of tables"),
        (HEAD + "[[pass]]\nanchors = []", "pass 1 has no name"),
        (HEAD + '[[pass]]\nname = "fold-bias"\n[[pass]]\nname = 3', "pass 2 has no name"),
        (HEAD + '[[pass]]\nname = "make-it-good"', "no pass 'make-it-good'"),
        (HEAD + '[[pass]]\nname = "fold-bias"\nstrength = 9', "no setting 'strength'"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nmethod = "magic"', "magic"),
        (HEAD + '[[pass]]\nname = "prune-channels"\ngranularity = 3', "granularity must be 'head' or 'dim', got 3"),
        (HEAD + '[[pass]]\nname = "prune-channels"\nignore = "a"', "ignore must be a list of str, got 'a'"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nanchors = ["Add"]', "'Add' can't be an anchor"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nanchors = "Conv"', "anchors"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nexclude = "conv1"', "exclude"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nexclude = [1]', "exclude"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nper_channel = "no"', "per_channel"),
        (HEAD + '[[pass]]\nname = "quantize-static"\nper_channel = 0', "per_channel"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nops = ["Conv"]', "'Conv' has no dynamic form"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nmin_elements = -1', "min_elements"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nmin_elements = 1.5', "min_elements"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nmin_elements = true', "min_elements"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nmin_elements = "10"', "min_elements"),
        (HEAD + '[[pass]]\nname = "quantize-dynamic"\nops = 3', "ops"),
        (HEAD + '[[pass]]\nname = "upgrade-opset"\nminimum = 99', "minimum"),
    ],
)
def test_what_is_no_recipe(text: str, match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        Recipe.from_toml(text)


def test_steps_are_checked_when_a_recipe_is_made() -> None:
    with pytest.raises(RecipeError, match="no pass") as caught:
        Recipe((Step("nothing"),))
    assert "quantize-static" in str(caught.value.hint)
    with pytest.raises(RecipeError, match="no setting") as caught:
        Recipe((Step("quantize-dynamic", {"depth": 1}),))
    assert "min_elements" in str(caught.value.hint)


def test_reading_files(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    recipe = Recipe((Step("fold-bias"),))
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe
    path.write_text("schema_version = 7", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"r\.toml: schema_version"):
        Recipe.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    for bad in (path, tmp_path, tmp_path / "missing.toml"):
        with pytest.raises(RecipeError, match="cannot read the recipe"):
            Recipe.read(bad)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_defaults_of_every_pass_survive_a_recipe(name: str) -> None:
    config: Any = registry.pass_class(name)().config
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    again = Recipe.from_toml(Recipe((Step(name, settings),)).to_toml())
    assert again.steps[0].make().config == config
