"""Write docs/cli.md, the reference of the command line, and the table of passes in docs/recipes.md, from the code.

python tools/cli_reference.py
"""

import dataclasses
import enum
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from onnxcomp import registry
from onnxcomp.cli.app import EXIT_CODES, build_app
from onnxcomp.cli.signature import Command, Parameter, commands

DOCS = Path(__file__).parent.parent / "docs"
TARGET = DOCS / "cli.md"
RECIPES = DOCS / "recipes.md"
_PASSES = re.compile(r"(<!-- passes: [^>]*-->\n).*?(<!-- end of passes -->)", re.DOTALL)
_KINDS = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")  # what the help of an option says where its own default is None


def reference() -> str:
    """Return the text of the reference."""
    found = tuple(commands(build_app()))
    lines = [
        "# Command line",
        "",
        "Written by `python tools/cli_reference.py` from the commands themselves. Options may also come from a",
        "[configuration file](configuration.md).",
        "",
        *(f"- [`onnxcomp {command.name}`](#onnxcomp-{command.name}): {_summary(command)}" for command in found),
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "| --- | --- |",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
        "Results go to standard output, progress and errors to standard error.",
    ]
    for command in found:
        lines += ["", *_command(command)]
    return "\n".join(lines) + "\n"


def with_passes(text: str) -> str:
    """Return the page on recipes with the table of passes as it is now."""
    rows = []
    for name in registry.BUILT_IN:
        found = registry.pass_class(name)
        module = sys.modules[found.__module__]
        summary = (module.__doc__ or "").partition("\n")[0].replace("|", "\\|").replace("``", "`")
        settings = ", ".join(f"`{field.name}`" for field in dataclasses.fields(found.Config))
        rows.append(f"| `{name}` | {'exact' if found.exact else 'lossy'} | {summary} | {settings} |")
    table = "\n".join(["| pass | | what it does | settings |", "| --- | --- | --- | --- |", *rows])
    return _PASSES.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text)


def _summary(command: Command) -> str:
    return command.help.split("\n\n")[0].replace("\n", " ")


def _command(command: Command) -> Iterator[str]:
    arguments = [p for p in command.parameters if not p.flags]
    options = [p for p in command.parameters if p.flags]
    yield f"## onnxcomp {command.name}"
    yield ""
    yield command.help
    yield ""
    yield "```"
    yield " ".join(["onnxcomp", command.name, *(_metavar(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    yield "```"
    if arguments or options:
        yield ""
        yield "| argument or option | value | default | |"
        yield "| --- | --- | --- | --- |"
        yield from (_row(parameter) for parameter in (*arguments, *options))
    examples = [line for line in command.epilog.splitlines() if line.startswith("onnxcomp ")]
    if examples:
        yield ""
        yield "Examples:"
        yield ""
        yield "```"
        yield from examples
        yield "```"


def _metavar(parameter: Parameter) -> str:
    name = parameter.name.upper() + ("..." if parameter.several else "")
    return name if parameter.required else f"[{name}]"


def _row(parameter: Parameter) -> str:
    name = ", ".join(f"`{flag}`" for flag in parameter.flags) or f"`{_metavar(parameter)}`"
    told = _DEFAULT.search(parameter.help)
    default = told[1] if told else _default(parameter)
    cells = [name, _kind(parameter), default, _DEFAULT.sub("", parameter.help)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(parameter: Parameter) -> str:
    text = " or ".join(f"`{choice}`" for choice in parameter.choices) or _KINDS[parameter.kind]
    if parameter.least is not None:
        text += f", at least {parameter.least:g}"
    if parameter.most is not None:
        text += f", at most {parameter.most:g}"
    return f"{text}; may be repeated" if parameter.several and parameter.flags else text


def _default(parameter: Parameter) -> str:
    if parameter.default is None or parameter.default is False or parameter.default == ():
        return ""
    value = parameter.default.value if isinstance(parameter.default, enum.Enum) else parameter.default
    return f"`{value}`"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    RECIPES.write_text(with_passes(RECIPES.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET} and {RECIPES}")
