"""The page of a report that was saved as JSON."""

import json
import os
from pathlib import Path

from onnxcomp.errors import DataError
from onnxcomp.report.document import SCHEMA_VERSION
from onnxcomp.report.html import render_html

__all__ = ["render_saved"]

_HINT = "a report is what --report FILE.json writes"
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def render_saved(path: str | os.PathLike[str]) -> str:
    """Return the page of a saved report of any command.

    Raises:
        DataError: The file can't be read, or is no report of this version of the format.
    """
    where = os.fspath(path)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:  # ValueError: no UTF-8, no JSON, a NUL in the path
        reason = err.strerror if isinstance(err, OSError) else err
        raise DataError(f"cannot read the report {where}: {reason}", hint=_HINT) from err
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise DataError(f"{where} is no report of onnxcomp", hint=_HINT)
    if found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{where} was written by another version of the format", hint=_HINT)
    try:
        return render_html(found)
    except _DAMAGE as err:
        raise DataError(f"{where} is damaged: {type(err).__name__}: {err}", hint=_HINT) from err
