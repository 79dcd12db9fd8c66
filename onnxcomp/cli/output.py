"""Output files of commands: checked before any work, written atomically."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnxcomp.errors import GateFailed, OutputError
from onnxcomp.report import Report, render_text

__all__ = ["check_outputs", "report_of_failure", "write_report"]

_SUFFIXES = (".json", ".txt")


def check_outputs(model: Path, reports: Sequence[Path], *, inputs: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse output paths that can't be used.

    Raises:
        OutputError: One can't be written, exists already, is an input, or two are the same.
    """
    from onnxcomp.model import check_output

    for path in reports:
        if path.suffix not in _SUFFIXES:
            raise OutputError(f"a report can't be written as {path.name}", hint=f"end it in {' or '.join(_SUFFIXES)}")
    paths = [model, *reports]
    if len({os.path.realpath(path) for path in paths}) < len(paths):  # Path.resolve raises where links form a ring
        raise OutputError("two outputs have the same path")
    for path in paths:
        check_output(path, inputs=inputs, overwrite=overwrite)


@contextmanager
def report_of_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Write the reports also where a gate failed: that is where they are read."""
    try:
        yield
    except GateFailed as err:
        if isinstance(err.report, Report):
            for path in paths:
                write_report(err.report, path)
        raise


def write_report(report: Report, path: Path) -> None:
    """Write a report in the form that its suffix names.

    Raises:
        OutputError: The path can't be written.
    """
    text = report.to_json() if path.suffix == ".json" else render_text(report, verbose=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder, path.name)
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            temporary.replace(path)
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror or err}") from err
