"""The JSON schema of all reports, read from the types of what commands return: ``python tools/report_schema.py``.

Writes ``docs/report.schema.json`` (JSON Schema, draft 2020-12). A test compares that file with what this makes, and
validates reports of every command against it. Numbers may be null: JSON has no infinity.
"""

import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from onnxcomp import report
from onnxcomp.report import SCHEMA_VERSION, Document

__all__ = ["FILE", "kinds", "main", "schema"]

FILE = Path(__file__).parent.parent / "docs" / "report.schema.json"

_ATTRIBUTE = re.compile(r"^    (\w+): (.*\n?(?:     .*\n?)*)", flags=re.MULTILINE)
_PLAIN: dict[Any, Any] = {
    Any: {},
    bool: {"type": "boolean"},
    float: {"type": ["number", "null"]},
    int: {"type": "integer"},
    str: {"type": "string"},
    type(None): {"type": "null"},
}


def schema() -> dict[str, Any]:
    """Return the schema of what `Document.to_dict` gives."""
    definitions: dict[str, Any] = {}
    documents = {kind: _document(kind, of, definitions) for kind, of in kinds().items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Reports of onnxcomp",
        "description": "What --format json prints and --report FILE.json writes; kind names the command.",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in documents],
        "$defs": documents | dict(sorted(definitions.items())),
    }


def kinds() -> dict[str, type[Document]]:
    """Return the documents that commands return, by kind."""
    for module in pkgutil.iter_modules(report.__path__, f"{report.__name__}."):
        importlib.import_module(module.name)
    found, queue = {}, [Document]
    while queue:
        queue += (of := queue.pop()).__subclasses__()
        if not inspect.isabstract(of):
            found[of.kind] = of
    return dict(sorted(found.items()))


def _document(kind: str, of: type[Document], definitions: dict[str, Any]) -> dict[str, Any]:
    head = {"schema_version": {"const": SCHEMA_VERSION}, "kind": {"const": kind}}
    texts = _attributes(*of.__mro__)
    fields = {name: _described(_of(type_, definitions), texts.get(name)) for name, type_ in of.content_types().items()}
    return _object(head | fields, _summary(of))


def _of(type_: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type of field."""
    if type_ in _PLAIN:
        return dict(_PLAIN[type_])
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(argument, definitions) for argument in arguments]}
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        if origin is tuple and arguments[-1] is not Ellipsis:
            raise TypeError(f"a tuple of a fixed length has no place in a report: {type_}")
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if inspect.isclass(type_) and issubclass(type_, enum.Enum):
        return {"enum": [member.value for member in type_]}
    if dataclasses.is_dataclass(type_):
        return _reference(typing.cast(type, type_), definitions)
    raise TypeError(f"no schema for {type_}")


def _reference(of: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """Define an inner dataclass, once, and refer to it."""
    name = of.__name__
    if name not in definitions:
        definitions[name] = {}  # it may hold itself
        texts, hints = _attributes(of), typing.get_type_hints(of)
        fields = {
            field.name: _described(_of(hints[field.name], definitions), texts.get(field.name))
            for field in dataclasses.fields(of)
        }
        definitions[name] = _object(fields, _summary(of))
    return {"$ref": f"#/$defs/{name}"}


def _object(fields: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _described(found: dict[str, Any], text: str | None) -> dict[str, Any]:
    return {"description": text, **found} if text else found


def _summary(of: type) -> str:
    return inspect.cleandoc(of.__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")


def _attributes(*classes: type) -> dict[str, str]:
    """Return what the docstrings' lists of attributes say of each."""
    found: dict[str, str] = {}
    for of in classes:
        text = inspect.cleandoc(vars(of).get("__doc__") or "")
        listed = re.search(r"^Attributes:\n((?:    .*\n?)+)", text, flags=re.MULTILINE)
        for name, said in re.findall(
            r"^    (\w+): ((?:.*\n?)(?:     .*\n?)*)", listed[1] if listed else "", flags=re.M
        ):
            found.setdefault(name, " ".join(said.split()))
    return found


def main() -> None:
    """Write the schema."""
    FILE.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
