"""Documents that were saved as JSON, read back into the values that they were made from."""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from onnxcomp.errors import DataError
from onnxcomp.report.document import SCHEMA_VERSION, Document

__all__ = ["read_content", "read_document"]

D = TypeVar("D", bound=Document)
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, StopIteration)


def read_content(path: str | os.PathLike[str], *, kind: str | None, what: str, hint: str) -> dict[str, Any]:
    """Read what a document was saved as, without looking into it.

    Args:
        path: Of the JSON.
        kind: Of the document; None: any.
        what: What the file is to be, for the message.
        hint: How such a file is made.

    Raises:
        DataError: It can't be read, or is of another kind or version of the format.
    """
    where = os.fspath(path)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:  # ValueError: no UTF-8, no JSON, a NUL in the path
        reason = err.strerror if isinstance(err, OSError) else err
        raise DataError(f"cannot read the {what} {where}: {reason}", hint=hint) from err
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str) or kind not in (None, found["kind"]):
        raise DataError(f"{where} is no {what} of onnxcomp", hint=hint)
    if found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{where} was written by another version of the format", hint=hint)
    return found


def read_document(path: str | os.PathLike[str], kind: type[D], *, what: str, hint: str) -> D:
    """Read a document of one kind.

    Args:
        path: Of the JSON.
        kind: The class of the document; its content must be its fields.
        what: What the file is to be, for the message.
        hint: How such a file is made.

    Raises:
        DataError: It can't be read, is of another kind or version of the format, or a value is not of its type.
    """
    found = read_content(path, kind=kind.kind, what=what, hint=hint)
    try:
        document: D = _value(found, kind)
    except _DAMAGED as err:
        raise DataError(f"{os.fspath(path)} is damaged: {type(err).__name__}: {err}", hint=hint) from err
    return document


def _value(found: Any, kind: Any) -> Any:
    """Turn what JSON holds into a value of a type; a number that JSON lacks, which is null there, into infinity."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(one for one in arguments if one is not types.NoneType)
        return None if found is None else _value(found, inner)
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return _dataclass(found, kind)
    if origin is Literal:
        if found not in arguments:
            raise ValueError(f"{found!r} is none of {', '.join(map(str, arguments))}")
        return found
    if origin is tuple:
        return tuple(_value(one, arguments[0]) for one in _of(found, list))
    if origin is not None and issubclass(origin, Mapping):
        return {str(key): _value(one, arguments[1]) for key, one in _of(found, dict).items()}
    if kind is float:
        return math.inf if found is None else float(_of(found, int, float))
    return _of(found, kind)


def _dataclass(found: Any, kind: type) -> Any:
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in _of(found, dict):
            values[field.name] = _value(found[field.name], hints[field.name])
        elif field.default is dataclasses.MISSING:
            raise KeyError(field.name)
    return kind(**values)


def _of(found: Any, *kinds: type) -> Any:
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        raise TypeError(f"{str(found)[:80]!r} is no {kinds[0].__name__}")
    return found
