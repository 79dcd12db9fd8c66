"""``onnxcomp passes [NAME]``."""

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from onnxcomp.passbase import Pass

__all__ = ["EXAMPLES", "command", "described"]

EXAMPLES = """Examples:

onnxcomp passes

onnxcomp passes quantize-static
"""
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def command(
    name: Annotated[str | None, typer.Argument(help="Show this pass in full.", show_default=False)] = None,
) -> None:
    """List the passes that a recipe can name, or show one: what it rewrites, when it declines, its settings."""
    from onnxcomp import registry
    from onnxcomp.cli.streams import show

    if name is None:
        width = max(map(len, registry.names()))
        lines = [f"{known:{width}}  {_summary(registry.pass_class(known))}" for known in registry.names()]
    else:
        lines = list(described(name, registry.pass_class(name)))
    show("\n".join(lines) + "\n")


def _summary(found: "type[Pass[Any]]") -> str:
    return _text(found).split("\n", 1)[0]


def _text(found: "type[Pass[Any]]") -> str:
    module = inspect.getmodule(found)
    return inspect.cleandoc((module.__doc__ if module else None) or "")


def described(name: str, found: "type[Pass[Any]]") -> Iterator[str]:
    """Yield the lines that tell all about a pass."""
    needs = ", ".join(sorted(need.value for need in found.needs))
    kind = "exact: answers stay equal up to rounding" if found.exact else "lossy: judged by the budget"
    yield f"{name} ({kind})" + (f"; needs {needs}" if needs else "")
    yield ""
    yield _text(found)
    fields = dataclasses.fields(found.Config)
    if fields:
        meanings = dict(_ATTRIBUTE.findall(inspect.cleandoc(found.Config.__doc__ or "")))
        hints = typing.get_type_hints(found.Config)
        yield ""
        yield "Settings:"
        for field in fields:
            yield f"  {field.name} ({_kind(hints[field.name])}): {' '.join(meanings.get(field.name, '').split())}"
            if choices := found.choices.get(field.name):
                yield f"    a search tries: {', '.join(map(str, choices))}"
    yield ""
    yield "In a recipe, with its defaults:"
    yield ""
    yield "[[pass]]"
    yield f'name = "{name}"'
    yield from (_assignment(field.name, getattr(found.Config(), field.name)) for field in fields)


def _kind(hint: Any) -> str:
    """Write a type as TOML's users know it."""
    arguments = [argument for argument in typing.get_args(hint) if argument not in (type(None), ...)]
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, arguments))
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(arguments[0])}s"
    if arguments:
        return " or ".join(_kind(argument) for argument in arguments)
    spelt: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return spelt.get(hint) or str(getattr(hint, "__name__", hint))


def _assignment(name: str, value: object) -> str:
    """Write a setting as TOML, which has no word for None: then it is left out."""
    if value is None:
        return f"# {name} is left out"
    return f"{name} = {json.dumps(value)}"  # of numbers, texts, truth and lists of them, JSON and TOML write the same
