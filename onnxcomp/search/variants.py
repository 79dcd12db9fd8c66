"""Variants of one recipe: the same passes with some of their units left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.passbase import Pass, PassContext, Simulation, Unit
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Switch", "Variant", "Variants"]


@dataclass(frozen=True, slots=True)
class Switch:
    """Units of one step that are left out together.

    Attributes:
        step: Index of the step among those that have units.
        nodes: Names of the nodes.
        tails: Names of nodes that the pass does in another way with them.
    """

    step: int
    nodes: tuple[str, ...]
    tails: tuple[str, ...] = ()

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of all nodes that are another way when the units are left out."""
        return (*self.nodes, *self.tails)


@dataclass(frozen=True, slots=True)
class Variant:
    """A built variant, with the recipe that makes it from the same base."""

    model: "ir.Model"
    passes: tuple[PassReport, ...]
    recipe: Recipe

    @property
    def modified(self) -> bool:
        """Whether any pass did anything."""
        return any(report.modified for report in self.passes)


class Variants:
    """Builds variants of a recipe.

    Args:
        base: The model that the recipe starts from.
        recipe: Its steps; a pass with units has a setting ``exclude`` that takes their names.
        ctx: Shared by the passes.
        verifier: Compares outputs after every pass.
        done: How many of the first steps the base has behind it.
    """

    def __init__(
        self, base: "ir.Model", recipe: Recipe, ctx: PassContext, verifier: Verifier, *, done: int = 0
    ) -> None:
        self._ctx = ctx
        self._verifier = verifier
        # Steps in front that have no units (opset upgrade, rounding of weights) are the same for every variant
        passes = [step.make() for step in recipe.steps]
        whole = next((i for i, p in enumerate(passes) if not p.exact and type(p).units is not Pass.units), len(passes))
        whole = max(whole, done)
        self._front = recipe.steps[:whole]
        self._steps = recipe.steps[whole:]
        self.names = tuple(step.name for step in self._steps)
        self._base, _ = run_recipe(base, Recipe(self._front[done:]), ctx, verifier)

    def units(self) -> list[list[Unit]]:
        """Return what each step could leave out, by step."""
        model, found = self._base, []
        for step in self._steps:
            found.append(step.make().units(model, self._ctx))
            model, _ = run_recipe(model, Recipe((step,)), self._ctx, self._verifier)
        self._ctx.skipped.clear()
        return found

    def simulation(self) -> Simulation | None:
        """Return the simulation of the first step, where it has one."""
        found = self._steps[0].make().simulate(self._base, self._ctx) if self._steps else None
        self._ctx.skipped.clear()
        return found

    @property
    def base(self) -> "ir.Model":
        """What the first step that has units gets."""
        return self._base

    @property
    def verifier(self) -> Verifier:
        """What compares the variants with the original."""
        return self._verifier

    def build(self, switches: Iterable[Switch]) -> Variant:
        """Build the variant that leaves these units out; a step that can leave nothing out stays as it is."""
        switches = list(switches)
        steps = []
        for index, step in enumerate(self._steps):
            if not hasattr(step.make().config, "exclude"):
                steps.append(step)
                continue
            names = [name for switch in switches if switch.step == index for name in switch.nodes]
            settings: dict[str, Any] = dict(step.settings)
            if names:
                settings["exclude"] = [*settings.get("exclude", ()), *names]
            steps.append(Step(step.name, settings))
        model, reports = run_recipe(self._base, Recipe(tuple(steps)), self._ctx, self._verifier)
        return Variant(model, tuple(reports), Recipe((*self._front, *steps)))
