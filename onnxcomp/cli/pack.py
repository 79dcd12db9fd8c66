"""``onnxcomp pack MODEL``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp pack model.onnx

onnxcomp pack model.onnx --codec huffman -o small.onnxz -v

onnxcomp pack model.onnx --sizes --report sizes.html
"""


class CodecName(enum.StrEnum):
    """How tensors are stored."""

    AUTO = "auto"
    RAW = "raw"
    HUFFMAN = "huffman"
    MASK = "mask"
    PLANES = "planes"
    RANS = "rans"
    DEFLATE = "deflate"


def command(
    model: options.Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the container goes.  [default: MODEL.onnxz]")
    ] = None,
    codec: Annotated[
        CodecName, typer.Option("--codec", help="How all tensors are stored; auto: each in the smallest way.")
    ] = CodecName.AUTO,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not decode the container and compare it with the model.")
    ] = False,
    sizes: options.Sizes = False,
    report: options.Reports = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads that code at the same time; 0 is all cores.")] = 0,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Store a model smaller, lossless: an .onnxz file with entropy-coded tensors.

    Any model: float, integer, sparse, with external data, with weights in subgraphs and Constant nodes. onnxcomp unpack
    gives back the same files; onnxcomp.session loads the container from Python. The format is documented.

    Of each data type, bound is how many bits a value takes at least, if all that is known is how often each value comes
    (the order-0 entropy; of wide values, that of their bytes). bits/value can be below it: rows and columns of a weight
    that hold smaller values than others are told apart.
    """
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.cli.progress import shown_progress

    target = output or model.parent / f"{model.stem}.onnxz"
    check_outputs(target, report or [], inputs=(model,), overwrite=overwrite)

    from onnxcomp.api import pack

    with shown_progress(quiet=quiet) as progress:
        found = pack(model, target, codec=codec, verify=not no_verify, sizes=sizes, threads=threads, progress=progress)
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
