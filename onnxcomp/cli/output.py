"""Output files of commands: checked before any work, written atomically."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnxcomp.cli.configuration import used_file
from onnxcomp.cli.options import Format
from onnxcomp.cli.streams import show
from onnxcomp.errors import GateFailed, OutputError
from onnxcomp.files import check_output, replacing
from onnxcomp.report import Document

__all__ = ["check_outputs", "deliver", "report_of_failure", "write_report"]

_SUFFIXES = (".json", ".md", ".txt")
_SUMMARY = "GITHUB_STEP_SUMMARY"  # a file that the CI shows as the page of a step


def check_outputs(
    result: Path | None,
    reports: Sequence[Path],
    *,
    inputs: tuple[Path, ...],
    overwrite: bool,
    others: Sequence[Path] = (),
) -> None:
    """Refuse output paths that can't be used.

    Raises:
        OutputError: One can't be written, exists already, is an input, or two are the same.
    """
    for path in reports:
        if path.suffix not in _SUFFIXES:
            raise OutputError(
                f"a report can't be written as {path.name}",
                hint=f"end it in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}",
            )
    paths = [*([result] if result else []), *others, *reports]
    if len({os.path.realpath(path) for path in paths}) < len(paths):  # Path.resolve raises where links form a ring
        raise OutputError("two outputs have the same path", hint="name a file of its own for each")
    for path in paths:
        check_output(path, inputs=inputs, overwrite=overwrite)


@contextmanager
def report_of_failure(
    paths: Sequence[Path], output_format: Format, *, verbose: bool = False, quiet: bool = False
) -> Iterator[None]:
    """Print and write the report also where a gate failed: that is where it is read."""
    try:
        yield
    except GateFailed as err:
        if isinstance(err.report, Document):
            deliver(err.report, paths, output_format, verbose=verbose, quiet=quiet)
        raise


def deliver(
    document: Document, reports: Sequence[Path], output_format: Format, *, verbose: bool = False, quiet: bool = False
) -> None:
    """Write the reports that were asked for, and print the document.

    Raises:
        OutputError: A report can't be written.
    """
    for path in reports:
        write_report(document, path)
    _summarize(document)
    if output_format is Format.JSON:
        show(document.to_json())
    elif not quiet:
        if (file := used_file.get()) is not None:
            show(f" config  {file}\n")
        show(document.render(verbose=verbose))


def write_report(report: Document, path: Path) -> None:
    """Write a report in the form that its suffix names.

    Raises:
        OutputError: The path can't be written.
    """
    match path.suffix:
        case ".json":
            text = report.to_json()
        case ".md":
            text = report.markdown()
        case _:
            text = report.render(verbose=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _summarize(document: Document) -> None:
    """Append the result to the page of a CI step, where there is one.

    Raises:
        OutputError: It can't be written.
    """
    page = os.environ.get(_SUMMARY)
    if not page:
        return
    try:
        with Path(page).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{document.markdown()}\n")
    except OSError as err:
        hint = f"unset {_SUMMARY}, or let it name a file"
        raise OutputError(f"cannot append to {page} ({_SUMMARY}): {err.strerror or err}", hint=hint) from err
