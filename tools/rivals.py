"""Runs onnxruntime's own quantizers beside onnxcomp's results, on this machine, in one run.

    python tools/zoo_bench.py ZOO_DIR --keep DIR
    python tools/rivals.py ZOO_DIR --ours DIR [--only NAME ...] [--json FILE] [--markdown FILE]

``rival_quantizers`` says which rivals there are and how they are set. For each model every rival quantizes in a process
of its own; then one process times the original, all rivals and onnxcomp's result interleaved (first evaluation sample,
--threads threads), and judges their answers on all evaluation samples. ``latency`` and ``size`` are ratios to the
original, latency with its 95 % interval.

A contender is ``eligible`` when its score drops by no more than --max-drop, or, without labels, its agreement with the
original is at least 1 - max-drop. ``against the best rival`` is onnxcomp's time over that of the fastest eligible rival
(the original, where no rival is eligible and faster), timed once more in a pair of their own: ``faster`` when the whole
interval is below 1, ``slower`` when it is above 1, ``equal`` else.

Exit code: 0 all is well, 1 onnxcomp's result is slower, not eligible or can't be measured, 2 wrong usage.
A rival that fails is a row with its error and no reason for exit code 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rival_match import match
from rival_quantizers import RIVALS
from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Interval, Table, circumstances, geometric_mean, number

from onnxcomp.errors import UsageError

__all__ = ["OURS", "main", "verdict"]

SCHEMA_VERSION = 1
OURS = "onnxcomp"
_TITLES = ("model", "contender", "size", "latency", "score", "agreement", "eligible", "against the best rival")


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job in the worker process: let a rival quantize, or measure all contenders of a model."""
    if job["kind"] == "quantize":
        calibration = Path(job["calibration"]) if job["calibration"] else None
        RIVALS[job["rival"]](Path(job["model"]), Path(job["output"]), calibration, job["samples"])
        return {}
    return match(job)


def verdict(interval: Interval) -> str:
    """Say in one word what a time over another's says."""
    if interval.high < 1:
        return "faster"
    return "slower" if interval.low > 1 else "equal"


def compare(entry: ZooModel, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Let the rivals quantize one model, and measure all contenders."""
    contenders: dict[str, str] = {}
    errors: dict[str, str] = {}
    for index, name in enumerate(RIVALS):
        output = folder / f"{entry.name}.{index}.onnx"
        error = quantize(entry, name, output, args)
        if error is None:
            contenders[name] = str(output)
        else:
            errors[name] = error
    if args.ours:
        ours = (args.ours / f"{entry.name}.onnx").resolve()
        if ours.is_file():
            contenders[OURS] = str(ours)
        else:
            errors[OURS] = f"there is no {ours.name} in {args.ours}"
    print(f"{entry.name}  measure", file=sys.stderr, flush=True)
    job: dict[str, Any] = {"kind": "match", "model": str(entry.model), "contenders": contenders, "ours": OURS}
    job["evaluation"] = str(entry.evaluation or entry.calibration or "")
    job["metric"] = entry.metric if entry.evaluation else None
    job |= {name: getattr(args, name) for name in ("max_drop", "threads", "seed", "seconds")}
    measured = run_job(__file__, job, timeout=args.timeout)
    if measured.value is None:
        return {"name": entry.name, "error": measured.error, "contenders": {}, "errors": errors}
    errors |= measured.value.pop("errors")
    return {"name": entry.name, "error": None, "errors": errors, **measured.value}


def quantize(entry: ZooModel, rival: str, output: Path, args: argparse.Namespace) -> str | None:
    """Let one rival quantize in a process of its own; return its error, or None."""
    print(f"{entry.name}  {rival}", file=sys.stderr, flush=True)
    calibration = str(entry.calibration) if entry.calibration else None
    job = {"kind": "quantize", "rival": rival, "model": str(entry.model), "output": str(output)}
    done = run_job(__file__, {**job, "calibration": calibration, "samples": args.samples}, timeout=args.timeout)
    return done.error


def is_bad(row: dict[str, Any], *, with_ours: bool) -> bool:
    """Say whether a model gives the exit code 1."""
    if row["error"]:
        return True
    if not with_ours:
        return False
    ours = row["contenders"].get(OURS)
    against = Interval.of(row["against"])
    return ours is None or not ours["eligible"] or (against is not None and verdict(against) == "slower")


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a line per contender, and the geometric means."""
    cells = [line for row in rows for line in _lines(row)]
    for name in (*RIVALS, OURS):
        found = [row["contenders"][name] for row in rows if name in row["contenders"]]
        size, latency = (geometric_mean(contender[key] for contender in found) for key in ("size", "ratio"))
        cells.append([f"geometric mean of {len(found)}", name, number(size, 3), number(latency, 3), *[""] * 4])
    against = [interval.ratio for row in rows if (interval := Interval.of(row.get("against")))]
    if against:
        mean = number(geometric_mean(against), 3)
        cells.append([f"geometric mean of {len(against)}", f"{OURS} / best rival", *[""] * 5, mean])
    return Table(_TITLES, cells)


def _lines(row: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one model."""
    if row["error"]:
        return [[row["name"], "all", *["-"] * 5, f"FAILED: {row['error']}"]]
    lines = [[row["name"], "original", "1.000", "1.000", number(row["score"], 4), "1.0000", "yes", ""]]
    for name in (*RIVALS, OURS):
        contender = row["contenders"].get(name)
        if contender is None:
            if name in row["errors"]:
                lines.append([row["name"], name, *["-"] * 5, f"FAILED: {row['errors'][name]}"])
            continue
        against = Interval.of(row["against"]) if name == OURS else None
        lines.append(
            [
                row["name"],
                name,
                number(contender["size"], 3),
                str(Interval.of(contender)),
                number(contender["score"], 4),
                number(contender["agreement"], 4),
                "yes" if contender["eligible"] else "no",
                f"{against} {verdict(against)} ({row['best_rival']})" if against else "",
            ]
        )
    return lines


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run onnxruntime's own quantizers beside onnxcomp's results.")
    parser.add_argument("zoo", type=Path, metavar="ZOO_DIR", help="folder of model folders")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument("--ours", type=Path, metavar="DIR", help="optimized models as DIR/NAME.onnx")
    parser.add_argument("--max-drop", type=float, default=0.01, metavar="SHARE", help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="for calibration; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="while timing; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of timing a model; default: 60")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of timing; default: 0")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="for one job; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, work)
    if served is not None:
        return served
    args = parse(argv)
    try:
        entries = find_models(args.zoo, args.only)
        if args.ours and not args.ours.is_dir():
            raise UsageError(f"{args.ours} is not a folder", hint="made by zoo_bench.py --keep")
    except UsageError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    rows = []
    for entry in entries:
        with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
            rows.append(compare(entry, Path(folder), args))
        if args.json:  # after every model: a run that is interrupted keeps what it has
            content = {"schema_version": SCHEMA_VERSION, **circumstances(), "models": rows}
            args.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shown = table(rows)
    if args.markdown:
        args.markdown.write_text(shown.markdown(), encoding="utf-8")
    print(shown.text(), end="")
    return 1 if any(is_bad(row, with_ours=args.ours is not None) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
