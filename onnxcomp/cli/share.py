"""``onnxcomp share MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp share model.onnx --bits 4

onnxcomp share model.onnx --bits auto --calibration calib.npz --eval eval.npz --max-drop 0.01

onnxcomp share model.onnx --method entropy --eval eval.npz -o shared.onnx && onnxcomp pack shared.onnx

onnxcomp share model.onnx --bits 3 --granularity group --group-channels 32 --exclude Conv_0
"""


def command(
    model: options.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the result goes.  [default: MODEL.shared.onnx]")
    ] = None,
    bits: Annotated[
        str, typer.Option(help="Of an index, 1 to 8; auto: per weight, as few as the gates allow.")
    ] = "auto",
    method: Annotated[
        str | None,
        typer.Option(help="kmeans, or entropy: for files that are packed afterwards.  [default: kmeans]"),
    ] = None,
    granularity: Annotated[
        str | None,
        typer.Option(help="What has a codebook: tensor, group (of channels) or model.  [default: tensor]"),
    ] = None,
    group_channels: Annotated[int | None, typer.Option(help="Output channels of a group.  [default: 64]")] = None,
    init: Annotated[
        str | None, typer.Option(help="Of k-means: exact, linear, density or random.  [default: exact]")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Samples that tell how much each input of a layer counts; forms as for --eval.")
    ] = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Name of a node whose weights stay as they are; may be repeated.")
    ] = None,
    custom_ops: options.CustomOps = None,
    max_drop: options.MaxDropGate = None,
    min_agreement: options.MinAgreementGate = None,
    min_sqnr: options.MinSqnrGate = None,
    max_size: options.MaxSizeGate = None,
    report: options.Reports = None,
    batch: options.Batch = 1,
    image_size: options.ImageSize = None,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    layout: options.ImageLayout = None,
    resize: options.ImageResize = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Let the weights of each layer share a few values: indices and a codebook in the graph, in plain ONNX.

    The model is cleaned up first; it runs as fast as before. With --bits auto the gates decide: without any, a drop of
    the metric of one point, or 20 dB SQNR where there are no labels. Where a gate is missed the exit code is 1, and no
    model is written, only the reports; where the file would not get smaller, 3.
    """
    from onnxcomp.cli.images import image_options
    from onnxcomp.cli.output import check_outputs, deliver, report_of_failure
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.customops import custom_operators
    from onnxcomp.target import Gates
    from onnxcomp.usercode import source_file

    gates = Gates(
        max_drop=max_drop,
        min_agreement=min_agreement,
        min_sqnr=min_sqnr,
        max_size=None if max_size is None else parse_size(max_size),
    )
    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    target_path = output or model.parent / f"{model.stem}.shared.onnx"
    read = [source_file(str(name)) for name in (model, calibration, evaluation, metric) if name]
    reports = [] if dry_run else report or []
    check_outputs(None if dry_run else target_path, reports, inputs=tuple(filter(None, read)), overwrite=overwrite)

    from onnxcomp.api import share

    failing = report_of_failure(reports, output_format, verbose=verbose, quiet=quiet)
    with failing, custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        result = share(
            model,
            bits=bits,
            method=method,
            granularity=granularity,
            group_channels=group_channels,
            init=init,
            calibration=calibration,
            eval=evaluation,
            metric=metric,
            exclude=exclude or (),
            gates=gates,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
    found = result.report if dry_run else result.save(target_path)
    deliver(found, reports, output_format, verbose=verbose, quiet=quiet)
