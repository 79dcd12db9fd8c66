"""Timing that knows how fast a model is: what a neighbour slows down for a while is timed again."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.model import load
from onnxcomp.search import race as module
from onnxcomp.search.race import Race


class _Looks:
    """Stands in for `interleave`: each look has the next of some times."""

    def __init__(self, *looks: tuple[float, float], seconds: float = 0.5, settled: bool = True) -> None:
        self._looks = list(looks)
        self._settled = settled
        self._seconds = seconds
        self.taken = 0

    def __call__(self, contenders: dict[str, Callable[[], object]], *, baseline: str, **_: object) -> Comparison:
        times = dict(zip(contenders, self._looks[self.taken], strict=False))
        self.taken += 1
        timings = tuple(Timing(name, taken, taken, taken, 9, taken) for name, taken in times.items())
        width = 0.0 if self._settled else 0.5
        found = {name: taken / times[baseline] for name, taken in times.items() if name != baseline}
        ratios = {name: Ratio(ratio, ratio - width, ratio + width) for name, ratio in found.items()}
        return Comparison(timings, ratios, rounds=15, seconds=self._seconds, settled=self._settled)


@pytest.fixture
def raced(parse: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Comparison]:
    """Time a model after the original was met, without pauses."""
    original = load(parse("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }").SerializeToString())
    other = load(parse("g (float[1,4] x) => (float[1,4] y) { y = Abs(x) }").SerializeToString())

    def run(looks: _Looks, *, late: bool = False) -> Comparison:
        monkeypatch.setattr(module, "interleave", looks)
        monkeypatch.setattr(module, "_PAUSE", 0.0)
        monkeypatch.setattr(module, "_FURTHER", 12)
        feed = {"x": np.zeros((1, 4), np.float32)}
        race = Race(original, feed, threads=1, seed=0, progress=lambda *_: None, late=lambda: late)
        race.meet()
        return race.rough({"other": other})

    return run


def test_a_calm_look_is_taken(raced: Callable[..., Comparison]) -> None:
    looks = _Looks((1.0, 1.0), (1.02, 0.5))
    assert raced(looks).ratios["other"].ratio == pytest.approx(0.5 / 1.02)
    assert looks.taken == 2


def test_a_disturbed_look_is_taken_again(raced: Callable[..., Comparison]) -> None:
    looks = _Looks((1.0, 1.0), (1.2, 0.8), (1.2, 0.8), (1.0, 0.5))
    assert raced(looks).ratios["other"].ratio == 0.5
    assert looks.taken == 4


def test_a_model_alone_may_be_disturbed(raced: Callable[..., Comparison]) -> None:
    looks = _Looks((1.2, 1.0), (1.0, 0.5))
    assert raced(looks).ratios["other"].ratio == 0.5
    assert looks.taken == 2


def test_a_machine_that_stays_slow_is_taken_as_it_is(raced: Callable[..., Comparison]) -> None:
    looks = _Looks((1.0, 1.0), *[(1.2, 0.8)] * 100)
    assert raced(looks).ratios["other"].ratio == pytest.approx(0.8 / 1.2)
    assert looks.taken < 20


def test_a_long_look_needs_no_other(raced: Callable[..., Comparison]) -> None:
    looks = _Looks((1.0, 1.0), (1.2, 0.8), (1.0, 0.5), seconds=60.0)
    raced(looks)
    assert looks.taken == 2


@pytest.mark.parametrize(("late", "taken"), [(False, 3), (True, 2)])
def test_late_intervals_stay_as_wide_as_they_are(raced: Callable[..., Comparison], late: bool, taken: int) -> None:
    looks = _Looks((1.0, 1.0), (1.0, 0.5), (1.0, 0.5), settled=False)
    assert raced(looks, late=late).ratios["other"].ratio == 0.5
    assert looks.taken == taken
