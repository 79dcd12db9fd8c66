"""``onnxcomp bench MODEL...``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp bench model.onnx

onnxcomp bench model.onnx model.opt.onnx --data eval.npz --batch 8 --threads 2

onnxcomp bench model.onnx model.opt.onnx --profile --seconds 60 --report bench.json

onnxcomp bench model.onnx model.opt.onnx --bundle device/

onnxcomp bench --measurements device/measurements.json
"""


def command(
    models: options.Models = None,
    data: Annotated[
        str | None, typer.Option(help="Samples, the first run of which is timed.  [default: made-up inputs]")
    ] = None,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    image_size: options.ImageSize = None,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    layout: options.ImageLayout = None,
    resize: options.ImageResize = None,
    provider: options.ProviderName = options.Provider.CPU,
    seconds: Annotated[float, typer.Option(help="For the timing; less where that is enough.")] = 30.0,
    half_width: Annotated[
        float, typer.Option(help="How narrow the intervals are to be: 0.02 is plus or minus 2 % of a ratio.")
    ] = 0.02,
    custom_ops: options.CustomOps = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also show the time by type of operator.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: write a folder that times the models where onnxruntime and numpy are."),
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option(help="Measure nothing: show the measurements.json of such a folder.")
    ] = None,
    seed: options.Seed = 0,
    report: options.Reports = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Time models side by side: latency, throughput, load time, peak memory, and ratios to the first one.

    The models take turns in one run, after a warm-up until they get no faster. Ratios are paired by turn and come with
    a 95 % interval; where it is wider than asked for, that is said. Memory is that of a process which loads one model
    and runs it. With cuda and tensorrt, times include the copies of inputs and outputs between host and device. On a
    machine without onnxcomp, the script of a --bundle takes the times.
    """
    from onnxcomp.cli.images import image_options
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import UsageError
    from onnxcomp.files import check_folder
    from onnxcomp.usercode import source_file

    if measurements is not None and (models or bundle):
        raise UsageError("--measurements shows what was measured", hint="name no models and no --bundle beside it")
    if measurements is None and not models:
        raise UsageError("there is no model to time", hint="onnxcomp bench MODEL...")
    models = models or []
    images = image_options(size=image_size, mean=mean, std=std, layout=layout, resize=resize)
    read = [source_file(str(name)) for name in (*models, data, measurements) if name]
    check_outputs(None, report or [], inputs=tuple(filter(None, read)), overwrite=overwrite)

    if bundle is not None:
        check_folder(bundle, overwrite=overwrite)

    from onnxcomp.api import bench, read_measurements
    from onnxcomp.api import bundle as write

    if measurements is not None:
        deliver(read_measurements(measurements), report or [], output_format, verbose=verbose, quiet=quiet)
        return
    if bundle is not None:
        with custom_operators(custom_ops or []):
            written = write(
                *models,
                folder=bundle,
                data=data,
                threads=threads,
                batch=batch,
                images=images,
                provider=provider.value,
                seconds=seconds,
                half_width=half_width,
                seed=seed,
            )
        deliver(written, report or [], output_format, verbose=verbose, quiet=quiet)
        return
    with custom_operators(custom_ops or []), shown_progress(quiet=quiet) as progress:
        found = bench(
            *models,
            data=data,
            threads=threads,
            batch=batch,
            images=images,
            provider=provider.value,
            seconds=seconds,
            half_width=half_width,
            profile=profile,
            seed=seed,
            progress=progress,
        )
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
