"""A report of `optimize` on a sample model, as its JSON has it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onnxcomp import optimize
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.search import race


@pytest.fixture(scope="session")
def found(sample_models: Path, data: dict[str, Path]) -> dict[str, Any]:
    """Optimized with made-up times: half of the original's for all candidates."""

    def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
        steps = tuple(0.001 + 0.0001 * step for step in range(20))
        timings = tuple(Timing(name, 0.002, 0.003, 0.004, 20, 0.001, steps) for name in contenders)
        ratios = {name: Ratio(0.5, 0.499, 0.501) for name in contenders if name != baseline}
        return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race, "interleave", interleave)
        path = sample_models / "resnet8" / "model.onnx"
        made = optimize(path, calibration=data["calibration"], eval=data["eval"], techniques=["static"], time_budget=1)
        return made.report.to_dict()
