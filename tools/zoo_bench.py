"""Runs `optimize` on every model of a zoo and checks each result independently.

    python tools/zoo_bench.py ZOO_DIR [--only NAME ...] [--bare] [--technique NAME ...]
        [--json FILE] [--markdown FILE] [--keep DIR]

Each model is optimized in a process of its own: ``peak MB`` is that process's largest resident set, and a crash costs
one row. Then the file that was written is loaded, run on the first evaluation samples and timed against the original
in this process, with onnxruntime alone. ``latency`` is what `optimize` reported, ``re-timed`` what that second run
found: the output's time over the original's, with the 95 % interval of the median. Violations:

- ``slower``: the upper bound of either interval is over 1.02, unless the original is delivered byte for byte;
- ``wide``: half the width of either interval is over 0.02;
- ``drop``: the score dropped by more than --max-drop.

Exit code: 0 all is well, 1 a violation or a failure, 2 wrong usage.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Interval, Table, circumstances, geometric_mean, number, without_infinity

from onnxcomp.errors import OnnxCompError, UsageError
from onnxcomp.target import Goal, Technique

__all__ = ["Row", "main", "violations"]

SCHEMA_VERSION = 1
_NO_SLOWER = 1.02
_WIDEST = 0.02
_RETIME_HALF_WIDTH = 0.01
_TITLES = (
    "model",
    "size",
    "latency",
    "re-timed",
    "before",
    "after",
    "agreement",
    "winner",
    "s",
    "peak MB",
    "violations",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What is known about one model.

    Attributes:
        name: Of the model.
        card: What the zoo says about it.
        report: Of `optimize`; None: it failed.
        recheck: What the independent check found; None: it failed, or there is no output.
        peak_rss: Bytes, of the process that optimized.
        seconds: Of that process.
        error: Why there is no report or no recheck.
        violations: Broken promises.
    """

    name: str
    card: dict[str, Any]
    seconds: float
    report: dict[str, Any] | None = None
    recheck: dict[str, Any] | None = None
    peak_rss: int | None = None
    error: str | None = None
    violations: list[str] = field(default_factory=list)

    @property
    def size_ratio(self) -> float | None:
        """Size of the output on disk over the original's."""
        if self.report is None or self.recheck is None:
            return None
        return float(self.recheck["bytes"] / self.report["original_size"])

    @property
    def latency(self) -> Interval | None:
        """The latency ratio that `optimize` reported; 1 where it delivered the original."""
        if self.report is None:
            return None
        return Interval(1.0, 1.0, 1.0) if self.report["winner"] is None else Interval.of(self.report["latency"])

    @property
    def retimed(self) -> Interval | None:
        """The latency ratio that the independent check found."""
        return Interval.of(self.recheck)

    def score(self, quality: str) -> float | None:
        """Return the score of ``original_quality`` or ``quality``; None without labels."""
        return None if self.report is None else self.report[quality]["score"]


def violations(
    intervals: Sequence[Interval | None], *, identical: bool, drop: float | None, max_drop: float
) -> list[str]:
    """Name the promises that a result breaks; the top of the module says which there are.

    Args:
        intervals: Every measured latency ratio.
        identical: Whether the original was delivered byte for byte.
        drop: Score before minus score after; None without labels.
        max_drop: The largest that is allowed.
    """
    found = []
    measured = [] if identical else [interval for interval in intervals if interval is not None]
    if any(interval.high > _NO_SLOWER for interval in measured):
        found.append("slower")
    if drop is not None and drop > max_drop + 1e-9:  # scores are ratios of counts: their difference is rounded
        found.append("drop")
    if any(interval.half_width > _WIDEST for interval in measured):
        found.append("wide")
    return found


def optimize_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Optimize one model and write the result; runs in the worker process."""
    from onnxcomp import Budget, optimize
    from onnxcomp.measure import peak_rss

    stages: list[str] = []

    def progress(stage: str, _share: float | None) -> None:
        if stages[-1:] != [stage]:
            stages.append(stage)
            print(f"{job['name']}  {stage}", file=sys.stderr, flush=True)

    result = optimize(
        job["model"],
        calibration=job["calibration"],
        eval=job["eval"],
        metric=job["metric"],
        budget=Budget(max_drop=job["max_drop"]),
        goal=job["goal"],
        techniques=job["technique"] or None,
        threads=job["threads"],
        seed=job["seed"],
        progress=progress,
    )
    result.save(job["output"])
    return {"report": result.report.to_dict(), "peak_rss": peak_rss()}


def measure(entry: ZooModel, output: Path, args: argparse.Namespace) -> Row:
    """Optimize one model in a process of its own, check the output in this one."""
    from zoo_recheck import CheckFailedError, recheck

    has_data = not args.bare
    job = {
        "name": entry.name,
        "model": str(entry.model),
        "calibration": str(entry.calibration) if has_data and entry.calibration else None,
        "eval": str(entry.evaluation) if has_data and entry.evaluation else None,
        "metric": entry.metric if has_data and entry.evaluation else None,
        "output": str(output),
        **{name: getattr(args, name) for name in ("max_drop", "goal", "technique", "threads", "seed")},
    }
    done = run_job(__file__, job, timeout=args.timeout)
    if done.value is None:
        return Row(entry.name, entry.card, done.seconds, error=done.error)
    report, peak = done.value["report"], done.value["peak_rss"]
    row = Row(entry.name, entry.card, done.seconds, report, peak_rss=peak)
    print(f"{entry.name}  check the output", file=sys.stderr, flush=True)
    try:
        checked = recheck(
            entry,
            output,
            threads=args.threads,
            half_width=_RETIME_HALF_WIDTH,
            seconds=args.retime_seconds,
            seed=args.seed,
        )
    except (CheckFailedError, OnnxCompError, OSError) as err:
        return dataclasses.replace(row, error=f"check of the output: {err}")
    row = dataclasses.replace(row, recheck=without_infinity(dataclasses.asdict(checked)))
    before, after = row.score("original_quality"), row.score("quality")
    drop = None if before is None or after is None else before - after
    broken = violations([row.latency, row.retimed], identical=checked.identical, drop=drop, max_drop=args.max_drop)
    return dataclasses.replace(row, violations=broken)


def table(rows: Sequence[Row]) -> Table:
    """Return what the rows show, with their geometric means last."""
    cells = [_cells(row) for row in rows]
    means = geometric_means(rows)
    cells.append(
        [
            f"geometric mean of {means['models']}",
            *(number(means[key], 3) for key in ("size", "latency", "retimed")),
            *([""] * (len(_TITLES) - 4)),
        ]
    )
    return Table(_TITLES, cells)


def geometric_means(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the geometric means over the models that were optimized and checked."""
    whole = [row for row in rows if row.recheck is not None]
    return {
        "models": len(whole),
        "size": geometric_mean(row.size_ratio for row in whole if row.size_ratio is not None),
        "latency": geometric_mean(row.latency.ratio for row in whole if row.latency is not None),
        "retimed": geometric_mean(row.retimed.ratio for row in whole if row.retimed is not None),
    }


def _cells(row: Row) -> list[str]:
    peak = number(row.peak_rss / 1e6 if row.peak_rss is not None else None, 0)
    timing = [f"{row.seconds:.0f}", peak]
    if row.report is None:
        return [row.name, *["-"] * (len(_TITLES) - 4), *timing, f"FAILED: {row.error}"]
    return [
        row.name,
        number(row.size_ratio, 3),
        str(row.latency or "-"),
        str(row.retimed or "-"),
        number(row.score("original_quality"), 4),
        number(row.score("quality"), 4),
        number(row.report["quality"]["agreement"], 4),
        row.report["winner"] or "original",
        *timing,
        f"FAILED: {row.error}" if row.error else ", ".join(row.violations),
    ]


def document(rows: Sequence[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Return everything as plain values."""
    names = ("bare", "goal", "technique", "max_drop", "threads", "seed", "retime_seconds")
    return {
        "schema_version": SCHEMA_VERSION,
        **circumstances(),
        "settings": {name: getattr(args, name) for name in names},
        "geometric_means": geometric_means(rows),
        "models": [{**dataclasses.asdict(row), "size_ratio": row.size_ratio} for row in rows],
    }


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run optimize on every model of a zoo and check each result.")
    parser.add_argument("zoo", type=Path, metavar="ZOO_DIR", help="folder of model folders")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument("--bare", action="store_true", help="give optimize the model alone, no data")
    parser.add_argument("--goal", choices=get_args(Goal), default="latency", help="default: %(default)s")
    parser.add_argument(
        "--technique", nargs="+", choices=get_args(Technique), default=[], help="try these alone; default: all"
    )
    parser.add_argument("--max-drop", type=float, default=0.01, metavar="SHARE", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the timed sessions; default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="for one model; default: %(default)s")
    parser.add_argument(
        "--retime-seconds", type=float, default=60, metavar="S", help="for the independent timing; default: %(default)s"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the optimized models as DIR/NAME.onnx")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, optimize_in_worker)
    if served is not None:
        return served
    args = parse(argv)
    try:
        entries = find_models(args.zoo, args.only)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
    except (UsageError, OSError) as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        for entry in entries:
            rows.append(measure(entry, (args.keep or Path(folder)).resolve() / f"{entry.name}.onnx", args))
            if args.json:  # after every model: a benchmark that is interrupted keeps what it has
                args.json.write_text(
                    json.dumps(document(rows, args), indent=2, allow_nan=False) + "\n", encoding="utf-8"
                )
    shown = table(rows)
    if args.markdown:
        args.markdown.write_text(shown.markdown(), encoding="utf-8")
    print(shown.text(), end="")
    return 1 if any(row.error or row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
