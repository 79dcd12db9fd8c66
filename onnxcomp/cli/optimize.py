"""``onnxcomp optimize MODEL...``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp optimize model.onnx

onnxcomp optimize model.onnx --calibration calib.npz --eval eval.npz --metric top1 --max-drop 0.01

onnxcomp optimize model.onnx --calibration calib/ --eval eval/ --metric metric.py:score --goal size --report run.json

onnxcomp optimize model.onnx --calibration calib.npz --eval eval.npz --perturb all --report run.html

onnxcomp optimize models/ --calibration calib.npz --eval eval.npz -o small/

onnxcomp optimize model.onnx --calibration calib.npz --eval eval.npz --target cpu-arm --bundle device/

onnxcomp optimize model.onnx --eval eval.npz --target cpu-arm --measurements device/measurements.json

onnxcomp optimize model.onnx --calibration calib.npz --eval eval.npz --cluster tcp://scheduler:8786
"""


@expanded
def command(
    model: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="The exported ONNX model, or several, or folders of them. They are only read.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where the result goes; of several models, or a folder of them: a folder.  [default: MODEL.opt.onnx]",
        ),
    ] = None,
    calibration: options.Calibration = None,
    statistics: options.StatisticsFile = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    max_drop: options.MaxDrop = 0.01,
    min_agreement: options.MinAgreement = None,
    min_sqnr: options.MinSqnr = None,
    max_size: Annotated[str | None, typer.Option(help="Largest accepted file, as in 5MB or 800kB.")] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(help="Largest accepted share of the original's latency.  [default: no slower]")
    ] = None,
    goal: Annotated[options.Goal, typer.Option(help="What to minimise.")] = options.Goal.LATENCY,
    synthetic: options.Synthetic = False,
    target: options.TargetName = "auto",
    custom_ops: options.CustomOps = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file of passes to try instead of the built-in ones.")
    ] = None,
    technique: Annotated[
        list[options.Technique] | None,
        typer.Option(help="Try this technique alone; repeatable.  [default: all that the data allows]"),
    ] = None,
    pareto: Annotated[
        Path | None,
        typer.Option(
            help="Folder for all that nothing beats in size, latency and score at once, each with its recipe."
        ),
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder for the state of a long run: killed, the same command goes on with it.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes of this machine that judge candidates at once; never while timing.")
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Dask (tcp://HOST:8786) or Ray (ray://HOST:10001) cluster that judges candidates instead."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Deliver nothing: write a folder that times the candidates on the machine of the target."),
    ] = None,
    measurements: Annotated[
        Path | None,
        typer.Option(help="The measurements.json of such a folder, in it: choose from its candidates by these times."),
    ] = None,
    perturb: options.Perturb = None,
    report: options.Reports = None,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    *,
    images: Images,
    seed: options.Seed = 0,
    time_budget: Annotated[
        float, typer.Option(help="Seconds after which no optional step is begun; --perturb may take a fifth on top.")
    ] = 300.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be tried; measure and write nothing.")
    ] = False,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the best model inside the budget, prove it by measurement, write it and report.

    Without data only what needs none is tried: clean-up, and dynamic INT8 where it measures faster and stays close.
    When nothing is better, the result is the cleaned-up model, or a copy of the input. Several models are worked on one
    after another, and one that fails does not stop the others: the exit code is then the largest of theirs.
    """
    from onnxcomp.cli.output import check_outputs, deliver, report_of_failure
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import UsageError
    from onnxcomp.files import check_folder, is_folder
    from onnxcomp.target import Budget
    from onnxcomp.usercode import source_file

    budget = Budget(
        max_drop=max_drop,
        min_agreement=min_agreement,
        min_sqnr=min_sqnr,
        max_size=None if max_size is None else parse_size(max_size),
        max_latency_ratio=max_latency_ratio,
    )
    first, *others = model
    many = bool(others) or is_folder(first)
    if many and output is None:
        raise UsageError("several models need a folder for their results", hint="--output FOLDER")
    if many and dry_run:
        raise UsageError("--dry-run looks at one model", hint="name one, and no folder")
    _check_elsewhere(bundle, measurements, one=not (many or dry_run), alone=not (pareto or work_dir or perturb))
    target_path = None if many or bundle else output or first.parent / f"{first.stem}.opt.onnx"
    read = [source_file(str(name)) for name in (*model, calibration, statistics, evaluation, recipe, metric) if name]
    check_outputs(target_path, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite)

    for folder in filter(None, (pareto, bundle)):
        check_folder(folder, overwrite=overwrite)

    from onnxcomp.api import bundle_candidates, optimize, optimize_many, plan
    from onnxcomp.api.many import OptimizeOptions
    from onnxcomp.recipe import Recipe
    from onnxcomp.report import OptimizeManyReport, Report

    settings = OptimizeOptions(
        calibration=calibration,
        statistics=statistics,
        eval=evaluation,
        metric=metric,
        budget=budget,
        goal=goal.value,
        target=target,
        recipe=None if recipe is None else Recipe.read(recipe),
        techniques=[t.value for t in technique] if technique else None,
        synthetic_calibration=synthetic,
        threads=threads,
        batch=batch,
        images=images,
        seed=seed,
        time_budget=time_budget,
    )
    if dry_run:
        with custom_operators(custom_ops or []):
            planned = plan(first, perturb=perturb or (), **settings)
        deliver(planned, [], output_format, verbose=verbose, quiet=quiet)
        return
    if bundle is not None:
        with custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
            written = bundle_candidates(first, folder=bundle, jobs=jobs, cluster=cluster, progress=progress, **settings)
        deliver(written, report or [], output_format, verbose=verbose, quiet=quiet)
        return
    failing = report_of_failure(report or [], output_format, verbose=verbose, quiet=quiet)
    with failing, custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        if target_path is not None:
            found: Report | OptimizeManyReport = optimize(
                first,
                pareto=pareto,
                work_dir=work_dir,
                jobs=jobs,
                cluster=cluster,
                measurements=measurements,
                perturb=perturb or (),
                progress=progress,
                **settings,
            ).save(target_path)
        else:
            assert output is not None
            found = optimize_many(
                model,
                output,
                overwrite=overwrite,
                pareto=pareto,
                work_dir=work_dir,
                jobs=jobs,
                cluster=cluster,
                perturb=perturb or (),
                progress=progress,
                **settings,
            )
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
    if isinstance(found, OptimizeManyReport):
        found.check()


def _check_elsewhere(bundle: Path | None, measurements: Path | None, *, one: bool, alone: bool) -> None:
    """Refuse what makes no sense beside a folder that another machine times, or what it has found out."""
    from onnxcomp.errors import UsageError

    if bundle is not None and measurements is not None:
        raise UsageError("--bundle is for another machine, --measurements comes from it", hint="name one of them")
    if (bundle or measurements) and not one:
        raise UsageError("--bundle and --measurements are about one model", hint="name one, without --dry-run")
    if bundle is not None and not alone:
        raise UsageError("--bundle delivers nothing", hint="leave out --pareto, --work-dir and --perturb")
