"""``onnxcomp report FILE``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp report run.json

onnxcomp report run.json -o page.html --overwrite
"""


def command(
    saved: Annotated[
        Path, typer.Argument(metavar="FILE", help="What --report FILE.json wrote, of any command.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the page goes, a .html.  [default: FILE.html]")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a page of HTML of a saved report: one file with its drawings, that works offline.

    The same page as --report FILE.html writes, less the command line, that the saved report does not hold.
    """
    from onnxcomp.cli.output import check_outputs
    from onnxcomp.cli.streams import show
    from onnxcomp.errors import OutputError
    from onnxcomp.files import replacing

    page = output or saved.with_suffix(".html")
    if page.suffix != ".html":
        raise OutputError(f"a page can't be written as {page.name}", hint="end it in .html")
    check_outputs(page, [], inputs=(saved,), overwrite=overwrite)

    from onnxcomp.report.rendering import render_saved

    text = render_saved(saved)
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    if not quiet:
        show(f" wrote   {page}\n")
