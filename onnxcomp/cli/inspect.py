"""``onnxcomp inspect MODEL``."""

from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp inspect model.onnx

onnxcomp inspect model.onnx --nodes --format json

onnxcomp inspect model.onnx --quantization --calibration calib.npz

onnxcomp inspect model.onnx --groups
"""


@expanded
def command(
    model: options.Model,
    nodes: Annotated[bool, typer.Option("--nodes", help="List every node with its shapes and what it costs.")] = False,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Say of every node whether it would run in int8, and if not, why.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="List the groups of channels that can be pruned, and why others stay.")
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

    MACs are counted for the shapes of the first sample, or of a made-up one; what can't be told is called unknown.
    """
    from onnxcomp.customops import custom_operators

    delivery.check(None, inputs=(model, calibration))

    from onnxcomp.api import inspect

    with custom_operators(custom_ops or []):
        found = inspect(
            model,
            nodes=nodes,
            quantization=quantization,
            groups=groups,
            calibration=calibration,
            synthetic_calibration=synthetic,
            target=target,
            batch=batch,
            images=images,
            seed=seed,
        )
    delivery.deliver(found)
