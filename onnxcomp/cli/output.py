"""Output files of commands: checked before any work, written atomically."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxcomp.cli.configuration import command_line, used_file
from onnxcomp.cli.options import Format
from onnxcomp.cli.progress import Show, shown_progress
from onnxcomp.cli.streams import show
from onnxcomp.customops import custom_operators
from onnxcomp.errors import GateFailed, OutputError
from onnxcomp.files import check_output, replacing
from onnxcomp.report import CheckReport, Document, junit_xml
from onnxcomp.usercode import source_file

__all__ = ["Delivery", "check_outputs", "deliver", "report_of_failure", "write_report"]

_SUFFIXES = (".json", ".html", ".md", ".txt")
_JUNIT = ".xml"
_SUMMARY = "GITHUB_STEP_SUMMARY"  # a file that the CI shows as the page of a step


class _Result(Protocol):
    """What a verb that makes a model gives back."""

    @property
    def report(self) -> Document: ...

    def save(self, path: Path) -> Document: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where the results of a command go, as its options say it.

    Attributes:
        report: Files for the report.
        overwrite: Whether files may be replaced.
        output_format: Of what is printed.
        verbose: Whether more is printed.
        quiet: Whether nothing is.
        dry_run: Whether no file is written.
    """

    report: Sequence[Path] | None
    overwrite: bool
    output_format: Format
    verbose: bool
    quiet: bool
    dry_run: bool = False

    @property
    def reports(self) -> Sequence[Path]:
        """The files for the report, where files are written."""
        return () if self.dry_run else self.report or ()

    def check(self, result: Path | None, *, inputs: Iterable[object]) -> None:
        """Refuse outputs that can't be written.

        Args:
            result: Where the result goes.
            inputs: What is read, as the user named it; a function of the user's counts as its file.

        Raises:
            OutputError: One can't be written, exists already, is an input, or two are the same.
        """
        read = tuple(file for name in inputs if name and (file := source_file(str(name))))
        check_outputs(None if self.dry_run else result, self.reports, inputs=read, overwrite=self.overwrite)

    @contextmanager
    def working(self, custom_ops: Sequence[Path] | None) -> Iterator[Show | None]:
        """Show progress while the work is done, and the report also where a gate fails."""
        failing = report_of_failure(self.reports, self.output_format, verbose=self.verbose, quiet=self.quiet)
        with failing, custom_operators(custom_ops or []), shown_progress(quiet=self.quiet) as progress:
            yield progress

    def deliver(self, document: Document) -> None:
        """Write the reports that were asked for, and print the document.

        Raises:
            OutputError: A report can't be written.
        """
        deliver(document, self.reports, self.output_format, verbose=self.verbose, quiet=self.quiet)

    def save(self, result: _Result, path: Path) -> None:
        """Write the model that was made, then the reports; print what was done.

        Raises:
            OutputError: A file can't be written.
        """
        self.deliver(result.report if self.dry_run else result.save(path))


def check_outputs(
    result: Path | None,
    reports: Sequence[Path],
    *,
    inputs: tuple[Path, ...],
    overwrite: bool,
    others: Sequence[Path] = (),
    junit: bool = False,
) -> None:
    """Refuse output paths that can't be used; `junit`: a report may be JUnit XML.

    Raises:
        OutputError: One can't be written, exists already, is an input, or two are the same.
    """
    suffixes = (_JUNIT, *_SUFFIXES) if junit else _SUFFIXES
    for path in reports:
        if path.suffix not in suffixes:
            raise OutputError(
                f"a report can't be written as {path.name}",
                hint=f"end it in {', '.join(suffixes[:-1])} or {suffixes[-1]}",
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
        case ".html":
            text = report.html(command=command_line.get())
        case ".xml" if isinstance(report, CheckReport):
            text = junit_xml(report)
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
