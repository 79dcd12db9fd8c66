"""``onnxcomp check MODEL --baseline ORIGINAL``."""

import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp check model.opt.onnx --max-size 5MB

onnxcomp check model.opt.onnx --baseline model.onnx --eval eval.npz --max-drop 0.01 --max-latency-ratio 0.8

onnxcomp check model.opt.onnx --baseline model.onnx --eval eval.npz --max-size-ratio 0.5 --save-baseline main.json

onnxcomp check model.opt.onnx --baseline model.onnx --eval eval.npz --against main.json --junit gates.xml
"""


@expanded
def command(
    model: options.Model,
    baseline: Annotated[
        Path | None, typer.Option(help="The original. Every gate but --max-size compares with it.")
    ] = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    max_size: options.MaxSizeGate = None,
    max_size_ratio: options.MaxSizeRatioGate = None,
    max_drop: options.MaxDropGate = None,
    min_agreement: options.MinAgreementGate = None,
    min_sqnr: options.MinSqnrGate = None,
    max_latency_ratio: options.MaxLatencyGate = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail where a gate is undecided or not measured.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="What --save-baseline wrote for an earlier commit: be no worse than that.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="With --against: share by which size and latency may grow.")] = 0.05,
    score_tolerance: Annotated[
        float, typer.Option(help="With --against: how much score and agreement may fall.")
    ] = 0.005,
    save_baseline: Annotated[
        Path | None, typer.Option(help="Write what was measured to this .json, unless a gate fails.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML, a test case per gate.")] = None,
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Pair inputs and outputs by their order, where names differ.")
    ] = False,
    custom_ops: options.CustomOps = None,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    *,
    images: Images,
    seconds: Annotated[float, typer.Option(help="For the timing; less where that decides.")] = 30.0,
    seed: options.Seed = 0,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            "--report", help="Also write the report: .json, .html, .md, .txt, or .xml for JUnit; may be repeated."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Judge a model by bounds, as the gate of a CI job: exit code 1 where one is missed.

    Scores and fidelity come from the same run as those of compare, times from that of bench. A latency fails where the
    whole 95 % interval of its ratio is over the bound, passes where it is below, and is undecided between. The reports
    are written all the same.
    """
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import GateFailed, OutputError
    from onnxcomp.files import replacing
    from onnxcomp.target import Gates
    from onnxcomp.usercode import source_file

    gates = Gates(
        max_drop=max_drop,
        min_agreement=min_agreement,
        min_sqnr=min_sqnr,
        max_size=None if max_size is None else parse_size(max_size),
        max_size_ratio=max_size_ratio,
        max_latency_ratio=max_latency_ratio,
    )
    if save_baseline is not None and save_baseline.suffix != ".json":
        raise OutputError(f"a baseline can't be saved as {save_baseline.name}", hint="end it in .json")
    read = [source_file(str(name)) for name in (model, baseline, evaluation, metric, against) if name]
    others = [path for path in (save_baseline, junit) if path is not None]
    check_outputs(None, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite, others=others, junit=True)

    from onnxcomp.api import check
    from onnxcomp.report import CheckReport, annotations, junit_xml

    failure = None
    with custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        try:
            found = check(
                model,
                baseline=baseline,
                gates=gates,
                against=against,
                tolerance=tolerance,
                score_tolerance=score_tolerance,
                save_baseline=save_baseline,
                strict=strict,
                eval=evaluation,
                metric=metric,
                by_position=by_position,
                threads=threads,
                batch=batch,
                images=images,
                seconds=seconds,
                seed=seed,
                progress=progress,
            )
        except GateFailed as err:
            failure, found = err, cast(CheckReport, err.report)
    if junit is not None:
        with replacing(junit) as temporary:
            temporary.write_text(junit_xml(found), encoding="utf-8")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(annotations(found), end="", file=sys.stderr)
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
    if failure is not None:
        raise failure
