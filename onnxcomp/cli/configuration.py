"""Defaults of options from a file of the project: ``onnxcomp.toml``, or ``[tool.onnxcomp]`` of ``pyproject.toml``.

::

    threads = 2                # of every command that has the option

    [optimize]                 # of this command alone
    calibration = "data/calib.npz"
    max-drop = 0.005

The nearest file counts, from the current folder up to that which holds ``.git``. The command line wins over it.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxcomp.cli.signature import Command, Parameter
from onnxcomp.errors import UsageError

__all__ = ["Configuration", "command_line", "file_values", "read_configuration", "used_file"]

_HINT = "correct it, or leave it out: onnxcomp --no-config ..."
_NAME = "onnxcomp.toml"
_PROJECT = "pyproject.toml"
# TOML's own names of what a value may be
_NUMBERS_AS_TEXT = frozenset({"image_size", "mean", "std", "resize"})
_SPELT = {bool: "true or false", int: "a whole number", float: "a number"}

used_file: ContextVar[Path | None] = ContextVar("used_file", default=None)
"""The file whose values the command that runs now has taken, where it has; the reports name it."""

command_line: ContextVar[str | None] = ContextVar("command_line", default=None)
"""The command that runs now, as it would be typed into a shell; pages say how they were made."""

file_values: ContextVar[Mapping[str, Any]] = ContextVar("file_values", default=MappingProxyType({}))
"""The values in it for this command, by the name of the function's parameter."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file and the values in it, by command and by the name of the function's parameter."""

    path: Path
    values: Mapping[str, Mapping[str, Any]]


def read_configuration(folder: Path, known: Iterable[Command]) -> Configuration | None:
    """Find, read and check the configuration that counts in a folder; None: there is none.

    Raises:
        UsageError: It can't be read, names something that does not exist, or a value has the wrong type or range.
    """
    found = _find(folder)
    if found is None:
        return None
    path, table = found
    known = tuple(known)
    commands = {command.name: {p.key: p for p in command.parameters if p.key} for command in known}
    arguments = {command.name: {p.name for p in command.parameters if not p.key} for command in known}
    values: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in table.items():
        if key in commands:
            continue
        owners = [name for name, options in commands.items() if key in options]
        if not owners:
            every = {*commands, *(option for options in commands.values() for option in options)}
            raise _unknown(path, key, "command or option", every)
        for name in owners:
            values[name][commands[name][key].name] = _value(path, key, value, commands[name][key])
    for name in commands.keys() & table.keys():
        if not isinstance(table[name], dict):
            raise UsageError(f"{path}: {name} must be a table", hint=f"write [{name}], and options below it")
        for key, value in table[name].items():
            if key in arguments[name]:
                hint = f"it is no option: onnxcomp {name} takes it from the command line"
                raise UsageError(f"{path}: '{name}.{key}' can't be set here", hint=hint)
            if key not in commands[name]:
                raise _unknown(path, f"{name}.{key}", "option", {f"{name}.{option}" for option in commands[name]})
            option = commands[name][key]
            values[name][option.name] = _value(path, f"{name}.{key}", value, option)
    return Configuration(path, values)


def _find(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    for place in (folder, *folder.parents):
        if (path := place / _NAME).is_file():
            return path, _load(path)
        if (path := place / _PROJECT).is_file():
            table = _load(path).get("tool", {}).get("onnxcomp")
            if isinstance(table, dict):
                return path, table
        if (place / ".git").exists():
            return None
    return None


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as err:
        raise UsageError(f"{path} is not valid TOML: {err}", hint=_HINT) from err
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"cannot read {path}: {err}", hint=_HINT) from err


def _unknown(path: Path, key: str, what: str, known: Iterable[str]) -> UsageError:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "onnxcomp COMMAND --help lists the options"
    return UsageError(f"{path}: there is no {what} {key!r}", hint=hint)


def _value(path: Path, key: str, value: object, option: Parameter) -> Any:
    """Return a value as the option takes it; refuse what it does not take."""
    if not option.several:
        return _single(path, key, value, option)
    if not isinstance(value, list):
        raise UsageError(f"{path}: {key} must be a list, got {value!r}", hint=f'write {key} = ["..."]')
    return [_single(path, key, entry, option) for entry in value]


def _single(path: Path, key: str, value: object, option: Parameter) -> Any:
    hint = f"onnxcomp COMMAND --help tells what --{option.key} takes"
    if option.name in _NUMBERS_AS_TEXT:
        value = _as_text(value)
    wanted = option.kind if option.kind in (bool, int, float) else str
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"{path}: {key} must be {_SPELT.get(wanted, 'a text')}, got {value!r}", hint=hint)
    if option.choices and value not in option.choices:
        raise UsageError(f"{path}: {key} must be one of {', '.join(option.choices)}, got {value!r}", hint=hint)
    if isinstance(value, int | float) and not isinstance(value, bool):
        below = option.least is not None and value < option.least
        if below or (option.most is not None and value > option.most):
            bounds = f"at least {option.least:g}" if below else f"at most {option.most:g}"
            raise UsageError(f"{path}: {key} must be {bounds}, got {value!r}", hint=hint)
    if isinstance(value, str) and not option.choices:
        return _beside(path.parent, value, is_path=option.kind is Path)
    return value


def _as_text(value: object) -> object:
    """Write a number, or a list of numbers, as on the command line; leave the rest."""
    numbers = value if isinstance(value, list) else [value]
    if numbers and all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return ",".join(map(str, numbers))
    return value


def _beside(folder: Path, text: str, *, is_path: bool) -> str:
    """Read a path from the folder of the file that names it; a text that is a path only if such a file is there.

    A function's file, as in ``metric.py:score``, is a path with something behind it.
    """
    if is_path:
        return os.fspath(folder / text)
    name, colon, rest = text.partition(":")
    named = folder / name
    return f"{named}{colon}{rest}" if ("." in name or "/" in name) and named.exists() else text
