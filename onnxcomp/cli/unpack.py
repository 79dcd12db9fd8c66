"""``onnxcomp unpack FILE``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp unpack model.onnxz

onnxcomp unpack model.onnxz -o folder/model.onnx --max-size 500MB
"""


def command(
    file: Annotated[Path, typer.Argument(help="What onnxcomp pack wrote. It is only read.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the model goes.  [default: FILE.onnx]")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Refuse a file that unpacks to more.  [default: 16GB]")
    ] = None,
    report: options.Reports = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads that decode at the same time; 0 is all cores.")] = 0,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the model that an .onnxz file holds; external data goes beside it, under the names that it had.

    Everything is checked against the checksums in the file; a damaged one is refused, and nothing is written.
    """
    from onnxcomp.cli.output import check_outputs, deliver
    from onnxcomp.cli.progress import shown_progress
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.errors import UsageError

    if output is None and file.suffix == ".onnx":
        raise UsageError(
            f"{file} is called like a model, not like a container", hint="FILE.onnxz, as onnxcomp pack writes"
        )
    target = output or file.parent / f"{file.stem}.onnx"
    limit = None if max_size is None else parse_size(max_size)
    check_outputs(target, report or [], inputs=(file,), overwrite=overwrite)

    from onnxcomp.api import unpack

    with shown_progress(quiet=quiet) as progress:
        found = unpack(file, target, overwrite=overwrite, threads=threads, progress=progress, max_size=limit)
    deliver(found, report or [], output_format, verbose=verbose, quiet=quiet)
