"""The front: what is on it, what is written, and that a recipe of it makes the same model again."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxcomp
from onnxcomp import Budget, GateFailed, OutputError, Recipe
from onnxcomp.cli.app import build_app, run
from onnxcomp.search.front import non_dominated, told_apart

points = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(*[st.integers(0, 4)] * 3), max_size=12)


@given(points)
def test_the_front_has_all_that_nothing_beats_and_nothing_else(made: dict[str, tuple[float, ...]]) -> None:
    front = non_dominated(made)
    assert len({made[name] for name in front}) == len(front)  # of equal ones one
    for name, point in made.items():
        better = [other for other in made.values() if other != point and all(map(float.__le__, *floats(other, point)))]
        assert (point in {made[one] for one in front}) == (not better), name


@given(points)
def test_what_is_apart_stays(made: dict[str, tuple[float, ...]]) -> None:
    front = {name: made[name] for name in non_dominated(made)}
    assert told_apart(front) == list(front)  # small whole numbers are never a tie


def test_a_byte_less_is_no_other_model() -> None:
    made = {"a": (1000.0, 0.5, 0.01), "b": (999.0, 0.505, 0.02), "c": (980.0, 0.5, 0.02), "d": (1000.0, 0.4, 0.02)}
    assert told_apart(made) == ["a", "c", "d"]


def floats(*made: tuple[float, ...]) -> list[list[float]]:
    return [[float(value) for value in point] for point in made]


def call(*words: object) -> int:
    return run(build_app(), [str(word) for word in words])


@pytest.mark.parametrize("strict", [False, True])
def test_a_recipe_of_the_front_makes_the_same_bytes(
    times: Callable[..., None], data: Any, resnet: Path, tmp_path: Path, strict: bool
) -> None:
    times(other=0.5, static=0.6, cleanup=0.3)
    folder = tmp_path / "front"
    budget = Budget(min_sqnr=45 if strict else None)
    result = onnxcomp.optimize(resnet, **data, budget=budget, pareto=folder)
    front = result.report.outcome.front
    assert front is not None
    assert "cleanup" in {one.name for one in front}
    assert len(front) > 1
    assert bool([one for one in front if one.missed]) == strict
    names = {name for one in front for name in (one.model_file, one.recipe_file)}
    assert {path.name for path in folder.iterdir()} == names
    for one in front:
        words = [*(["--min-sqnr", 45] if strict and not one.missed else []), *shlex.split(one.options)]
        asked = ["--calibration", data["calibration"], "--eval", data["eval"], "--recipe", folder / one.recipe_file]
        times(other=one.latency.ratio if one.latency else 1, cleanup=0.3 if one.name == "cleanup" else 1.0)
        again = tmp_path / "again.onnx"
        assert call("optimize", resnet, *asked, *words, "-o", again, "--overwrite", "-q") == 0
        assert again.read_bytes() == (folder / one.model_file).read_bytes(), one.name
        text = (folder / one.recipe_file).read_text()
        assert Recipe.from_toml(text).to_toml() == one.recipe
        assert all(f"# {miss}" in text for miss in one.missed)
    for text in (str(result.report), result.report.markdown()):
        for one in front:
            assert one.model_file in text
            assert ("; ".join(one.missed) or "inside the budget") in text
    written = result.report.to_dict()["front"]
    assert [one["model_file"] for one in written] == [one.model_file for one in front]


def test_the_report_s_recipe_makes_the_same_bytes(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    """It begins with the clean-up, which is done anyway."""
    times(other=0.6, static=0.4, cleanup=0.9)
    first = onnxcomp.optimize(resnet, **data)
    assert first.report.outcome.winner == "static"
    first.save(tmp_path / "first.onnx")
    second = onnxcomp.optimize(resnet, **data, recipe=Recipe.from_toml(first.report.recipe))
    second.save(tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_the_front_is_written_where_the_budget_is_missed(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    times(other=0.5, static=0.4)
    folder = tmp_path / "front"
    with pytest.raises(GateFailed, match="nearest: ") as caught:
        onnxcomp.optimize(resnet, **data, budget=Budget(max_latency_ratio=0.2, max_drop=0.05), pareto=folder)
    report: Any = caught.value.report
    nearest = report.outcome.nearest
    assert nearest[0].name == "static"
    assert nearest[0].misses == ("slower than allowed: 0.400 of the original's time, the bound is 0.2",)
    assert len(nearest) == 3
    assert nearest[0].misses[0] in str(report)
    assert nearest[0].misses[0] in report.markdown()
    assert report.outcome.front
    assert all("slower than allowed" in one.missed[0] for one in report.outcome.front)
    assert (folder / "static.onnx").is_file()


def test_folders_that_can_t_be_used(data: Any, resnet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("")
    for folder in (tmp_path / "file", full, tmp_path / "a" / "b"):
        assert call("optimize", resnet, "--pareto", folder, "-q") == 2
    with pytest.raises(OutputError, match="does not exist"):
        onnxcomp.optimize(resnet, pareto=tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
