"""What the commands take, read from their functions: for the configuration file and for the reference."""

import enum
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

__all__ = ["Command", "Parameter", "commands"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument or option of a command.

    Attributes:
        name: Of the function's parameter.
        flags: ``--max-drop``, ``-o``; empty: it is an argument.
        kind: Type of one value: bool, int, float, str, Path or an enumeration.
        several: Whether it takes several values.
        default: What it is if not given; None: nothing.
        required: Whether it must be given.
        least: Smallest value.
        most: Largest value.
        help: One sentence.
    """

    name: str
    flags: tuple[str, ...]
    kind: type[Any]
    several: bool
    default: object
    required: bool
    least: float | None
    most: float | None
    help: str

    @property
    def key(self) -> str:
        """Its name in a configuration file: the long flag without dashes."""
        return next((flag for flag in self.flags if flag.startswith("--")), "").removeprefix("--")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, where they are a closed list."""
        return tuple(str(member.value) for member in self.kind) if issubclass(self.kind, enum.Enum) else ()


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, what it does, what follows in its help (examples), and what it takes."""

    name: str
    help: str
    epilog: str
    parameters: tuple[Parameter, ...]


def commands(app: typer.Typer) -> Iterator[Command]:
    """Yield the commands of an application, in the order in which its help lists them."""
    for info in app.registered_commands:
        function = info.callback
        assert function is not None
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function).parameters
        found = tuple(_parameter(p, hints[p.name]) for p in signature.values())
        yield Command(str(info.name), inspect.getdoc(function) or "", info.epilog or "", found)


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    kind, *extras = typing.get_args(hint)
    info = next(extra for extra in extras if isinstance(extra, ParameterInfo))
    kind, several = _one(kind)
    # typer takes the first flag for the default, until it finds the real one behind the annotation
    declared = tuple(str(f) for f in (info.default, *(info.param_decls or ())) if str(f).startswith("-"))
    flags = declared or (f"--{parameter.name.replace('_', '-')}",)
    required = parameter.default is inspect.Parameter.empty
    assert isinstance(info, ArgumentInfo | OptionInfo)
    return Parameter(
        name=parameter.name,
        flags=() if isinstance(info, ArgumentInfo) else flags,
        kind=kind,
        several=several,
        default=None if required else parameter.default,
        required=required,
        least=info.min,
        most=info.max,
        help=info.help or "",
    )


def _one(hint: Any) -> tuple[type[Any], bool]:
    """Return the type of one value, and whether there may be several."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (choice for choice in typing.get_args(hint) if choice is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    assert isinstance(hint, type)
    return hint, False
