"""Compares the methods of calibration on a zoo: what a model scores when its thresholds are chosen by each.

    python tools/calibration_methods.py ZOO_DIR [--only NAME ...] [--methods NAME ...] [--recipe static+dynamic]
                                        [--json FILE] [--markdown FILE]

Each model is cleaned up and quantized by a candidate of `optimize` as it is, no node kept in float, once per method;
all methods read the statistics of one run over the calibration samples. A cell says score / agreement with the original
in percent / SQNR in dB, on all evaluation samples.
Exit code: 0 done, 1 a model failed, 2 wrong usage.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Table, circumstances, number, without_infinity

from onnxcomp.errors import UsageError
from onnxcomp.thresholds import METHODS

__all__ = ["main"]

SCHEMA_VERSION = 1
_CANDIDATES = ("static-conv+dynamic", "static", "static+dynamic")


def compare_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Judge one model by all methods; runs in the worker process."""
    from zoo_candidate import set_up

    from onnxcomp.model import open_session
    from onnxcomp.pipeline import run_recipe
    from onnxcomp.recipe import Recipe, Step
    from onnxcomp.statistics import RangeStore

    bench = set_up(job)
    bench.ctx.ranges = RangeStore(bench.cleaned, bench.calibration)
    results: dict[str, Any] = {}
    for method in job["methods"]:
        print(f"{job['name']}  {method}", file=sys.stderr, flush=True)
        steps = (
            Step(step.name, {**step.settings, "method": method}) if step.name == "quantize-static" else step
            for step in bench.recipe.steps
        )
        model, reports = run_recipe(bench.cleaned, Recipe(tuple(steps)), bench.ctx, bench.verifier)
        quality = bench.judge.quality(open_session(model, threads=0))
        results[method] = {
            "score": quality.score,
            "agreement": quality.agreement,
            "sqnr": quality.sqnr,
            "modified": [report.name for report in reports if report.modified],
        }
    return without_infinity({"original": bench.judge.original.score, "methods": results})


def table(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> Table:
    """Return what was found: a row per model, a column per method."""
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["name"], f"FAILED: {row['error']}", *["-"] * len(methods)])
            continue
        found = row["value"]["methods"]
        cells.append([row["name"], number(row["value"]["original"], 4), *(_cell(found[name]) for name in methods)])
    return Table(("model", "float", *methods), cells)


def _cell(found: dict[str, Any]) -> str:
    agreement, sqnr = number(100 * found["agreement"], 1), number(found["sqnr"], 1)
    return f"{number(found['score'], 4)} / {agreement} / {sqnr}"


def measure(entry: ZooModel, args: argparse.Namespace) -> dict[str, Any]:
    """Judge one model in a process of its own."""
    if entry.calibration is None or entry.evaluation is None:
        return {"name": entry.name, "value": None, "error": "it has no calibration or no evaluation samples"}
    job = {
        "name": entry.name,
        "model": str(entry.model),
        "calibration": str(entry.calibration),
        "eval": str(entry.evaluation),
        "metric": entry.metric,
        "candidate": args.recipe,
        "methods": args.methods,
    }
    done = run_job(__file__, job)
    return {"name": entry.name, "value": done.value, "error": done.error}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Scores of quantized models by method of calibration.")
    parser.add_argument("zoo", type=Path, metavar="ZOO_DIR", help="a folder of model folders")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME", help="only these methods"
    )
    parser.add_argument("--recipe", default="static+dynamic", choices=_CANDIDATES, help="default: static+dynamic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as markdown")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, compare_in_worker)
    if served is not None:
        return served
    args = parse(argv)
    try:
        entries = find_models(args.zoo, args.only)
    except UsageError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    rows = []
    for entry in entries:
        rows.append(measure(entry, args))
        if args.json:
            content = {"schema_version": SCHEMA_VERSION, **circumstances(), "recipe": args.recipe, "models": rows}
            args.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shown = table(rows, args.methods)
    if args.markdown:
        args.markdown.write_text(shown.markdown(), encoding="utf-8")
    print(shown.text(), end="")
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
