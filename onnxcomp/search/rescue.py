"""Brings a candidate that loses too much back inside the budget: the nodes that harm most stay float.

Every unit that the candidate's passes declare is left out once, alone; how much of the output noise goes with it is its
harm. Then the fewest of the most harmful units that satisfy the budget are found by bisection, with the real judge.
Source of the noise model: noise powers of single quantizers add up (Lin et al. 2016, section 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Rescued", "Rescuer"]

_MOST_TRIALS = 64  # units are left out in groups of neighbours where there are more


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring units of one step that are switched together."""

    step: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rescued:
    """A variant of a candidate that keeps some nodes float."""

    model: "ir.Model"
    passes: tuple[PassReport, ...]
    nodes: tuple[str, ...]


class Rescuer:
    """Searches variants of one candidate.

    Args:
        base: The cleaned-up model.
        recipe: The candidate's own steps.
        ctx: Shared by the passes.
        verifier: Judges noise; its samples must not be the evaluation samples.
        progress: Told the share done.
    """

    def __init__(
        self,
        base: "ir.Model",
        recipe: Recipe,
        ctx: PassContext,
        verifier: Verifier,
        *,
        progress: Callable[[float | None], None],
    ) -> None:
        self._ctx = ctx
        self._verifier = verifier
        self._progress = progress
        # Exact steps in front (opset upgrade) are the same for every variant
        passes = [step.make() for step in recipe.steps]
        exact = next((i for i, p in enumerate(passes) if not p.exact), len(passes))
        self._base, _ = run_recipe(base, Recipe(recipe.steps[:exact]), ctx, verifier)
        self._steps = recipe.steps[exact:]

    def rescue(self, acceptable: Callable[["ir.Model"], bool]) -> Rescued | None:
        """Return the variant with the fewest float nodes that is acceptable, or None.

        Args:
            acceptable: Whether a model keeps the budget; asked about the logarithm of the number of groups.
        """
        order = self._by_harm()
        low, high, found = 0, 1, None  # `low` groups are too few; grow until enough, then bisect
        while order and found is None:
            high = min(high, len(order))
            found = self._try(order[:high], acceptable)
            if found is None:
                if high == len(order):
                    return None
                low, high = high, high * 2
        while found is not None and high - low > 1:
            middle = (low + high) // 2
            better = self._try(order[:middle], acceptable)
            low, high, found = (low, middle, better) if better is not None else (middle, high, found)
        return found

    def _by_harm(self) -> list[_Group]:
        """Return the groups that add noise, most harmful first."""
        groups = self._groups()
        everything = self._noise(())
        harm = []
        for index, group in enumerate(groups):
            self._progress(index / len(groups))
            harm.append(everything - self._noise((group,)))
        self._progress(None)
        order = sorted(range(len(groups)), key=lambda i: -harm[i])
        return [groups[i] for i in order if harm[i] > 0]

    def _groups(self) -> list[_Group]:
        model, found = self._base, []
        for index, step in enumerate(self._steps):
            nodes = [unit.name for unit in step.make().units(model, self._ctx)]
            found += [(index, name) for name in nodes]
            model, _ = run_recipe(model, Recipe((step,)), self._ctx, self._verifier)
        size = -(-len(found) // _MOST_TRIALS)
        groups = []
        for index in range(len(self._steps)):
            nodes = [name for step, name in found if step == index]
            groups += [_Group(index, tuple(nodes[i : i + size])) for i in range(0, len(nodes), size)]
        return groups

    def _noise(self, groups: Sequence[_Group]) -> float:
        """Return the noise power that is left when these groups stay float."""
        _, reports = self._build(groups)
        return next((report.noise for report in reversed(reports) if report.noise is not None), math.inf)

    def _try(self, groups: Sequence[_Group], acceptable: Callable[["ir.Model"], bool]) -> Rescued | None:
        model, reports = self._build(groups)
        if not any(report.modified for report in reports) or not acceptable(model):
            return None
        return Rescued(model, tuple(reports), tuple(name for group in groups for name in group.nodes))

    def _build(self, groups: Sequence[_Group]) -> tuple["ir.Model", list[PassReport]]:
        steps = []
        for index, step in enumerate(self._steps):
            names = [name for group in groups if group.step == index for name in group.nodes]
            settings: dict[str, Any] = dict(step.settings)
            if names:
                settings["exclude"] = [*settings.get("exclude", ()), *names]
            steps.append(Step(step.name, settings))
        return run_recipe(self._base, Recipe(tuple(steps)), self._ctx, self._verifier)
