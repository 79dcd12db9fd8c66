"""The command line is a thin layer over the Python API: what both have has the same name and the same default."""

import dataclasses
import enum
import importlib
import inspect
from typing import Any

import pytest

import onnxcomp
from onnxcomp.cli.app import build_app
from onnxcomp.target import Budget, Gates

# What a command alone has: its files, what it prints
OF_THE_COMMAND = {
    "output",
    "report",
    "junit",
    "overwrite",
    "dry_run",
    "output_format",
    "verbose",
    "quiet",
    "custom_ops",
}
OF_OTHER_FUNCTIONS = {"bench": {"bundle", "measurements"}, "inspect": {"other"}, "optimize": {"bundle"}}
# What a function alone has; where it writes, the path is not optional
OF_THE_FUNCTION = {"progress", "path", "overwrite"}
OTHER_NAMES = {"evaluation": "eval", "synthetic": "synthetic_calibration", "technique": "techniques"}
OF_IMAGES = {"image_size", "mean", "std", "layout", "resize"}  # None each; together they are `images`
BOUNDS = {"budget": Budget, "gates": Gates}  # options of their own in a command

COMMANDS = {command.callback.__module__: command.callback for command in build_app().registered_commands}  # type: ignore[union-attr]
VERBS = [name.rpartition(".")[2] for name in COMMANDS if name.rpartition(".")[2] in onnxcomp.__all__]


def defaults(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def of_command(verb: str) -> dict[str, Any]:
    """Return the defaults of a command, by the names of the function."""
    found = defaults(COMMANDS[f"onnxcomp.cli.{verb}"])
    assert all(found.pop(name, None) is None for name in OF_IMAGES)
    for name in ("bench", "streams", "verify"):
        if (switched_off := found.pop(f"no_{name}", None)) is not None:
            found[name] = not switched_off
    others = OF_THE_COMMAND | OF_OTHER_FUNCTIONS.get(verb, set())
    return {OTHER_NAMES.get(name, name): plain(value) for name, value in found.items() if name not in others}


def of_function(verb: str) -> dict[str, Any]:
    """Return the defaults of a function, bounds taken apart as a command has them."""
    found = defaults(getattr(onnxcomp, verb))
    found.pop("images", None)
    for name, kind in BOUNDS.items():
        if name in found:
            assert found.pop(name) is None
            found |= {f.name: f.default for f in dataclasses.fields(kind)}
    return {name: plain(value) for name, value in found.items() if name not in OF_THE_FUNCTION}


def plain(value: Any) -> Any:
    """Take what a command and a function must write differently for the same."""
    if isinstance(value, enum.Enum):
        return value.value
    return None if value in ((), inspect.Parameter.empty) else value


def test_the_verbs_are_found() -> None:
    assert {"bench", "compare", "inspect", "optimize", "quantize"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_commands_and_functions_have_the_same_defaults(verb: str) -> None:
    command, function = of_command(verb), of_function(verb)
    bounds = {field.name for kind in BOUNDS.values() for field in dataclasses.fields(kind)}
    missing = function.keys() - command.keys() - bounds  # a command need not have every bound
    assert not missing
    assert command == {name: value for name, value in function.items() if name in command}


@pytest.mark.parametrize("verb", VERBS)
def test_functions_are_typed_and_take_settings_by_name(verb: str) -> None:
    function = getattr(onnxcomp, verb)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for name, parameter in signature.parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty, name
        has_default = parameter.default is not inspect.Parameter.empty
        assert not has_default or parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
    module = importlib.import_module(function.__module__)
    assert verb in module.__all__
