"""A recipe: which passes run, in which order, with which settings. Text form: TOML.

::

    schema_version = 1

    [[pass]]
    name = "fold-batch-norm"

    [[pass]]
    name = "quantize-static"
    anchors = ["Conv"]
"""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxcomp import registry
from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Need, Pass

__all__ = ["METADATA_KEY", "SCHEMA_VERSION", "Recipe", "Step"]

SCHEMA_VERSION = 1
METADATA_KEY = "onnxcomp.recipe"  # of metadata_props: an optimized model tells how it was made
_FORM = f"a recipe is a TOML file: schema_version = {SCHEMA_VERSION}, and a [[pass]] table with a name for each pass"


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of a recipe with the settings that differ from its defaults."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Pass[Any]:
        """Return the pass, ready to run.

        Raises:
            RecipeError: There is no such pass, or a setting is wrong.
        """
        return registry.pass_class(self.name).from_settings(self.settings)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An ordered list of passes. Every step is checked when the recipe is made.

    Raises:
        RecipeError: A pass or a setting does not exist.
    """

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        for step in self.steps:
            step.make()

    @property
    def needs_calibration(self) -> bool:
        """Whether a step can't run without calibration samples."""
        return any(Need.CALIBRATION in step.make().needs for step in self.steps)

    def check_excluded(self, nodes: Collection[str]) -> None:
        """Refuse names of nodes to leave alone that no node has: it would be rewritten all the same.

        Args:
            nodes: The names that there are; the first ones are proposed where none is alike.

        Raises:
            RecipeError: There is no such node.
        """
        for step in self.steps:
            for name in step.settings.get("exclude", ()):
                if name not in nodes:
                    alike = difflib.get_close_matches(name, nodes, n=5, cutoff=0.5) or list(nodes)[:5]
                    raise RecipeError(
                        f"pass {step.name}: exclude names {name!r}, and there is no such node",
                        hint=f"nodes are called {', '.join(map(repr, alike))}" if alike else "no node has a name",
                    )

    @classmethod
    def from_toml(cls, text: str, *, name: str = "recipe") -> "Recipe":
        """Read a recipe.

        Raises:
            RecipeError: The text is no TOML, or no recipe of a version that this program knows.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as err:
            raise RecipeError(f"{name} is not valid TOML: {err}", hint=_FORM) from err
        version = document.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise RecipeError(f"{name}: schema_version must be {SCHEMA_VERSION}, got {version!r}", hint=_FORM)
        tables = document.pop("pass", [])
        if document:
            raise RecipeError(f"{name}: unknown key {next(iter(document))!r}", hint=_FORM)
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise RecipeError(f"{name}: 'pass' must be a list of tables, written [[pass]]", hint=_FORM)
        steps = []
        for index, table in enumerate(tables):
            settings = dict(table)
            pass_name = settings.pop("name", None)
            if not isinstance(pass_name, str):
                raise RecipeError(f"{name}: pass {index + 1} has no name", hint=_FORM)
            steps.append(Step(pass_name, settings))
        return cls(tuple(steps))

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe file.

        Raises:
            RecipeError: The file can't be read, or is no recipe.
        """
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), name=str(path))
        except (OSError, UnicodeDecodeError) as err:
            reason = getattr(err, "strerror", None) or err
            raise RecipeError(f"cannot read the recipe {path}: {reason}", hint=_FORM) from err

    def to_toml(self) -> str:
        """Return the text form; ``from_toml`` gives the same recipe back."""
        import tomli_w

        tables = [{"name": step.name, **_plain(step.settings)} for step in self.steps]
        return tomli_w.dumps({"schema_version": SCHEMA_VERSION, "pass": tables})


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what TOML can hold of settings: one that is not set is left out."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items() if v is not None}
