import importlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.search import race


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up times: half of the original's for all candidates; prune no channels."""
    monkeypatch.setattr(importlib.import_module("onnxcomp.search.optimize"), "prune", lambda *_, **__: ([], None))

    def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
        timings = tuple(Timing(name, 0.001, 0.002, 0.003, 10, 0.001) for name in contenders)
        ratios = {name: Ratio(0.5, 0.499, 0.501) for name in contenders if name != baseline}
        return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=True)

    monkeypatch.setattr(race, "interleave", interleave)
