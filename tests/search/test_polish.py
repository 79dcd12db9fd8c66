"""Polish, on made-up variants whose times and sizes are known, and on a real one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.measure import Comparison, Ratio
from onnxcomp.model import size as size_of
from onnxcomp.passbase import Unit
from onnxcomp.pipeline import PassReport
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.polish import polish
from onnxcomp.search.variants import Switch, Variant


def compared(ratios: dict[str, float], noise: float = 0.001) -> Comparison:
    bounds = {name: Ratio(ratio, ratio - noise, ratio + noise) for name, ratio in ratios.items()}
    return Comparison((), bounds, rounds=10, seconds=0.1, settled=True)


@dataclass
class MadeUp:
    """Variants whose model is the set of float nodes; ``gain`` is what a node in float saves of the whole time."""

    gain: dict[str, float]
    grows: dict[str, float] = field(default_factory=dict)
    useless: frozenset[str] = frozenset()  # left out, they leave nothing to do
    noise: float = 0.001
    races: list[set[str]] = field(default_factory=list)

    def units(self) -> list[list[Unit]]:
        return [[Unit(name, "Conv", (name,)) for name in self.gain], []]

    def build(self, switches: Iterable[Switch]) -> Variant:
        floats = frozenset(name for switch in switches for name in switch.nodes)
        report = PassReport("p", modified=not floats & self.useless)
        return Variant(floats, (report,), Recipe())  # type: ignore[arg-type]

    def size(self, model: Any) -> int:
        return int(1000 * (1 + sum(self.grows.get(name, 0) for name in model)))

    def time(self, model: Any) -> float:
        return 1 - sum(self.gain[name] for name in model)

    def race(self, models: dict[str, Any]) -> Comparison:
        self.races.append(set(models))
        assert next(iter(models)) == "all"
        assert models["all"] == frozenset()
        return compared({name: self.time(m) for name, m in models.items() if name != "all"}, self.noise)

    def polish(self, float_times: dict[str, float], integer_times: dict[str, float]) -> set[str] | None:
        found = polish(
            self,  # type: ignore[arg-type]
            float_times=float_times,
            integer_times=integer_times,
            size=self.size,
            race=self.race,
        )
        if found is None:
            return None
        variant, switches = found
        names = {name for switch in switches for name in switch.nodes}
        assert variant.model == names
        return names


gains = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([-0.05, -0.001, 0.0, 0.003, 0.01, 0.05]))


@given(gains)
def test_gives_back_the_nodes_that_pay_and_no_others(gain: dict[str, float]) -> None:
    made_up = MadeUp(gain)
    alike = dict.fromkeys(gain, 1.0)
    paying = {name for name, saved in gain.items() if saved >= 0.01}
    assert made_up.polish(alike, alike) == (paying or None)
    assert len(made_up.races) == bool(gain) + bool(paying)


def test_only_suspects_are_timed() -> None:
    """A node that became much faster in integers is none, nor is one that a profile does not know."""
    made_up = MadeUp(dict.fromkeys("abcd", 0.05))
    floats = {"a": 1.0, "b": 1.0, "c": 1.0}
    integers = {"a": 0.3, "b": 0.9, "d": 0.9}
    assert made_up.polish(floats, integers) == {"b"}
    assert made_up.races == [{"all", "b"}, {"all", "together"}]


@pytest.mark.parametrize(("floats", "integers"), [({}, {}), ({"a": 1.0}, {"a": 0.5}), ({"a": 1.0}, {"b": 1.0})])
def test_without_suspects_nothing_is_timed(floats: dict[str, float], integers: dict[str, float]) -> None:
    made_up = MadeUp({"a": 0.5, "b": 0.5})
    assert made_up.polish(floats, integers) is None
    assert not made_up.races


def test_late_no_suspect_is_built() -> None:
    made_up = MadeUp({"a": 0.5})
    found = polish(
        made_up,  # type: ignore[arg-type]
        float_times={"a": 1.0},
        integer_times={"a": 1.0},
        size=made_up.size,
        race=made_up.race,
        late=lambda: True,
    )
    assert found is None
    assert not made_up.races


def test_of_many_suspects_those_that_take_longest_are_timed() -> None:
    names = [f"n{i}" for i in range(30)]
    made_up = MadeUp(dict.fromkeys(names, 0.01))
    times = {name: float(i) + 1 for i, name in enumerate(names)}
    assert made_up.polish(times, times) == set(names[-10:])


def test_time_saved_must_outweigh_the_space_it_costs() -> None:
    made_up = MadeUp({"a": 0.05, "b": 0.05, "c": 0.05, "d": 0.0}, grows={"a": 0.04, "b": 0.2, "c": -0.2, "d": -0.2})
    alike = dict.fromkeys("abcd", 1.0)
    assert made_up.polish(alike, alike) == {"a", "c"}  # b grows more than it saves; d saves no time


def test_an_uncertain_gain_is_none() -> None:
    alike = {"a": 1.0}
    assert MadeUp({"a": 0.05}, noise=0.1).polish(alike, alike) is None
    alike = dict.fromkeys("ab", 1.0)
    assert MadeUp({"a": 0.05, "b": 0.006}, noise=0.01).polish(alike, alike) == {"a"}


def test_what_pays_alone_may_not_pay_together() -> None:
    class Contrary(MadeUp):
        def time(self, model: Any) -> float:
            return 0.9 if len(model) == 1 else 1.1

    alike = dict.fromkeys("ab", 1.0)
    assert Contrary(alike).polish(alike, alike) is None
    assert Contrary({"a": 1.0}).polish(alike, alike) == {"a"}


def test_variants_that_leave_nothing_are_not_timed() -> None:
    made_up = MadeUp({"a": 0.5, "b": 0.1}, useless=frozenset("a"))
    alike = dict.fromkeys("ab", 1.0)
    assert made_up.polish(alike, alike) == {"b"}
    assert made_up.races[0] == {"all", "b"}


def test_a_real_candidate(chain: Callable[..., Any]) -> None:
    recipe = Recipe((Step("quantize-dynamic", {"exclude": ["fc1"]}),))
    times = {f"fc{i}": 1.0 for i in range(8)}

    def race(models: dict[str, Any]) -> Comparison:
        return compared({name: 0.5 if name in ("fc2", "together") else 1.0 for name in models if name != "all"})

    found = polish(
        chain().variants(recipe), float_times=times, integer_times=times | {"fc7": 0.1}, size=size_of, race=race
    )
    assert found is not None
    variant, switches = found
    assert switches == [Switch(0, ("fc2",))]
    assert variant.recipe == Recipe((Step("quantize-dynamic", {"exclude": ["fc1", "fc2"]}),))
    assert {n.name for n in variant.model.graph if n.op_type == "MatMul"} == {"fc1", "fc2"}
