"""`sensitivity` on sample models: what is measured, what its result is good for, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import Budget, MetricError, PassError, Recipe, UsageError
from onnxcomp.model import load, size

STRICT = Budget(min_sqnr=40.0)  # what resnet8 in int8 does not keep: 38 dB


def test_its_result_is_what_quantize_takes(data: dict[str, Path], resnet: Path) -> None:
    before = resnet.read_bytes()
    found = onnxcomp.sensitivity(resnet, budget=STRICT, **data)
    assert resnet.read_bytes() == before
    assert found.metric == "top1"
    assert found.exclude
    assert len(found.units) == len(found.together) - 1 == 10
    assert {name for unit in found.units for name in unit.nodes} > set(found.exclude)
    assert found.original_size > found.size == pytest.approx(found.together[0].size)
    judged = [point for point in found.together if point.objection is None and point.quality]
    assert judged[0].quality is not None
    assert judged[0].quality.sqnr >= 40
    result = onnxcomp.quantize(resnet, mode="static", exclude=found.exclude, bench=False, **data)
    assert result.report.quality.sqnr >= 40
    assert size(result.model) == pytest.approx(judged[0].size, rel=0.02)
    recipe = Recipe.from_toml(found.recipe)
    assert tuple(recipe.steps[-1].settings["exclude"]) == found.exclude


def test_excluded_nodes_are_no_units(data: dict[str, Path], resnet: Path) -> None:
    every = onnxcomp.sensitivity(resnet, time_budget=1e-6, **data)
    first = every.units[0]
    rest = onnxcomp.sensitivity(resnet, exclude=first.nodes, method="mmse", time_budget=1e-6, **data)
    assert first.name not in {unit.name for unit in rest.units}
    assert list(first.nodes) == Recipe.from_toml(rest.technique).steps[-1].settings["exclude"]
    assert 'method = "mmse"' in rest.technique
    assert rest.cut_short
    assert any("--time-budget" in note for note in rest.notes)


def test_statistics_in_the_place_of_samples(data: dict[str, Path], resnet: Path) -> None:
    statistics = onnxcomp.calibrate(resnet, calibration=data["calibration"]).statistics
    found = onnxcomp.sensitivity(resnet, statistics=statistics, eval=data["eval"])
    assert found.statistics == statistics.created
    assert found.exclude == ()
    assert any("which judge as well" in note for note in found.notes)


def test_without_data_dynamic_is_compared(dense: Path) -> None:
    found = onnxcomp.sensitivity(dense)
    assert "quantize-dynamic" in found.technique
    assert found.calibration is None
    assert all(unit.step == "quantize-dynamic" for unit in found.units)
    assert sum(unit.bytes for unit in found.units) == pytest.approx(found.original_size - found.size, rel=0.05)


def test_a_pass_by_its_name_and_a_recipe_are_the_same(dense: Path) -> None:
    recipe = Recipe.from_toml('schema_version = 1\n[[pass]]\nname = "quantize-dynamic"\n')
    by_name, by_recipe = (
        onnxcomp.sensitivity(dense, mode="quantize-dynamic"),
        onnxcomp.sensitivity(dense, recipe=recipe),
    )
    assert by_name.technique == by_recipe.technique == recipe.to_toml()
    noise = [{unit.name: unit.noise for unit in found.units} for found in (by_name, by_recipe)]
    assert noise[0] == noise[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "magic"}, "unknown mode 'magic'"),
        ({"mode": "fold-bias"}, "unknown mode 'fold-bias'"),
        ({"mode": "static"}, "calibration"),
        ({"mode": "static", "recipe": Recipe()}, "a recipe says itself"),
        ({"mode": "dynamic", "method": "mmse"}, "no --method"),
        ({"mode": "dynamic", "exclude": "name"}, "lists of names"),
        ({"mode": "dynamic", "exclude": ["no-such-node"]}, "no-such-node"),
        ({"recipe": Recipe()}, "no lossy pass"),
        ({"goal": "beauty"}, "beauty"),
        ({"target": "abacus"}, "abacus"),
        ({"target": "cpu-arm"}, "this machine is"),
        ({"threads": -1}, "threads"),
        ({"time_budget": 0}, "time-budget"),
        ({"budget": Budget(max_size=5)}, "size and latency"),
        ({"synthetic_calibration": True, "method": "guess"}, "guess"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(dense: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        onnxcomp.sensitivity(dense, **arguments)
    assert caught.value.exit_code == 2
    assert caught.value.hint or "must" in str(caught.value)


def test_a_metric_without_labels(data: dict[str, Path], dense: Path) -> None:
    with pytest.raises(MetricError, match="labels"):
        onnxcomp.sensitivity(dense, eval=data["calibration"], metric="top1")


def test_nothing_to_rewrite(parse: Callable[..., onnx.ModelProto]) -> None:
    model = parse("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", {"w": np.eye(4)}).SerializeToString()
    with pytest.raises(PassError, match="too small to pay") as caught:
        onnxcomp.sensitivity(model)
    assert caught.value.exit_code == 3


def test_nodes_without_names(parse: Callable[..., onnx.ModelProto]) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64))
    text = "g (float[N, 64] x) => (float[N, 64] y) { h = MatMul(x, w) a = Relu(h) y = MatMul(a, w) }"
    found = onnxcomp.sensitivity(load(parse(text, {"w": weight}).SerializeToString()))
    assert len(found.units) == 2
    assert sum(unit.bytes for unit in found.units) > 2 * 64 * 64
    assert all(unit.seconds_before > 0 for unit in found.units)


def test_progress_and_renderings(data: dict[str, Path], resnet: Path) -> None:
    seen: list[str] = []
    found = onnxcomp.sensitivity(resnet, budget=STRICT, progress=lambda stage, _share: seen.append(stage), **data)
    stages = list(dict.fromkeys(stage.partition(":")[0] for stage in seen))
    assert stages[:2] == ["verify", "clean up"]
    assert {"calibrate", "profile", "measure the harm", "judge units alone"} <= set(stages)
    name = found.units[0].name
    text, markdown, content = found.render(), found.markdown(), json.loads(found.to_json())
    for rendered in (text, markdown):
        assert name in rendered
        assert "left out in this order" in rendered
    assert [unit["name"] for unit in content["units"]] == [unit.name for unit in found.units]
    assert content["exclude"] == list(found.exclude or ())
