"""The page of a report that was saved as JSON."""

import os

from onnxcomp.errors import DataError
from onnxcomp.report.html import render_html
from onnxcomp.report.reading import read_content

__all__ = ["render_saved"]

_HINT = "a report is what --report FILE.json writes"
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def render_saved(path: str | os.PathLike[str]) -> str:
    """Return the page of a saved report of any command.

    Raises:
        DataError: The file can't be read, or is no report of this version of the format.
    """
    found = read_content(path, kind=None, what="report", hint=_HINT)
    try:
        return render_html(found)
    except _DAMAGE as err:
        raise DataError(f"{os.fspath(path)} is damaged: {type(err).__name__}: {err}", hint=_HINT) from err
