"""``onnxcomp optimize MODEL``."""

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp optimize model.onnx

onnxcomp optimize model.onnx --calibration calib.npz --eval eval.npz --metric top1 --max-drop 0.01

onnxcomp optimize model.onnx --calibration calib/ --eval eval/ --metric metric.py:score --goal size --report run.json
"""


class Goal(enum.StrEnum):
    """What is minimised."""

    LATENCY = "latency"
    SIZE = "size"
    BALANCED = "balanced"


class Format(enum.StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"


def command(
    model: Annotated[Path, typer.Argument(help="The exported ONNX model. It is only read.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the result goes.  [default: MODEL.opt.onnx]")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Samples for activation ranges: an .npz of rows, or a folder of .npz, one per run."),
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", help="Samples to judge on, of the same forms, best with 'labels'.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="top1, top5, FILE.py:function or module:function.  [default: top1 for class numbers]"),
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Largest accepted drop of the metric, 0.01 = one point.")] = 0.01,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least share of answers equal to the original's.  [default: 1 - 3 * max-drop]")
    ] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(help="Least SQNR of every float output, dB.  [default: 20 without labels]")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Largest accepted file, as in 5MB or 800kB.")] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(help="Largest accepted share of the original's latency.  [default: no slower]")
    ] = None,
    goal: Annotated[Goal, typer.Option(help="What to minimise.")] = Goal.LATENCY,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Calibrate on made-up inputs.")] = False,
    target: Annotated[str, typer.Option(help="Where the model will run; auto is this machine.")] = "auto",
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file of passes to try instead of the built-in ones.")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Also write the report: .json or .txt; may be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads while timing; 0 is all cores.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Rows of an .npz per run.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="For every random choice.")] = 0,
    time_budget: Annotated[float, typer.Option(help="Seconds after which no optional step is begun.")] = 300.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    output_format: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show what was skipped and why.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no report text and no progress.")] = False,
) -> None:
    """Find the best model inside the budget, prove it by measurement, write it and report.

    Without data only what needs none is tried: clean-up, and dynamic INT8 where it measures faster and stays close.
    When nothing is better, the result is the cleaned-up model, or a copy of the input.
    """
    from onnxcomp.cli.output import check_outputs, report_of_failure, write_report
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.cli.streams import show
    from onnxcomp.target import Budget

    budget = Budget(
        max_drop=max_drop,
        min_agreement=min_agreement,
        min_sqnr=min_sqnr,
        max_size=None if max_size is None else parse_size(max_size),
        max_latency_ratio=max_latency_ratio,
    )
    target_path = output or model.parent / f"{model.stem}.opt.onnx"
    metric_file = metric.rpartition(":")[0] if metric else None
    read = [Path(name) for name in (model, calibration, evaluation, recipe, metric_file) if name]
    check_outputs(target_path, report or [], inputs=tuple(read), overwrite=overwrite)

    from onnxcomp.api import optimize
    from onnxcomp.recipe import Recipe
    from onnxcomp.report import render_text

    with shown_progress(quiet=quiet) as progress, report_of_failure(report or []):
        result = optimize(
            model,
            calibration=calibration,
            eval=evaluation,
            metric=metric,
            budget=budget,
            goal=goal.value,
            target=target,
            recipe=None if recipe is None else Recipe.read(recipe),
            synthetic_calibration=synthetic,
            threads=threads,
            batch=batch,
            seed=seed,
            time_budget=time_budget,
            progress=progress,
        )
    result.save(target_path)
    for path in report or []:
        write_report(result.report, path)
    if output_format is Format.JSON:
        show(result.report.to_json())
    elif not quiet:
        show(render_text(result.report, verbose=verbose))
        show(f" wrote   {os.fspath(target_path)}\n")
