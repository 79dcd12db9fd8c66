"""``onnxcomp inspect MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp inspect model.onnx

onnxcomp inspect model.onnx --nodes --format json

onnxcomp inspect model.onnx --quantization --calibration calib.npz

onnxcomp inspect model.onnx --groups --latency

onnxcomp inspect model.onnx --histograms

onnxcomp inspect model.onnx model.opt.onnx
"""


@expanded
def command(
    model: options.Model,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="Another model, to be shown beside the first.", show_default=False),
    ] = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="List every node with its shapes and what it costs.")] = False,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Say of every node whether it would run in int8, and if not, why.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="List the groups of channels that can be pruned, and why others stay.")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="With --groups: also measure which share of the time each takes.")
    ] = False,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Show of every weight how its values are distributed.")
    ] = False,
    calibration: options.Calibration = None,
    synthetic: options.Synthetic = False,
    target: options.TargetName = "auto",
    batch: options.Batch = 1,
    *,
    images: Images,
    seed: options.Seed = 0,
    custom_ops: options.CustomOps = None,
    delivery: Delivery,
) -> None:
    """Show what a model is: size, inputs, parameters, operations, operators, weights, how it was made.

    MACs and the memory of tensors in between are counted for the shapes of the first sample, or of a made-up one; what
    can't be told is called unknown. Gains are counted, not tried: optimize tells what accuracy allows. Two models are
    shown side by side: where they differ in operators, weights, inputs and outputs.
    """
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import UsageError

    if other is not None and (nodes or quantization or groups or latency or histograms or synthetic):
        raise UsageError(
            "two models are shown side by side, not in detail",
            hint="leave out --nodes, --quantization, --groups, --histograms and --synthetic, or name one model",
        )
    delivery.check(None, inputs=(model, other, calibration))

    from onnxcomp.api import diff, inspect

    if other is not None:
        with custom_operators(custom_ops or []):
            compared = diff(model, other, calibration=calibration, target=target, batch=batch, images=images, seed=seed)
        delivery.deliver(compared)
        return

    with custom_operators(custom_ops or []):
        found = inspect(
            model,
            nodes=nodes,
            quantization=quantization,
            groups=groups,
            latency=latency,
            histograms=histograms,
            calibration=calibration,
            synthetic_calibration=synthetic,
            target=target,
            batch=batch,
            images=images,
            seed=seed,
        )
    delivery.deliver(found)
