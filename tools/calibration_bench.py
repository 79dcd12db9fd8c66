"""Times our calibration beside onnxruntime's own: seconds and memory, for few and for many samples.

    python tools/calibration_bench.py ZOO_DIR/NAME [--samples 16 64 256] [--repeats 3] [--skip NAME ...] [--json FILE]

Contenders: ``onnxcomp, all methods`` is one run over the samples, then all methods of `onnxcomp.thresholds` for every
tensor; the others are one method each of `onnxruntime.quantization`, with the operator types of its `quantize_static`,
on the model as its preprocessing leaves it (ours is cleaned up as `optimize` does it). Neither preparation counts;
opening sessions does. Where there are fewer samples than asked for, they are repeated; none are left out.

Every measurement is taken in a fresh process, all contenders in turn, --repeats times; medians count. ``above MB`` is
the peak of the resident set during calibration, above the resident set before it. ``against MinMax`` is the ratio of
seconds to onnxruntime's MinMax at the same number of samples.
Also shown: the time of each of our solvers on a histogram of 2048 bins (Gauss, Laplace, ReLU of Gauss; the median).

Exit code: 0 done, 1 our calibration failed, 2 wrong usage. Linux only, for the memory.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo_folder import ZooModel, read_model
from zoo_job import run_job, serve
from zoo_tables import Table, circumstances, number

from onnxcomp.errors import UsageError
from onnxcomp.thresholds import METHODS, Grid, Histogram, Range, solve

__all__ = ["main", "solve_times"]

SCHEMA_VERSION = 1
OURS = "onnxcomp, all methods"
_BASE = "onnxruntime MinMax"
_NAMES = (OURS, _BASE, "onnxruntime Percentile", "onnxruntime Entropy")
_TITLES = ("contender", "samples", "tensors", "s", "spread s", "against MinMax", "processor s", "above MB")
_BINS = 2048


def measure_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Take one measurement; runs in the worker process."""
    import calibration_probe

    return calibration_probe.measure(job["contender"], Path(job["model"]), Path(job["data"]), job["count"])


def measure_all(entry: ZooModel, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Take all measurements: contenders in turn, so that what disturbs one disturbs all."""
    names = [name for name in _NAMES if name not in args.skip]
    rows = [
        {"contender": name, "count": count, "repeats": [], "error": None} for count in args.samples for name in names
    ]
    for repeat in range(args.repeats):
        for row in rows:
            if row["error"]:
                continue
            print(f"{row['contender']}, {row['count']} samples, repeat {repeat + 1}", file=sys.stderr, flush=True)
            job = {"model": str(entry.model), "data": str(entry.calibration)}
            done = run_job(__file__, {**job, "contender": row["contender"], "count": row["count"]})
            row["error"] = done.error
            if done.value is not None:
                row["repeats"].append(done.value)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return what the measurements show."""
    base = {row["count"]: _median(row, "seconds") for row in rows if row["contender"] == _BASE and not row["error"]}
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["contender"], str(row["count"]), *["-"] * 5, f"FAILED: {row['error']}"])
            continue
        seconds = [repeat["seconds"] for repeat in row["repeats"]]
        median = statistics.median(seconds)
        cells.append(
            [
                row["contender"],
                str(row["count"]),
                str(row["repeats"][0]["tensors"]),
                f"{median:.2f}",
                f"{max(seconds) - min(seconds):.2f}",
                number(median / base[row["count"]] if row["count"] in base else None, 2),
                f"{_median(row, 'cpu_seconds'):.2f}",
                f"{_median(row, 'above') / 1e6:.0f}",
            ]
        )
    return Table(_TITLES, cells)


def solve_times(repeats: int = 20, seed: int = 0) -> dict[str, float]:
    """Return the median seconds that each method takes for one histogram of 2048 bins.

    Args:
        repeats: For each of the distributions.
        seed: Of the values.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for values in (rng.normal(size=100_000), rng.laplace(size=100_000), rng.normal(size=100_000).clip(0)):
        extremes = Range(float(values.min()), float(values.max()))
        start = min(extremes.low, 0.0)
        width = (extremes.high - start) / _BINS
        counts = np.histogram(values, _BINS, (start, extremes.high))[0].astype(np.int64)
        histogram = Histogram(counts, start, width, extremes, extremes)
        for method, seconds in found.items():
            for _ in range(repeats):
                begin = time.perf_counter()
                solve(method, histogram, Grid())
                seconds.append(time.perf_counter() - begin)
    return {method: statistics.median(seconds) for method, seconds in found.items()}


def _median(row: dict[str, Any], key: str) -> float:
    return float(statistics.median(repeat[key] for repeat in row["repeats"]))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Calibration beside onnxruntime's: time and memory.")
    parser.add_argument("folder", type=Path, metavar="ZOO_DIR/NAME", help="a model folder with calibration data")
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 64, 256], metavar="N", help="default: 16 64 256")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of each measurement; default: 3")
    parser.add_argument("--skip", nargs="+", default=[], choices=_NAMES[1:], metavar="NAME", help="leave these out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    args = parser.parse_args(argv)
    if min(args.samples) < 1 or args.repeats < 1:
        parser.error("--samples and --repeats must be 1 or more")
    return args


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, measure_in_worker)
    if served is not None:
        return served
    args = parse(argv)
    try:
        entry = read_model(args.folder)
        if entry.calibration is None:
            raise UsageError(f"{args.folder} has no calibration data")
    except UsageError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    rows = measure_all(entry, args)
    solvers = solve_times()
    if args.json:
        content = {"schema_version": SCHEMA_VERSION, **circumstances(), "model": entry.name, "measurements": rows}
        text = json.dumps({**content, "solve_seconds": solvers}, indent=2, allow_nan=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    print(table(rows).text(), end="")
    print(Table(("solver", "ms per tensor"), [[name, f"{1e3 * s:.2f}"] for name, s in solvers.items()]).text(), end="")
    return 1 if any(row["error"] for row in rows if row["contender"] == OURS) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
