"""``onnxcomp quantize MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import DryDelivery, Gates, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp quantize model.onnx --mode static --calibration calib.npz --eval eval.npz

onnxcomp quantize model.onnx --mode dynamic --min-sqnr 25 --max-latency-ratio 0.8

onnxcomp quantize model.onnx --mode weight-only --bits 4 --block-size 32 --eval eval.npz

onnxcomp quantize model.onnx --mode float16 -o half.onnx

onnxcomp quantize model.onnx --mode float16 --target cuda --calibration calib.npz --min-sqnr 40

onnxcomp quantize model.onnx --mode static --calibration calib/ --method percentile --exclude Conv_0 -o small.onnx
"""


@expanded
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
    *,
    gates: Gates,
    no_bench: options.NoBench = False,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    images: Images,
    seed: options.Seed = 0,
    delivery: DryDelivery,
) -> None:
    """Quantize a model in one named way, verify it by execution, measure what that changed, write it and report.

    The model is cleaned up first. What it loses and gains is reported, not judged, but for the gates that are named:
    where one is missed, the exit code is 1, and no model is written, only the reports. Nothing is written either where
    nothing can be quantized: exit code 3.
    """
    target_path = output or model.parent / f"{model.stem}.quantized.onnx"
    delivery.check(target_path, inputs=(model, calibration, statistics, evaluation, metric))

    from onnxcomp.api import quantize

    with delivery.working(custom_ops) as progress:
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
    delivery.save(result, target_path)
