"""`onnxcomp passes`, and the page on recipes."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

from onnxcomp import Recipe, registry
from onnxcomp.cli.app import build_app, run

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_what_a_pass_shows_is_a_recipe_of_its_defaults(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(build_app(), ["passes", name]) == 0
    shown = capfd.readouterr().out
    table = shown[shown.index("[[pass]]") :]
    (step,) = Recipe.from_toml(f"schema_version = 1\n{table}").steps
    found = registry.pass_class(name)
    assert step.make().config == found.Config()


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_setting_is_explained_with_its_type(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(build_app(), ["passes", name]) == 0
    shown = capfd.readouterr().out
    for field in dataclasses.fields(registry.pass_class(name).Config):
        assert re.search(rf"^  {field.name} \([a-z0-9' -]+\): \w.{{10,}}", shown, re.MULTILINE), field.name


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_the_recipes_of_the_page_are_some(text: str) -> None:
    recipe = Recipe.from_toml(text)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_the_first_python_of_the_page_runs() -> None:
    code, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "recipes.md", "exec"), {})
    assert "min_elements = 4096" in printed.getvalue()
