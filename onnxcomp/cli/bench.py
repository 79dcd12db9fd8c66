"""``onnxcomp bench MODEL...``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, expanded
from onnxcomp.cli.sweeps import parse_sweeps

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp bench model.onnx

onnxcomp bench model.onnx model.opt.onnx --data eval.npz --batch 8 --threads 2

onnxcomp bench model.onnx model.opt.onnx --profile --seconds 60 --report bench.json

onnxcomp bench model.onnx model.opt.onnx --sweep batch=1,2,4,8 --sweep sequence=16..128

onnxcomp bench model.onnx model.opt.onnx --streams 4

onnxcomp bench model.onnx model.opt.onnx --bundle device/

onnxcomp bench --measurements device/measurements.json
"""


@expanded
def command(
    models: options.Models = None,
    data: Annotated[
        str | None, typer.Option(help="Samples, the first run of which is timed.  [default: made-up inputs]")
    ] = None,
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    *,
    images: Images,
    provider: options.ProviderName = options.Provider.CPU,
    seconds: Annotated[float, typer.Option(help="For each timing; less where that is enough.")] = 30.0,
    half_width: Annotated[
        float, typer.Option(help="How narrow the intervals are to be: 0.02 is plus or minus 2 % of a ratio.")
    ] = 0.02,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    custom_ops: options.CustomOps = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also show the time by type of operator and by node.")
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--with-copies", help="With cuda and tensorrt: count copying inputs and outputs in each run."),
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Also time other sizes of an open dimension, as in batch=1,2,4 or sequence=16..128 (each twice the "
            "one before) or INPUT.AXIS=8,16; may be repeated: every combination is timed."
        ),
    ] = None,
    streams: Annotated[
        int | None,
        typer.Option(min=1, help="Also measure the throughput of so many threads that share a session."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: write a folder that times the models where onnxruntime and numpy are."),
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option(help="Measure nothing: show the measurements.json of such a folder.")
    ] = None,
    seed: options.Seed = 0,
    delivery: Delivery,
) -> None:
    """Time models side by side: latency, throughput, load time, peak memory, and ratios to the first one.

    The models take turns in one run, after a warm-up until they get no faster. Ratios are paired by turn and come with
    an interval; where it is wider than asked for, that is said. Memory is that of a process which loads one model
    and runs it. A --sweep makes its inputs of the first run of the samples, cut or repeated. With cuda and tensorrt,
    inputs and outputs are in the memory of the device (not so with --streams, and in a --bundle), and what ran on the
    CPU instead is listed. On a machine without onnxcomp, the script of a --bundle takes the times.
    """
    from onnxcomp.customops import custom_operators
    from onnxcomp.errors import UsageError
    from onnxcomp.files import check_folder

    if measurements is not None and (models or bundle):
        raise UsageError("--measurements shows what was measured", hint="name no models and no --bundle beside it")
    if measurements is None and not models:
        raise UsageError("there is no model to time", hint="onnxcomp bench MODEL...")
    sizes = parse_sweeps(sweep or [])
    if (measurements or bundle) and (sizes or streams or profile):
        raise UsageError(
            "--sweep, --streams and --profile need a timing on this machine",
            hint="leave out --bundle and --measurements",
        )
    models = models or []
    delivery.check(None, inputs=(*models, data, measurements))
    if bundle is not None:
        check_folder(bundle, overwrite=delivery.overwrite)

    from onnxcomp.api import bench, read_measurements
    from onnxcomp.api import bundle as write

    if measurements is not None:
        delivery.deliver(read_measurements(measurements))
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
                confidence=confidence,
                seed=seed,
            )
        delivery.deliver(written)
        return
    with delivery.working(custom_ops) as progress:
        found = bench(
            *models,
            data=data,
            threads=threads,
            batch=batch,
            images=images,
            provider=provider.value,
            seconds=seconds,
            half_width=half_width,
            confidence=confidence,
            profile=profile,
            copies=copies,
            sweep=sizes,
            streams=streams,
            seed=seed,
            progress=progress,
        )
    delivery.deliver(found)
