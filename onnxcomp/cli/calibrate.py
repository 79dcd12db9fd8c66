"""``onnxcomp calibrate MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp calibrate model.onnx --calibration calib.npz -o model.statistics.npz

onnxcomp quantize model.onnx --mode static --statistics model.statistics.npz --method mmse

onnxcomp optimize model.onnx --statistics model.statistics.npz --eval eval.npz
"""


def command(
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the statistics go, an .npz.  [default: MODEL.statistics.npz]"),
    ] = None,
    calibration: options.Calibration = None,
    image_size: options.ImageSize = None,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    layout: options.ImageLayout = None,
    resize: options.ImageResize = None,
    synthetic: options.Synthetic = False,
    custom_ops: options.CustomOps = None,
    report: options.Reports = None,
    batch: options.Batch = 1,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model's activations once, for --statistics of quantize and optimize.

    Keeps the extremes and a histogram of every float tensor of the cleaned-up model: enough for every method, without
    another run over the samples. The file is for this model alone, and holds no samples.
    """
    from onnxcomp.cli.images import image_options
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import OutputError
    from onnxcomp.usercode import source_file

    target_path = output or model.parent / f"{model.stem}.statistics.npz"
    if target_path.suffix != ".npz":
        raise OutputError(f"statistics can't be written as {target_path.name}", hint="end it in .npz")
    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    read = [source_file(str(name)) for name in (model, calibration) if name]
    check_outputs(target_path, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite)

    from onnxcomp.api import calibrate

    with custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        result = calibrate(
            model,
            calibration=calibration,
            synthetic_calibration=synthetic,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
    deliver(result.save(target_path), report or [], output_format, verbose=verbose, quiet=quiet)
