"""``onnxcomp calibrate MODEL``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp calibrate model.onnx --calibration calib.npz -o model.statistics.npz

onnxcomp quantize model.onnx --mode static --statistics model.statistics.npz --method mmse

onnxcomp optimize model.onnx --statistics model.statistics.npz --eval eval.npz
"""


@expanded
def command(
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the statistics go, an .npz.  [default: MODEL.statistics.npz]"),
    ] = None,
    calibration: options.Calibration = None,
    *,
    images: Images,
    synthetic: options.Synthetic = False,
    custom_ops: options.CustomOps = None,
    batch: options.Batch = 1,
    seed: options.Seed = 0,
    delivery: Delivery,
) -> None:
    """Measure a model's activations once, for --statistics of quantize and optimize.

    Keeps the extremes and a histogram of every float tensor of the cleaned-up model: enough for every method, without
    another run over the samples. The file is for this model alone, and holds no samples.
    """
    from onnxcomp.errors import OutputError

    target_path = output or model.parent / f"{model.stem}.statistics.npz"
    if target_path.suffix != ".npz":
        raise OutputError(f"statistics can't be written as {target_path.name}", hint="end it in .npz")
    delivery.check(target_path, inputs=(model, calibration))

    from onnxcomp.api import calibrate

    with delivery.working(custom_ops) as progress:
        result = calibrate(
            model,
            calibration=calibration,
            synthetic_calibration=synthetic,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
    delivery.save(result, target_path)
