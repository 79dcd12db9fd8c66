"""Write docs/cli.md and docs/passes.md, the references, and tables of passes and of targets, from the code.

The tables stand in docs/recipes.md and docs/targets.md.

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
from onnxcomp.cli.passes import described
from onnxcomp.cli.signature import Command, Parameter, commands
from onnxcomp.target import TARGETS, Role

DOCS = Path(__file__).parent.parent / "docs"
TARGET = DOCS / "cli.md"
PASSES = DOCS / "passes.md"
RECIPES = DOCS / "recipes.md"
TARGETS_PAGE = DOCS / "targets.md"
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


def passes() -> str:
    """Return the page with all about every pass."""
    lines = [
        "# Passes",
        "",
        "Written by `python tools/cli_reference.py`: what `onnxcomp passes NAME` shows of each. Recipes put",
    ]
    lines += ["them in order, see [Recipes](recipes.md)."]
    for name in registry.BUILT_IN:
        lines += ["", f"## {name}", "", "```text", *described(name, registry.pass_class(name)), "```"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def with_passes(text: str) -> str:
    """Return the page on recipes with the table of passes as it is now."""
    rows = []
    for name in registry.BUILT_IN:
        found = registry.pass_class(name)
        module = sys.modules[found.__module__]
        summary = (module.__doc__ or "").partition("\n")[0].replace("|", "\\|").replace("``", "`")
        settings = ", ".join(f"`{field.name}`" for field in dataclasses.fields(found.Config))
        rows.append(f"| `{name}` | {'exact' if found.exact else 'lossy'} | {summary} | {settings} |")
    return _placed(text, "passes", ["| pass | | what it does | settings |", "| --- | --- | --- | --- |", *rows])


def with_targets(text: str) -> str:
    """Return the page on targets with its tables as the facts are now."""
    every = TARGETS.values()
    facts = [
        "| target | what it stands for | verified | activations | weights | bias | dynamic INT8 | float16 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for t in every:
        activations = f"{t.activations}{', symmetric' if t.symmetric else ''}"
        weights = f"{t.weights}{', 7 bits' if t.reduce_range else ''}"
        integer = f"{activations} | {weights} | {'int32' if t.quantized_bias else 'float'}"
        facts.append(
            f"| `{t.name}` | {t.meaning} | {'yes' if t.verified else 'no'} | "
            f"{integer if t.no_static is None else 'none | none | none'} | "
            f"{', '.join(sorted(t.dynamic)) or 'none'} | {'faster' if t.float16 else ''} |"
        )
    words = {Role.ANCHOR: "anchor", Role.JOIN: "join", Role.MOVE: "mover"}
    roles = [f"| operator | {' | '.join(TARGETS)} |", f"| --- |{' --- |' * len(TARGETS)}"]
    for operator in sorted({operator for t in every for operator in t.roles}):
        found = (words.get(t.roles[operator], "") if operator in t.roles else "" for t in every)
        roles.append(f"| {operator} | {' | '.join(found)} |")
    return _placed(_placed(text, "targets", facts), "roles", roles)


def _placed(text: str, name: str, table: list[str]) -> str:
    """Return a page with a table between the marks of that name."""
    marks = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    return marks.sub(lambda match: "\n".join([match[1].rstrip(), *table, match[2]]), text)


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
    PASSES.write_text(passes(), encoding="utf-8")
    RECIPES.write_text(with_passes(RECIPES.read_text(encoding="utf-8")), encoding="utf-8")
    TARGETS_PAGE.write_text(with_targets(TARGETS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}, {PASSES}, {RECIPES} and {TARGETS_PAGE}")
