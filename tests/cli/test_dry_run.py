"""`optimize --dry-run`, and reports as Markdown."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onnxcomp import Recipe, registry
from onnxcomp.cli.app import build_app, run
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.search import race


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def model(sample_models: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model|1.onnx"
    path.write_bytes((sample_models / "lenet_300_100" / "model.onnx").read_bytes())
    return path


@pytest.fixture
def data(sample_models: Path) -> Path:
    return sample_models / "fashion_mnist"


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a dry run runs no pass")

    monkeypatch.setattr(importlib.import_module("onnxcomp.search.optimize"), "run_recipe", fail)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up times: half of the original's for all candidates."""

    def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
        timings = tuple(Timing(name, 0.001, 0.002, 0.003, 10, 0.001) for name in contenders)
        ratios = {name: Ratio(0.5, 0.499, 0.501) for name in contenders if name != baseline}
        return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=True)

    monkeypatch.setattr(race, "interleave", interleave)


@pytest.mark.usefixtures("no_work")
def test_it_names_data_gates_and_candidates_and_leaves_nothing(
    model: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = [f"--calibration={data / 'calibration.npz'}", f"--eval={data / 'eval.npz'}"]
    report = model.with_name("r.json")
    options = ["--max-size", "1MB", "--max-latency-ratio", "0.5", "--report", report, "--dry-run"]
    assert call("optimize", model, *samples, *options) == 0
    out, err = capfd.readouterr()
    for text in (
        "400 rows",
        "2000 rows",
        "top1 drops by at most 0.01",
        "at most 1.0 MB",
        "at most 0.5 of the original",
    ):
        assert text in out
    assert "quantize-static (method percentile)" in out
    assert err == ""
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.usefixtures("no_work")
def test_its_json_holds_recipes(model: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", model, "--dry-run", "--format", "json") == 0
    without = json.loads(capfd.readouterr().out)
    calibration = f"--calibration={data / 'calibration.npz'}"
    assert call("optimize", model, calibration, "--dry-run", "--format", "json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["kind"] == "plan"
    assert set(found["cleanup"]) <= set(registry.names())
    assert len(found["candidates"]) > len(without["candidates"])
    for candidate in found["candidates"]:
        assert Recipe.from_toml(candidate["recipe"]).steps


@pytest.mark.usefixtures("no_work")
def test_a_recipe_of_ones_own(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = model.with_name("r.toml")
    recipe.write_text('schema_version = 1\n[[pass]]\nname = "quantize-dynamic"\n', encoding="utf-8")
    assert call("optimize", model, "--recipe", recipe, "--dry-run", "-v") == 0
    out = capfd.readouterr().out
    assert " recipe  quantize-dynamic" in out
    assert 'name = "quantize-dynamic"' in out
    assert "static" not in out.replace("static INT8", "")


@pytest.mark.parametrize("wrong", ["--eval=no.npz", "--max-drop=7", "--target=abacus", "--time-budget=0"])
def test_it_fails_where_the_run_would(wrong: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", model, "--dry-run", wrong) == call("optimize", model, wrong) == 2
    first, second = capfd.readouterr().err.split("error: ")[1:]
    assert first == second


@pytest.mark.usefixtures("no_work")
def test_it_tries_the_metric(model: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text("def score(outputs, labels):\n    return outputs[0]['nothing']\n", encoding="utf-8")
    assert call("optimize", model, f"--eval={data / 'eval.npz'}", f"--metric={metric}", "--dry-run") == 2
    assert "the metric 'score' failed: KeyError" in capfd.readouterr().err


def test_disturbances_are_checked_first(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", model, "--perturb", "fog=1", "--dry-run") == 2
    assert "not a disturbance: 'fog=1'" in capfd.readouterr().err
    assert call("optimize", model, "--perturb", "noise", "--bundle", tmp_path / "device") == 2
    assert "leave out --pareto, --work-dir and --perturb" in capfd.readouterr().err


def rows(text: str) -> dict[str, list[str]]:
    cells = [line.replace("\\|", "/").strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in cells}


@pytest.mark.usefixtures("quick")
def test_markdown(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    page, report = model.with_name("page.md"), model.with_name("r.md")
    page.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert call("optimize", model, f"--eval={data / 'eval.npz'}", "--report", report, "-q") == 0
    text = report.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == f"before\n{text}\n"
    assert "model\\|1.onnx" in text
    found = rows(text)
    assert found["size"][2].endswith("x smaller")
    assert found["top1"][0].startswith("0.")
    assert "delivered" in [cells[-1] for cells in found.values()]
    assert {len(cells) for cells in found.values()} == {3, 5}


@pytest.mark.usefixtures("quick")
def test_a_failed_gate_is_on_the_page(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = model.with_name("page.md")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert call("optimize", model, "--max-size", "1kB", "-q") == 1
    assert "no candidate keeps the budget" in page.read_text(encoding="utf-8")


def test_other_results_are_on_the_page_as_text(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = model.with_name("page.md")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert call("inspect", model, "-q") == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("### onnxcomp inspect\n\n```\n model ")
    assert text.endswith("```\n\n")


def test_a_page_that_cannot_be_written(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(model.parent))
    assert call("inspect", model) == 2
    assert "GITHUB_STEP_SUMMARY" in capfd.readouterr().err
