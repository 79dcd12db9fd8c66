"""Fixtures for the verbs: a sample model with 100 images of data, made-up times so that every machine decides alike."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.search import race


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make up the time of everything that is timed, as a share of the baseline's; each contender still runs once."""

    def pretend(ratio: float) -> None:
        def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
            for run in contenders.values():
                run()
            seconds = {name: 0.001 * (1 if name == baseline else ratio) for name in contenders}
            timings = [Timing(name, s, 0.1, 0.1, 10, s) for name, s in seconds.items()]
            found = {name: Ratio(ratio, ratio * 0.999, ratio * 1.001) for name in contenders if name != baseline}
            return Comparison(tuple(timings), found, rounds=10, seconds=9.0, settled=True)

        monkeypatch.setattr(race, "interleave", interleave)

    pretend(0.5)
    return pretend


@pytest.fixture
def dense(sample_models: Path) -> Path:
    """A model of matrix products alone."""
    return sample_models / "lenet_300_100" / "model.onnx"
