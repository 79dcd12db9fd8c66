"""Shows what each repair without training gains: a model in INT8 without it and with it.

    python tools/repair_bench.py ZOO_DIR [--only NAME ...] [--with STEPS ...] [--recipe static] [--set KEY=VALUE ...]
                                 [--spread FACTOR] [--seconds S] [--json FILE] [--markdown FILE]

Each model is cleaned up and quantized by a candidate of `optimize` as it is, no node kept in float; first so, then with
each repair before the static quantization (`bias-correct`: after all quantization). STEPS are names of passes joined by
`+`, each with settings where they differ from the defaults (`equalize:clips=true,absorb=true+smooth`), or a recipe
file, whose steps are taken; if that has a quantizing pass itself, it is all that is done after the clean-up. `--set`
changes settings of the static quantization (`--set per_channel=false method=minmax`). `--spread` plants bad
ranges first: it divides channels between two layers by random numbers from 1 / FACTOR to FACTOR, and multiplies the
weights that read them, which changes no answer.

SQNR is that of the worst output in dB, against the original; score and agreement (in percent) are on all evaluation
samples; size and latency are ratios to INT8 without repair, latencies measured side by side for S seconds per model.
Exit code: 0 done, 1 a model failed, 2 wrong usage.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Table, circumstances, number, without_infinity

from onnxcomp.errors import ModelError, OnnxCompError, RecipeError, UsageError
from onnxcomp.recipe import Recipe, Step

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["main", "parse_steps"]

SCHEMA_VERSION = 1
NONE = "none"
_CANDIDATES = ("static-conv+dynamic", "static", "static+dynamic", "static, expanded")
_LAST = ("bias-correct",)  # they repair a quantized model
_REPAIRS = ("equalize", "smooth", "split-outliers", "round-weights", "bias-correct")


def parse_steps(text: str) -> Recipe:
    """Read the steps of one repair: a recipe file, or `name:key=value,key=value+name`.

    Raises:
        RecipeError: It is neither, or a pass or setting does not exist.
    """
    if text.endswith(".toml"):
        return Recipe.read(Path(text))
    steps = []
    for part in text.split("+"):
        name, _, settings = part.partition(":")
        steps.append(Step(name, parse_settings(filter(None, settings.split(",")))))
    return Recipe(tuple(steps))


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs; values as in TOML, bare words are text.

    Raises:
        RecipeError: A pair has no `=`.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"{pair!r} is not KEY=VALUE")
        try:
            settings[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = value
    return settings


def repaired(recipe: Recipe, repair: Recipe, static: Mapping[str, Any]) -> Recipe:
    """Return a quantizing recipe with a repair before its static step, and with other settings of that step.

    Passes that repair a quantized model come last.
    """
    if any(step.name.startswith("quantize-") for step in repair.steps):
        return repair
    steps: list[Step] = []
    before = [step for step in repair.steps if step.name not in _LAST]
    for step in recipe.steps:
        if step.name == "quantize-static":
            steps += [*before, Step(step.name, {**step.settings, **static})]
        else:
            steps.append(step)
    return Recipe((*steps, *(step for step in repair.steps if step.name in _LAST)))


def compare_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Judge one model with all repairs; runs in the worker process."""
    from functools import partial

    from zoo_candidate import set_up

    from onnxcomp.measure import interleave
    from onnxcomp.model import open_session, size
    from onnxcomp.pipeline import run_recipe
    from onnxcomp.statistics import RangeStore

    bench = set_up(job)
    cleaned = planted(bench.cleaned, job["spread"]) if job["spread"] > 1 else bench.cleaned
    bench.ctx.ranges = RangeStore(cleaned, bench.calibration)
    results: dict[str, Any] = {}
    sessions = {}
    for name, text in {NONE: None, **{text: text for text in job["repairs"]}}.items():
        print(f"{job['name']}  {name}", file=sys.stderr, flush=True)
        repair = Recipe() if text is None else parse_steps(text)
        recipe = repaired(bench.recipe, repair, job["static"])
        model, reports = run_recipe(cleaned, recipe, bench.ctx, bench.verifier)
        sessions[name] = open_session(model, threads=1)
        quality = bench.judge.quality(open_session(model, threads=0))
        results[name] = without_infinity(
            {
                "score": quality.score,
                "agreement": quality.agreement,
                "sqnr": quality.sqnr,
                "size": size(model),
                "passes": {report.name: dict(report.counters) for report in reports if report.modified},
                "failures": {report.name: report.failure for report in reports if report.failure},
                "ratio": None,
            }
        )
    if job["seconds"] > 0:
        feed = next(iter(bench.evaluation))
        contenders = {name: partial(session.run, feed) for name, session in sessions.items()}
        timed = interleave(contenders, baseline=NONE, half_width=0.01, max_seconds=job["seconds"], seed=0)
        for name, ratio in timed.ratios.items():
            bounds = {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}
            results[name]["ratio"] = without_infinity(bounds)
    return {"original": bench.judge.original.score, "repairs": results}


def planted(model: "ir.Model", factor: float) -> "ir.Model":
    """Return a copy with channels of very different ranges between its layers; it answers as before."""
    import numpy as np

    from onnxcomp.passes.cleanup._graph import Names
    from onnxcomp.passes.cleanup._shapes import infer
    from onnxcomp.passes.quantize.chains import follow, made_by
    from onnxcomp.passes.quantize.layers import Layer, Rescaling, layer_of, write

    copy, rng, rescaling, edits = model.clone(), np.random.default_rng(0), Rescaling(), []
    shapes = infer(copy)
    for node in copy.graph:
        layer = layer_of(node)
        if not isinstance(layer, Layer) or layer.shared:
            continue
        chain = follow(node.outputs[0], made_by(layer, shapes), layer.outputs, shapes)
        if isinstance(chain, str) or chain.clips:
            continue
        scale = factor ** rng.uniform(-1, 1, layer.outputs)
        rescaling.divide_outputs(layer, scale)
        for reader in chain.readers:
            rescaling.multiply_inputs(reader.layer, np.repeat(scale, reader.place.repeat))
        edits += chain.offset_edits(scale)
    if reason := write([*rescaling.edits(), *edits], Names(copy)):
        raise ModelError(f"no ranges can be planted: {reason}")
    return copy


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return what was found: a row per model and repair."""
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([row["name"], f"FAILED: {row['error']}", *["-"] * 5])
            continue
        found = row["value"]["repairs"]
        for name, result in found.items():
            size = result["size"] / found[NONE]["size"]
            cells.append(
                [
                    row["name"],
                    name if not result["failures"] else f"{name} (rolled back: {', '.join(result['failures'])})",
                    number(result["sqnr"], 2),
                    number(result["score"], 4),
                    number(100 * result["agreement"], 1),
                    number(size, 3),
                    number((result["ratio"] or {}).get("ratio"), 2),
                ]
            )
    return Table(("model", "repair", "SQNR", "score", "agreement", "size", "latency"), cells)


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
        "repairs": args.repairs,
        "static": parse_settings(args.settings),
        "spread": args.spread,
        "seconds": args.seconds,
    }
    done = run_job(__file__, job)
    return {"name": entry.name, "value": done.value, "error": done.error}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What each repair without training gains.")
    parser.add_argument("zoo", type=Path, metavar="ZOO_DIR", help="a folder of model folders")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument(
        "--with", dest="repairs", nargs="+", default=list(_REPAIRS), metavar="STEPS", help="passes, or a recipe file"
    )
    parser.add_argument("--recipe", default="static", choices=_CANDIDATES, help="what quantizes; default: static")
    parser.add_argument(
        "--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE", help="settings of quantize-static"
    )
    parser.add_argument("--spread", type=float, default=1.0, metavar="FACTOR", help="plant bad ranges; 1: none")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of timing per model; 0: none")
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
        if not 1 <= args.spread <= 1e4:
            raise UsageError(f"--spread must be in 1..10000, got {args.spread:g}")
        entries = find_models(args.zoo, args.only)
        for text in args.repairs:
            parse_steps(text)
        Step("quantize-static", parse_settings(args.settings)).make()
    except OnnxCompError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    rows = []
    for entry in entries:
        rows.append(measure(entry, args))
        if args.json:
            content = {"schema_version": SCHEMA_VERSION, **circumstances(), "recipe": args.recipe, "models": rows}
            args.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shown = table(rows)
    if args.markdown:
        args.markdown.write_text(shown.markdown(), encoding="utf-8")
    print(shown.text(), end="")
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
