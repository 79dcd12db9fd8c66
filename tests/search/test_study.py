"""What units harm and save, on a chain of layers of which some do not survive 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp import registry
from onnxcomp.errors import PassError, UsageError
from onnxcomp.passbase import Pass, PassContext, PassStats, Unit
from onnxcomp.pipeline import run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search import Study, Task, savings, study
from onnxcomp.target import Budget

STATIC = Step("quantize-static", {"anchors": ["MatMul"], "method": "percentile"})
DYNAMIC = Step("quantize-dynamic")
LAYERS = [f"fc{i}" for i in range(8)]


def run(case: Any, *steps: Step, **changes: Any) -> Study:
    samples = case.ctx.samples
    settings: dict[str, Any] = {
        "task": Task(samples),
        "calibration": samples,
        "budget": Budget(min_agreement=0.0, min_sqnr=20.0),
        "goal": "latency",
        "threads": 1,
        "time_budget": 600.0,
        "progress": lambda _stage, _share: None,
    }
    return study(case.model, case.model, Recipe(steps), case.ctx, **settings | changes)


@pytest.mark.parametrize("step", [STATIC, DYNAMIC], ids=lambda step: step.name)
def test_the_harmful_layer_is_found_alone_and_together(chain: Callable[..., Any], step: Step) -> None:
    case = chain(5)
    found = run(case, step)
    by_name = {unit.name: unit for unit in found.units}
    assert sorted(by_name) == LAYERS
    assert max(found.units, key=lambda unit: unit.noise).name == "fc5"
    assert by_name["fc5"].sqnr < 3
    assert all(unit.sqnr > 20 for name, unit in by_name.items() if name != "fc5")
    assert all(unit.step == step.name for unit in found.units)
    assert found.exclude == by_name["fc5"].nodes
    assert by_name["fc5"].quality is not None
    assert by_name["fc5"].quality.sqnr < 3
    assert [point.units for point in found.together] == list(range(9))
    assert found.together[0].objection is not None
    assert (found.together[1].last, found.together[1].objection) == ("fc5", None)
    assert found.together[1].quality is not None
    assert found.together[1].quality.sqnr >= 20
    assert found.together[-1].bytes == 0
    assert found.together[0].bytes == sum(unit.bytes for unit in found.units)


def test_the_recipe_keeps_the_budget(chain: Callable[..., Any]) -> None:
    case = chain(2, 5)
    found = run(case, STATIC)
    assert found.exclude is not None
    assert {"fc2", "fc5"} <= set(found.exclude)
    assert len(found.exclude) < len(LAYERS)
    model, _ = run_recipe(case.model, found.recipe, case.ctx, case.variants(Recipe()).verifier)
    assert case.sqnr(model) >= 19


def test_units_come_in_the_order_of_harm_per_saving(chain: Callable[..., Any]) -> None:
    found = run(chain(5), DYNAMIC, goal="size")
    assert [unit.harm for unit in found.units] == sorted((unit.harm for unit in found.units), reverse=True)
    for unit in found.units:
        assert unit.harm == pytest.approx(unit.noise / (unit.bytes / 1e6))
    assert found.units[0].name == "fc5"


@pytest.mark.parametrize("goal", ["latency", "balanced"])
def test_what_saves_nothing_comes_first(chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, goal: str) -> None:
    def times(model: Any, _feed: Any, **_: Any) -> dict[str, float]:
        if len(model.graph) == 2 * len(LAYERS):
            return dict.fromkeys(LAYERS, 10.0)
        return {**dict.fromkeys(LAYERS, 1.0), "fc6": 50.0}

    monkeypatch.setattr(savings, "node_times", times)
    monkeypatch.setattr(savings, "node_bytes", lambda _: {})
    found = run(chain(), STATIC, goal=goal)
    assert (found.units[0].name, found.units[0].harm) == ("fc6", float("inf"))


def test_nothing_is_left_out_where_the_budget_is_kept(chain: Callable[..., Any]) -> None:
    found = run(chain(), STATIC)
    assert found.exclude == ()
    assert found.recipe == Recipe((STATIC,))
    assert found.together[0].objection is None


def test_no_choice_may_be_enough(chain: Callable[..., Any]) -> None:
    found = run(chain(), STATIC, budget=Budget(min_sqnr=500))
    assert found.exclude is None
    assert found.recipe == Recipe((STATIC,))


def test_steps_are_told_apart(chain: Callable[..., Any]) -> None:
    found = run(chain(5), Step(STATIC.name, {**STATIC.settings, "exclude": ["fc5", "act5"]}), DYNAMIC)
    assert {unit.name: unit.step for unit in found.units}["fc5"] == DYNAMIC.name
    assert {unit.name: unit.step for unit in found.units}["fc1"] == STATIC.name
    assert found.exclude is not None
    assert "fc5" in found.exclude


def test_late_measures_every_unit_once_and_judges_no_more(chain: Callable[..., Any]) -> None:
    found = run(chain(5), STATIC, time_budget=1e-9)
    assert found.cut_short
    assert sorted(unit.name for unit in found.units) == LAYERS
    assert all(unit.quality is None for unit in found.units)


@dataclass(frozen=True, slots=True)
class CoarseConfig:
    exclude: tuple[str, ...] = ()


class Coarse(Pass[CoarseConfig]):
    """Round weights to a few levels: a pass of someone else's, of which only the units are known."""

    name: ClassVar[str] = "coarse"
    Config = CoarseConfig
    exact: ClassVar[bool] = False

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        return [Unit(str(n.name), n.op_type, (str(n.name),)) for n in model.graph if n.op_type == "MatMul"]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        left = [n for n in model.graph if n.op_type == "MatMul" and n.name not in self.config.exclude]
        for node in left:
            value = node.inputs[1]
            weight = value.const_value.numpy()
            levels = 1 if node.name == "fc4" else 1000
            step = np.abs(weight).max() / levels
            value.const_value = ir.tensor((np.round(weight / step) * step).astype(np.float32), name=value.name)
        return PassStats(modified=bool(left))


class Silent(Coarse):
    """The same without units."""

    name: ClassVar[str] = "silent"

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        return []


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {"coarse": f"{__name__}:Coarse", "silent": f"{__name__}:Silent"}
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, **added})


@pytest.mark.usefixtures("others")
def test_a_pass_of_someone_else(chain: Callable[..., Any]) -> None:
    found = run(chain(), Step("coarse"))
    assert max(found.units, key=lambda unit: unit.noise).name == "fc4"
    assert all(unit.bytes == 0 for unit in found.units)
    assert all(point.sqnr is None for point in found.together)  # it offers no simulation
    assert found.exclude == ("fc4",)


@pytest.mark.usefixtures("others")
def test_a_pass_without_units(chain: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="no pass has units to compare: silent"):
        run(chain(), Step("silent"))


def test_nothing_to_rewrite(chain: Callable[..., Any]) -> None:
    with pytest.raises(PassError, match="8 excluded"):
        run(chain(), Step("quantize-dynamic", {"exclude": LAYERS}))
    with pytest.raises(PassError, match="no such operators"):
        run(chain(), Step("quantize-dynamic", {"ops": ["LSTM"]}))
