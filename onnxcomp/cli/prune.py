"""``onnxcomp prune MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import DryDelivery, Gates, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp prune model.onnx --ratio 0.3 --eval eval.npz

onnxcomp prune model.onnx --macs 0.7 --calibration calib.npz --eval eval.npz --steps 3 -o small.onnx

onnxcomp prune model.onnx --latency 0.7 --calibration calib.npz --eval eval.npz --max-drop 0.02

onnxcomp prune model.onnx --params 0.5 --calibration calib.npz --ignore '*/head/*' --granularity dim

onnxcomp prune model.onnx --granularity block --ratio 0.2 --calibration calib.npz --eval eval.npz

onnxcomp prune model.onnx --granularity weight --ratio 0.8 --calibration calib.npz -o sparse.onnxz

onnxcomp prune model.onnx --granularity 2:4 --calibration calib.npz --target tensorrt
"""


@expanded
def command(
    model: options.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the result goes.  [default: MODEL.pruned.onnx]")
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of each group's channels, each layer's weights, or the blocks, that goes.  "
            "[default: 0.3; 0.5 of weights; 1 block]"
        ),
    ] = None,
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulate operations that stays, as in 0.7.")
    ] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters that stays.")] = None,
    latency: Annotated[
        float | None, typer.Option(help="Share of the latency that stays, measured on this machine.")
    ] = None,
    granularity: Annotated[
        str,
        typer.Option(
            help="What goes: channel (channels, hidden units, whole heads), dim (dimensions of all heads alike), "
            "block (whole residual blocks and layers of transformers), weight (single weights become 0), or N of M "
            "weights, as in 2:4."
        ),
    ] = "channel",
    criterion: Annotated[
        str | None,
        typer.Option(
            help="How much a channel matters: obs, energy, thinet, lasso, apoz, activation-mean or activation-std (of "
            "samples), l2, l1, fpgm, kmeans, batch-norm or random; a weight: sparsegpt (of samples) or magnitude."
            "  [default: obs or sparsegpt with samples, else l2 or magnitude]"
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(help="With these targets: global (where least is lost) or uniform.  [default: global]"),
    ] = None,
    round: Annotated[  # noqa: A002  (the name of the option)
        int | None, typer.Option(help="A layer keeps a multiple of this; 1 is any number.  [default: by the target]")
    ] = None,
    no_streams: Annotated[
        bool, typer.Option("--no-streams", help="Keep all channels that a normalization takes its statistics over.")
    ] = False,
    recovery: Annotated[
        str | None,
        typer.Option(
            help="How what is left makes up for what went: least-squares, distill, affine, bias or none."
            "  [default: least-squares with samples, else none]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Rounds in which the target is reached.")] = 1,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Pattern of names of layers that stay, as in '*/head/*'; may be repeated.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Samples that tell what matters and what is lost; forms as for --eval.")
    ] = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
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
    """Remove channels, hidden units, attention heads, blocks or single weights that matter least; needs no training.

    The model is cleaned up first. What is removed is verified: the smaller model must give what the original gives with
    these channels masked. What it loses and gains is reported, not judged, but for the gates that are named: where one
    is missed, the exit code is 1, and no model is written, only the reports. Where nothing can be pruned, it is 3.
    """
    target_path = output or model.parent / f"{model.stem}.pruned.onnx"
    delivery.check(target_path, inputs=(model, calibration, evaluation, metric))

    from onnxcomp.api import prune

    with delivery.working(custom_ops) as progress:
        result = prune(
            model,
            ratio=ratio,
            macs=macs,
            params=params,
            latency=latency,
            granularity=granularity,
            criterion=criterion,
            allocation=allocation,
            round=round,
            streams=not no_streams,
            recovery=recovery,
            steps=steps,
            ignore=ignore or (),
            calibration=calibration,
            eval=evaluation,
            metric=metric,
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
