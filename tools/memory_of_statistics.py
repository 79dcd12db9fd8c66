"""Measures how much memory the collection of calibration statistics takes, for few and for many samples.

    python tools/memory_of_statistics.py ZOO_DIR/NAME [--samples 16 64 256] [--big-mb 500] [--json FILE]

Every measurement runs in a fresh process:

1. load the model and clean it up, as `optimize` does before it calibrates;
2. baseline: set the process's record of its largest resident set back, open a plain session of the cleaned-up model
   (all cores, as in calibration), run one sample, read the record; close the session;
3. peak: run the pass ``quantize-static``, which asks for the statistics of every tensor it needs; set the record back
   when it asks, read it when it has its answer; the largest counts.

``above`` is peak - baseline: what calibration takes above loading and running the model. Where there are fewer
calibration samples than asked for, they are repeated. The last measurement reads a generated file of --big-mb (a folder
of files for a model whose calibration data is one): each value is drawn at random from those of the first sample of
that input, stored uncompressed.

Memory is flat when the largest and the smallest ``above`` differ by no more than 10 %, or by less than 4 MB, which is
what allocators and threads change from run to run. Exit code: 0 flat, 1 not flat or a failure, 2 wrong usage.
Linux only: elsewhere a process can't set its record back.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sample_files import write_random
from zoo_folder import ZooModel, read_model
from zoo_job import run_job, serve
from zoo_tables import Table, circumstances

from onnxcomp.errors import UsageError

__all__ = ["is_flat", "main"]

SCHEMA_VERSION = 1
_FLAT = 0.10
_NOISE = 4_000_000
_TITLES = ("samples", "runs", "data MB", "baseline MB", "peak MB", "above MB", "s")


def is_flat(values: Sequence[float]) -> bool:
    """Say whether amounts of memory in bytes are alike; the top of the module says what that means."""
    spread = max(values) - min(values)
    return spread <= _FLAT * max(min(values), 0.0) or spread < _NOISE


def measure_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Take one measurement; runs in the worker process.

    Args:
        job: ``model``, ``data``, ``count`` (samples to run; None: those that are there).
    """
    import statistics_probe

    return statistics_probe.measure(Path(job["model"]), Path(job["data"]), job["count"])


def measure_all(entry: ZooModel, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Take all measurements."""
    assert entry.calibration is not None
    rows = [_measure(str(count), entry, entry.calibration, count) for count in args.samples]
    if args.big_mb:
        with tempfile.TemporaryDirectory(prefix="onnxcomp.", dir=args.work_dir) as folder:
            print(f"write {args.big_mb:g} MB of samples", file=sys.stderr, flush=True)
            path = write_random(entry.calibration, Path(folder), size=round(args.big_mb * 1e6), seed=args.seed)
            rows.append(_measure(f"{args.big_mb:g} MB of samples", entry, path, None))
    return rows


def _measure(name: str, entry: ZooModel, data: Path, count: int | None) -> dict[str, Any]:
    print(f"{entry.name}  {name}", file=sys.stderr, flush=True)
    done = run_job(__file__, {"model": str(entry.model), "data": str(data), "count": count})
    files = sorted(data.iterdir()) if data.is_dir() else [data]
    size = sum(file.stat().st_size for file in files)
    return {"name": name, "data_bytes": size, "error": done.error, **(done.value or {})}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return what the measurements show."""
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["name"], *["-"] * (len(_TITLES) - 2), f"FAILED: {row['error']}"])
            continue
        amounts = (row["data_bytes"], row["baseline"], row["peak"], row["peak"] - row["baseline"])
        cells.append([row["name"], str(row["runs"]), *(f"{n / 1e6:.1f}" for n in amounts), f"{row['seconds']:.1f}"])
    return Table(_TITLES, cells)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Peak memory of collecting calibration statistics.")
    parser.add_argument("folder", type=Path, metavar="ZOO_DIR/NAME", help="a model folder with calibration data")
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 64, 256], metavar="N", help="default: 16 64 256")
    parser.add_argument(
        "--big-mb", type=float, default=500, metavar="MB", help="size of the generated data, 0: none; default: 500"
    )
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="where to generate it; default: the system's")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the generated data; default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    args = parser.parse_args(argv)
    if min(args.samples) < 1:
        parser.error("--samples must be 1 or more")
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
    measured = [row["peak"] - row["baseline"] for row in rows if not row["error"]]
    flat = len(measured) == len(rows) and is_flat(measured)
    if args.json:
        content = {"schema_version": SCHEMA_VERSION, **circumstances(), "model": entry.name, "flat": flat, "rows": rows}
        args.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(table(rows).text(), end="")
    print("flat" if flat else "NOT flat")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
