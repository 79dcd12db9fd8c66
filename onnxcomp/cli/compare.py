"""``onnxcomp compare REFERENCE CANDIDATE``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp compare model.onnx model.opt.onnx

onnxcomp compare model.onnx model.opt.onnx --eval eval.npz --max-drop 0.01 --min-agreement 0.98

onnxcomp compare model.onnx model.opt.onnx --eval eval.npz --perturb noise=0.05 --perturb noise=0.2
"""


def command(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="The model to hold the other against.", show_default=False)
    ],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="The other model. Both are only read.", show_default=False)
    ],
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    max_drop: options.MaxDropGate = None,
    min_agreement: options.MinAgreementGate = None,
    min_sqnr: options.MinSqnrGate = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=STRENGTH",
            help="Also compare on disturbed inputs: noise, brightness or contrast, with a strength as a share of each "
            "input's standard deviation; may be repeated.",
        ),
    ] = None,
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Pair inputs and outputs by their order, where names differ.")
    ] = False,
    custom_ops: options.CustomOps = None,
    batch: options.Batch = 1,
    image_size: options.ImageSize = None,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    layout: options.ImageLayout = None,
    resize: options.ImageResize = None,
    seed: options.Seed = 0,
    report: options.Reports = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the answers of two models on the same inputs, with each other and with labels.

    SQNR, cosine, largest error and agreement of each output; the score of both and their difference with a 95 %
    interval: Newcombe's for paired shares (1998) for top1 and top5, a paired bootstrap for other metrics. Without data,
    made-up inputs are used. A gate that is missed ends in exit code 1; the reports are written all the same.
    """
    from onnxcomp.cli.images import image_options
    from onnxcomp.cli.output import check_outputs, deliver, report_of_failure
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.customops import custom_operators
    from onnxcomp.target import Gates
    from onnxcomp.usercode import source_file

    gates = Gates(max_drop=max_drop, min_agreement=min_agreement, min_sqnr=min_sqnr)
    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    read = [source_file(str(name)) for name in (reference, candidate, evaluation, metric) if name]
    check_outputs(None, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite)

    from onnxcomp.api import compare

    failing = report_of_failure(report or [], output_format, verbose=verbose, quiet=quiet)
    with failing, custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        found = compare(
            reference,
            candidate,
            eval=evaluation,
            metric=metric,
            gates=gates,
            perturb=perturb or (),
            by_position=by_position,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
