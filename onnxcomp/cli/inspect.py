"""``onnxcomp inspect MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp inspect model.onnx

onnxcomp inspect model.onnx --nodes --format json

onnxcomp inspect model.onnx --quantization --calibration calib.npz
"""


def command(
    model: options.Model,
    nodes: Annotated[bool, typer.Option("--nodes", help="List every node with its shapes and what it costs.")] = False,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Say of every node whether it would run in int8, and if not, why.")
    ] = False,
    calibration: options.Calibration = None,
    synthetic: options.Synthetic = False,
    target: options.TargetName = "auto",
    batch: options.Batch = 1,
    seed: options.Seed = 0,
    report: options.Reports = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a model is: size, inputs, parameters, operations, operators, weights, how it was made.

    MACs are counted for the shapes of the first sample, or of a made-up one; what can't be told is called unknown.
    """
    from onnxcomp.cli.output import check_outputs, deliver

    read = [Path(name) for name in (model, calibration) if name]
    check_outputs(None, report or [], inputs=tuple(read), overwrite=overwrite)

    from onnxcomp.api import inspect

    found = inspect(
        model,
        nodes=nodes,
        quantization=quantization,
        calibration=calibration,
        synthetic_calibration=synthetic,
        target=target,
        batch=batch,
        seed=seed,
    )
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
