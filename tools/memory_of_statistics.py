"""Measures how much memory the collection of calibration statistics takes, for few and for many samples.

    python tools/memory_of_statistics.py ZOO_DIR/NAME [--samples 16 64 256] [--big-mb 500] [--repeats 3] [--json FILE]

Every measurement runs in a fresh process:

1. load the model and clean it up, as `optimize` does before it calibrates;
2. baseline: the resident set with the model loaded, no session open;
3. peak: run the pass ``quantize-static``, which asks for extremes and histograms of every tensor it needs; set the
   process's record of its largest resident set back when it asks, read it when it has its answer; the largest counts.

``above`` is peak - baseline: what collecting statistics takes above loading the model, its session included. Where
there are fewer calibration samples than asked for, they are repeated. The last measurement reads a generated file of
--big-mb (a folder of files for a model whose calibration data is one): each value is drawn at random from those of the
first sample of that input, stored uncompressed.

Each measurement is made --repeats times and the medians count; the noise is the widest spread among the repeats of one
measurement, and 4 MB at least: less is what allocators and threads change anyway. Memory is ``flat within 10 %`` when
the largest and the smallest ``above`` differ by no more than that, has ``no growth beyond noise`` when they differ by
no more than the noise, and ``grows`` else.
Exit code: 0 one of the former two, 1 it grows or a measurement failed, 2 wrong usage.
Linux only: elsewhere a process can't set its record back.
"""

import argparse
import json
import statistics
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

__all__ = ["main", "verdict"]

SCHEMA_VERSION = 1
_FLAT = 0.10
_LEAST_NOISE = 4_000_000  # bytes
_TITLES = ("samples", "runs", "data MB", "baseline MB", "peak MB", "above MB", "spread MB", "s")


def verdict(above: Sequence[Sequence[float]]) -> str:
    """Say whether memory grows; the top of the module says what the answers mean.

    Args:
        above: Bytes above the baseline: per measurement, one number per repeat.
    """
    medians = [statistics.median(repeats) for repeats in above]
    noise = max(_LEAST_NOISE, *(max(repeats) - min(repeats) for repeats in above))
    spread = max(medians) - min(medians)
    if spread <= _FLAT * min(medians):
        return "flat within 10 %"
    return f"no growth beyond noise ({noise / 1e6:.1f} MB)" if spread <= noise else "grows"


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
    rows = [_measure(str(count), entry, entry.calibration, count, args.repeats) for count in args.samples]
    if args.big_mb:
        with tempfile.TemporaryDirectory(prefix="onnxcomp.", dir=args.work_dir) as folder:
            print(f"write {args.big_mb:g} MB of samples", file=sys.stderr, flush=True)
            path = write_random(entry.calibration, Path(folder), size=round(args.big_mb * 1e6), seed=args.seed)
            rows.append(_measure("generated", entry, path, None, args.repeats))
    return rows


def _measure(name: str, entry: ZooModel, data: Path, count: int | None, repeats: int) -> dict[str, Any]:
    """Take one measurement several times; the first failure ends it."""
    files = sorted(data.iterdir()) if data.is_dir() else [data]
    row: dict[str, Any] = {"name": name, "data_bytes": sum(file.stat().st_size for file in files), "error": None}
    row["repeats"] = []
    for index in range(repeats):
        print(f"{entry.name}  samples: {name}, repeat {index + 1} of {repeats}", file=sys.stderr, flush=True)
        done = run_job(__file__, {"model": str(entry.model), "data": str(data), "count": count})
        if done.value is None:
            return {**row, "error": done.error}
        row["repeats"].append(done.value)
    return row


def _above(row: dict[str, Any]) -> list[float]:
    return [repeat["peak"] - repeat["baseline"] for repeat in row["repeats"]]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return what the measurements show."""
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["name"], *["-"] * (len(_TITLES) - 2), f"FAILED: {row['error']}"])
            continue
        above, repeats = _above(row), row["repeats"]
        median = {key: statistics.median(repeat[key] for repeat in repeats) for key in ("baseline", "peak", "seconds")}
        amounts = (
            row["data_bytes"],
            median["baseline"],
            median["peak"],
            statistics.median(above),
            max(above) - min(above),
        )
        cells.append(
            [
                row["name"],
                str(repeats[0]["runs"]),
                *(f"{amount / 1e6:.1f}" for amount in amounts),
                f"{median['seconds']:.1f}",
            ]
        )
    return Table(_TITLES, cells)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Peak memory of collecting calibration statistics.")
    parser.add_argument("folder", type=Path, metavar="ZOO_DIR/NAME", help="a model folder with calibration data")
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 64, 256], metavar="N", help="default: 16 64 256")
    parser.add_argument(
        "--big-mb", type=float, default=500, metavar="MB", help="size of the generated data, 0: none; default: 500"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of each measurement; default: 3")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="where to generate it; default: the system's")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the generated data; default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    args = parser.parse_args(argv)
    if min(args.samples) < 1 or args.repeats < 1 or args.big_mb < 0:
        parser.error("--samples and --repeats must be 1 or more, --big-mb not negative")
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
    failed = any(row["error"] for row in rows)
    found = "a measurement failed" if failed else verdict([_above(row) for row in rows])
    if args.json:
        content = {"schema_version": SCHEMA_VERSION, **circumstances(), "model": entry.name, "verdict": found}
        text = json.dumps({**content, "measurements": rows}, indent=2, allow_nan=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    print(table(rows).text(), end="")
    print(found)
    return 1 if failed or found == "grows" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
