from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from onnxcomp import registry
from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Pass
from onnxcomp.passes.cleanup.bias import FoldBias
from onnxcomp.recipe import Recipe, Step


class Foreign(FoldBias):
    """A pass from another package."""

    name: ClassVar[str] = "foreign"


def offer(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    """Let other packages offer passes."""
    found = [EntryPoint(name.replace("_", "-"), place, "onnxcomp.passes") for name, place in places.items()]

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in found if point.group == group]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_our_own(name: str) -> None:
    found = registry.pass_class(name)
    assert issubclass(found, Pass)
    assert found.name == name
    assert isinstance(found.exact, bool)
    assert name in registry.names()


def test_a_pass_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, foreign=f"{__name__}:Foreign")
    assert registry.pass_class("foreign") is Foreign
    assert registry.names() == (*registry.BUILT_IN, "foreign")
    assert isinstance(Recipe((Step("foreign"),)).steps[0].make(), Foreign)


def test_ours_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, fold_bias=f"{__name__}:Foreign")
    assert registry.pass_class("fold-bias") is FoldBias
    assert registry.names().count("fold-bias") == 1


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("no_such_package.module:Pass", "can't be loaded"),
        ("onnxcomp.errors:NoSuchClass", "can't be loaded"),
        ("onnxcomp.errors:ModelError", "is not a Pass"),
        ("onnxcomp.errors:__all__", "is not a Pass"),
    ],
)
def test_packages_that_are_broken(monkeypatch: pytest.MonkeyPatch, place: str, match: str) -> None:
    offer(monkeypatch, foreign=place)
    with pytest.raises(RecipeError, match=match):
        registry.pass_class("foreign")


def test_an_unknown_name_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, foreign=f"{__name__}:Foreign")
    with pytest.raises(RecipeError, match="no pass 'quantise'") as caught:
        registry.pass_class("quantise")
    assert "quantize-static" in str(caught.value.hint)
    assert "foreign" in str(caught.value.hint)
