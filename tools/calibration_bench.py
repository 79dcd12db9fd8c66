"""Times our calibration beside onnxruntime's own: seconds and memory, for few and for many samples.

    python tools/calibration_bench.py ZOO_DIR/NAME [--samples 16 64 256] [--repeats 3] [--skip NAME ...] [--json FILE]
                                       [--markdown FILE]

Contenders: ``onnxcomp, all methods`` is one run over the samples, then all methods of `onnxcomp.thresholds` for every
tensor; the others are one method each of `onnxruntime.quantization`, with the operator types of its `quantize_static`,
on the model as its preprocessing leaves it (ours is cleaned up as `optimize` does it). Neither preparation counts;
opening sessions does. Where there are fewer samples than asked for, they are repeated; none are left out.

Every measurement is taken in a fresh process, all contenders in turn, --repeats times; medians count. ``above MB`` is
the peak of the resident set during calibration, above the resident set before it. ``s / MinMax`` and ``s / Percentile``
are the ratios of seconds to onnxruntime's MinMax and Percentile at the same number of samples, ``MB / Percentile`` that
of memory. Nothing else should compute meanwhile; processor seconds, which hold all threads, suffer least where it does.
Also shown: the processor time of each of our solvers on a histogram of 2048 bins (of Gauss, Laplace and ReLU of Gauss
the one that takes longest; the median of its repeats).

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
_MINMAX, _PERCENTILE = "onnxruntime MinMax", "onnxruntime Percentile"
_NAMES = (OURS, _MINMAX, _PERCENTILE, "onnxruntime Entropy")
_RATIOS = (("seconds", _MINMAX), ("seconds", _PERCENTILE), ("above", _PERCENTILE))
_MEASURED = ("contender", "samples", "tensors", "s", "spread s", "processor s", "above MB")
_TITLES = (*_MEASURED, "s / MinMax", "s / Percentile", "MB / Percentile")
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
    done = {(row["contender"], row["count"]): row for row in rows if not row["error"]}
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["contender"], str(row["count"]), *["-"] * (len(_TITLES) - 3), f"FAILED: {row['error']}"])
            continue
        seconds = [repeat["seconds"] for repeat in row["repeats"]]
        bases = [(key, done.get((base, row["count"]))) for key, base in _RATIOS]
        cells.append(
            [
                row["contender"],
                str(row["count"]),
                str(row["repeats"][0]["tensors"]),
                f"{statistics.median(seconds):.2f}",
                f"{max(seconds) - min(seconds):.2f}",
                f"{_median(row, 'cpu_seconds'):.2f}",
                f"{_median(row, 'above') / 1e6:.0f}",
                *(number(_median(row, key) / _median(base, key) if base else None, 2) for key, base in bases),
            ]
        )
    return Table(_TITLES, cells)


def solve_times(repeats: int = 20, seed: int = 0) -> dict[str, float]:
    """Return the processor seconds that each method takes for one histogram of 2048 bins, at the slowest distribution.

    Args:
        repeats: For each of the distributions; their median counts.
        seed: Of the values.
    """
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(METHODS, 0.0)
    for values in (rng.normal(size=100_000), rng.laplace(size=100_000), rng.normal(size=100_000).clip(0)):
        extremes = Range(float(values.min()), float(values.max()))
        start = min(extremes.low, 0.0)
        width = (extremes.high - start) / _BINS
        counts = np.histogram(values, _BINS, (start, extremes.high))[0].astype(np.int64)
        histogram = Histogram(counts, start, width, extremes, extremes)
        for method, slowest in found.items():
            seconds = []
            for _ in range(repeats):
                begin = time.process_time()
                solve(method, histogram, Grid())
                seconds.append(time.process_time() - begin)
            found[method] = max(slowest, statistics.median(seconds))
    return found


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
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write both tables as markdown")
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
    tables = [
        table(rows),
        Table(("solver", "ms per tensor"), [[name, f"{1e3 * s:.2f}"] for name, s in solvers.items()]),
    ]
    if args.markdown:
        args.markdown.write_text("\n".join(shown.markdown() for shown in tables), encoding="utf-8")
    print("\n".join(shown.text() for shown in tables), end="")
    return 1 if any(row["error"] for row in rows if row["contender"] == OURS) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
