"""``onnxcomp passes [NAME]``."""

import dataclasses
import inspect
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    name: Annotated[str | None, typer.Argument(help="Show this pass in full.", show_default=False)] = None,
) -> None:
    """List the passes that a recipe can name, or show one: what it rewrites, when it declines, its settings."""
    from onnxcomp import registry

    if name is None:
        width = max(map(len, registry.names()))
        for known in registry.names():
            typer.echo(f"{known:{width}}  {_summary(registry.pass_class(known))}")
        return
    found = registry.pass_class(name)
    module = inspect.getmodule(found)
    typer.echo(f"{name} ({'exact' if found.exact else 'lossy'})\n\n{inspect.cleandoc(module.__doc__ or '')}")
    if fields := dataclasses.fields(found.Config):
        typer.echo("\nSettings:")
        for field in fields:
            typer.echo(f"  {field.name} = {field.default!r}")


def _summary(pass_class: type) -> str:
    module = inspect.getmodule(pass_class)
    return inspect.cleandoc((module.__doc__ if module else None) or "").split("\n", 1)[0]
