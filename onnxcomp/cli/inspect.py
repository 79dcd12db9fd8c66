"""``onnxcomp inspect MODEL``."""

from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp inspect model.onnx

onnxcomp inspect model.onnx --nodes --format json

onnxcomp inspect model.onnx --quantization --calibration calib.npz

onnxcomp inspect model.onnx --groups
"""


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
    image_size: options.ImageSize = None,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    layout: options.ImageLayout = None,
    resize: options.ImageResize = None,
    seed: options.Seed = 0,
    custom_ops: options.CustomOps = None,
    report: options.Reports = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a model is: size, inputs, parameters, operations, operators, weights, how it was made.

    MACs are counted for the shapes of the first sample, or of a made-up one; what can't be told is called unknown.
    """
    from onnxcomp.cli.images import image_options
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.customops import custom_operators
    from onnxcomp.usercode import source_file

    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    read = [source_file(str(name)) for name in (model, calibration) if name]
    check_outputs(None, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite)

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
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
