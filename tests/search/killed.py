"""Runs `optimize` with made-up times in a process that kills itself.

Its arguments: MODEL CALIBRATION EVAL WORK_DIR OUTPUT, and how many results are kept when it does; 0: never.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxcomp
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.search import race


def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
    # variants of one candidate, raced among themselves, are all alike: which are tried depends on real times of nodes
    apart = baseline == "original"
    found = {name: 0.5 + 0.001 * (len(name) % 7) if apart else 1.0 for name in contenders if name != baseline}
    timings = [
        Timing(name, 0.001 * ratio, 0.002, 0.003, 10, 0.001 * ratio)
        for name, ratio in ({baseline: 1.0} | found).items()
    ]
    bounds = {name: Ratio(ratio, ratio * 0.999, ratio * 1.001) for name, ratio in found.items()}
    return Comparison(tuple(timings), bounds, rounds=10, seconds=9.0, settled=True)


def main() -> None:
    model, calibration, evaluation, work_dir, output = map(Path, sys.argv[1:6])
    kill_at = int(sys.argv[6])

    def progress(stage: str, _share: float | None) -> None:
        print(stage, flush=True)
        if kill_at and len(list(work_dir.glob("*-*.json"))) >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    race.interleave = interleave  # type: ignore[assignment]
    result = onnxcomp.optimize(
        model,
        calibration=calibration,
        eval=evaluation,
        time_budget=3000,
        work_dir=work_dir,
        progress=progress,
    )
    result.save(output)
    output.with_suffix(".json").write_text(result.report.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
