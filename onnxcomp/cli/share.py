"""``onnxcomp share MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import DryDelivery, Gates, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp share model.onnx --bits 4

onnxcomp share model.onnx --bits auto --calibration calib.npz --eval eval.npz --max-drop 0.01

onnxcomp share model.onnx --method entropy --eval eval.npz -o shared.onnx && onnxcomp pack shared.onnx

onnxcomp share model.onnx --method entropy --prune auto --calibration calib.npz --eval eval.npz --max-drop 0.01

onnxcomp share model.onnx --vector 4 --bits 8 --calibration calib.npz --eval eval.npz

onnxcomp share model.onnx --bits 4 --eval eval.npz --sizes --report sizes.html

onnxcomp share model.onnx --bits 3 --granularity group --group-channels 32 --exclude Conv_0
"""


@expanded
def command(
    model: options.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the result goes.  [default: MODEL.shared.onnx]")
    ] = None,
    bits: Annotated[
        str, typer.Option(help="Of an index, 1 to 8 (entropy: from 0.25); auto: per weight, as few as the gates allow.")
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
    codebook: Annotated[
        str | None, typer.Option(help="free, or powers: 0 and powers of two, 2 bits or more.  [default: free]")
    ] = None,
    vector: Annotated[
        int | None,
        typer.Option(help="Neighbours that share an index: bits / vector bits per weight; 1 to 16.  [default: 1]"),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(help="Share of the weights to set to zero first; auto: what the gates allow. To pack."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Samples: layers change least for them; forms as for --eval."),
    ] = None,
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Name of a node whose weights stay as they are; may be repeated.")
    ] = None,
    custom_ops: options.CustomOps = None,
    *,
    gates: Gates,
    no_bench: options.NoBench = False,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    images: Images,
    seed: options.Seed = 0,
    sizes: options.Sizes = False,
    delivery: DryDelivery,
) -> None:
    """Let the weights of each layer share a few values: indices and a codebook in the graph, in plain ONNX.

    The model is cleaned up first; it runs as fast as before. With --bits auto the gates decide: without any, a drop of
    the metric of one point, or 20 dB SQNR where there are no labels. Where a gate is missed the exit code is 1, and no
    model is written, only the reports; where the file would not get smaller, 3.
    """
    target_path = output or model.parent / f"{model.stem}.shared.onnx"
    delivery.check(target_path, inputs=(model, calibration, evaluation, metric))

    from onnxcomp.api import share

    with delivery.working(custom_ops) as progress:
        result = share(
            model,
            bits=bits,
            method=method,
            granularity=granularity,
            group_channels=group_channels,
            init=init,
            codebook=codebook,
            vector=vector,
            prune=prune,
            calibration=calibration,
            eval=evaluation,
            metric=metric,
            exclude=exclude or (),
            gates=gates,
            bench=not no_bench,
            threads=threads,
            batch=batch,
            images=images,
            seed=seed,
            sizes=sizes,
            progress=progress,
        )
    delivery.save(result, target_path)
