"""``onnxcomp sensitivity MODEL``."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp sensitivity model.onnx --calibration calib.npz

onnxcomp sensitivity model.onnx --calibration calib.npz --eval eval.npz --max-drop 0.005 --report sensitivity.md

onnxcomp sensitivity model.onnx --mode dynamic --eval eval.npz --goal size

onnxcomp sensitivity model.onnx --recipe recipe.toml --calibration calib.npz --format json
"""


@expanded
def command(
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the result goes, a .json.  [default: MODEL.sensitivity.json]"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="A mode of quantize, or the name of a lossy pass.  [default: static with samples, else dynamic]"
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file of passes whose units are compared, instead of a mode.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Ranges to thresholds, as for quantize.  [default: the pass's own]")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Name of a node that is left out in any case; may be repeated.")
    ] = None,
    calibration: options.Calibration = None,
    statistics: options.StatisticsFile = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    max_drop: options.MaxDrop = 0.01,
    min_agreement: options.MinAgreement = None,
    min_sqnr: options.MinSqnr = None,
    goal: Annotated[options.Goal, typer.Option(help="What harm is weighed against.")] = options.Goal.LATENCY,
    synthetic: options.Synthetic = False,
    target: options.TargetName = "auto",
    custom_ops: options.CustomOps = None,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    *,
    images: Images,
    seed: options.Seed = 0,
    time_budget: Annotated[
        float, typer.Option(help="Seconds after which nothing more is put in order or judged.")
    ] = 300.0,
    delivery: Delivery,
) -> None:
    """Measure what each node or block harms when it is quantized, against what that saves; say what to leave out.

    The first table has the units one at a time, those that harm most per millisecond saved (or megabyte, by --goal)
    first. The second has them together: what is left of noise and savings when the first ones stay float. Noise is
    measured on the calibration samples for all; the evaluation samples judge what decides whether the budget is kept.
    """
    from onnxcomp.cli.output import write_report
    from onnxcomp.errors import OutputError
    from onnxcomp.report import Written
    from onnxcomp.target import Budget

    target_path = output or model.parent / f"{model.stem}.sensitivity.json"
    if target_path.suffix != ".json":
        raise OutputError(f"the result can't be written as {target_path.name}", hint="end it in .json; see --report")
    budget = Budget(max_drop=max_drop, min_agreement=min_agreement, min_sqnr=min_sqnr)
    delivery.check(target_path, inputs=(model, calibration, statistics, evaluation, recipe, metric))

    from onnxcomp.api import sensitivity
    from onnxcomp.recipe import Recipe

    with delivery.working(custom_ops) as progress:
        found = sensitivity(
            model,
            mode=mode,
            recipe=None if recipe is None else Recipe.read(recipe),
            method=method,
            exclude=exclude or (),
            calibration=calibration,
            statistics=statistics,
            eval=evaluation,
            metric=metric,
            budget=budget,
            goal=goal.value,
            target=target,
            synthetic_calibration=synthetic,
            threads=threads,
            batch=batch,
            images=images,
            seed=seed,
            time_budget=time_budget,
            progress=progress,
        )
    write_report(found, target_path)
    found = dataclasses.replace(found, output=Written.at(target_path))
    delivery.deliver(found)
