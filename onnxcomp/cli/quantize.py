"""``onnxcomp quantize MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp quantize model.onnx --mode static --calibration calib.npz --eval eval.npz

onnxcomp quantize model.onnx --mode dynamic --min-sqnr 25 --max-latency-ratio 0.8

onnxcomp quantize model.onnx --mode weight-only --bits 4 --block-size 32 --eval eval.npz

onnxcomp quantize model.onnx --mode float16 -o half.onnx

onnxcomp quantize model.onnx --mode float16 --target cuda --calibration calib.npz --min-sqnr 40

onnxcomp quantize model.onnx --mode static --calibration calib/ --method percentile --exclude Conv_0 -o small.onnx
"""


def command(
    model: options.Model,
    mode: Annotated[
        str,
        typer.Option(
            help="static (needs calibration or statistics), dynamic, weight-only or float16.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the result goes.  [default: MODEL.quantized.onnx]")
    ] = None,
    calibration: options.Calibration = None,
    statistics: options.StatisticsFile = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Ranges to thresholds: minmax, ema, percentile, kl, mmse, octav, aciq, auto.  [default: minmax]"
        ),
    ] = None,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per weight, not one per output channel.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Scales of weights: minmax, or mmse, of least error.  [default: mmse if weight-only, else minmax]"
        ),
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Of a weight, 8 or 4 (weight-only).  [default: 8]")] = None,
    block_size: Annotated[
        int | None,
        typer.Option(help="Weights that share a scale: 16, 32, 64, 128; 0: a channel (weight-only).  [default: 128]"),
    ] = None,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="No zero points beside the scales (weight-only).")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            help="How weights are written: auto, nbits, fold, dequantize (weight-only), store, compute (float16)."
            "  [default: auto]"
        ),
    ] = None,
    ops: Annotated[
        str | None,
        typer.Option(help="Operator types to quantize, as in Conv,MatMul.  [default: all it can]"),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Name of a node that stays float; may be repeated.")] = None,
    synthetic: options.Synthetic = False,
    target: options.TargetName = "auto",
    custom_ops: options.CustomOps = None,
    max_drop: options.MaxDropGate = None,
    min_agreement: options.MinAgreementGate = None,
    min_sqnr: options.MinSqnrGate = None,
    max_size: options.MaxSizeGate = None,
    max_latency_ratio: options.MaxLatencyGate = None,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Do not measure the latency.")] = False,
    report: options.Reports = None,
    threads: options.Threads = 1,
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
    """Quantize a model in one named way, verify it by execution, measure what that changed, write it and report.

    The model is cleaned up first. What it loses and gains is reported, not judged, but for the gates that are named:
    where one is missed, the exit code is 1, and no model is written, only the reports. Nothing is written either where
    nothing can be quantized: exit code 3.
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
        max_latency_ratio=max_latency_ratio,
    )
    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    target_path = output or model.parent / f"{model.stem}.quantized.onnx"
    read = [source_file(str(name)) for name in (model, calibration, statistics, evaluation, metric) if name]
    reports = [] if dry_run else report or []
    check_outputs(None if dry_run else target_path, reports, inputs=tuple(filter(None, read)), overwrite=overwrite)

    from onnxcomp.api import quantize

    failing = report_of_failure(reports, output_format, verbose=verbose, quiet=quiet)
    with failing, custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        result = quantize(
            model,
            mode=mode,
            calibration=calibration,
            statistics=statistics,
            eval=evaluation,
            metric=metric,
            method=method,
            per_tensor=per_tensor,
            weights=weights,
            bits=bits,
            block_size=block_size,
            symmetric=symmetric,
            form=form,
            ops=ops.split(",") if ops else None,
            exclude=exclude or (),
            target=target,
            synthetic_calibration=synthetic,
            gates=gates,
            bench=not no_bench,
            threads=threads,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
    found = result.report if dry_run else result.save(target_path)
    deliver(found, reports, output_format, verbose=verbose, quiet=quiet)
