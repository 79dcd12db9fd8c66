"""What many candidates begin with, made once: pruning with its recovery, rounding of weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe
from onnxcomp.search.memory import Memory

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Front", "Fronts"]

_SLOW = ("recover", "round-weights")


@dataclass(frozen=True, slots=True)
class Front:
    """A model from which recipes go on.

    Attributes:
        model: What the first steps made.
        passes: What they did.
        ctx: For the steps that follow: where activations are others, so are their statistics.
    """

    model: "ir.Model"
    passes: tuple[PassReport, ...]
    ctx: PassContext


class Fronts:
    """Makes the slow first steps of recipes, and keeps what came of them.

    Args:
        cleaned: The model that all recipes start from.
        ctx: Of their passes.
        verifier: Compares each pass's result with the original.
        progress: Told what is going on.
        memory: Keeps what was made.
    """

    def __init__(
        self,
        cleaned: "ir.Model",
        ctx: PassContext,
        verifier: Verifier,
        progress: Callable[[str, float | None], None],
        memory: Memory,
    ) -> None:
        self._verifier = verifier
        self._progress = progress
        self._memory = memory
        self._known = {"": Front(cleaned, (), ctx)}

    def of(self, recipe: Recipe) -> Front:
        """Return what the slow first steps of a recipe make; ``len(passes)`` of its steps are done then."""
        found = self._known[""]
        for place, step in enumerate(recipe.steps, 1):
            if step.name in _SLOW:
                front = Recipe(recipe.steps[:place])
                text = front.to_toml()
                if text not in self._known:
                    self._known[text] = self._made(found, front)
                found = self._known[text]
        return found

    def _made(self, start: Front, front: Recipe) -> Front:
        rest = Recipe(front.steps[len(start.passes) :])
        ctx = start.ctx

        def tell(name: str) -> None:
            self._progress(f"build: {name}", None)

        def make() -> "tuple[ir.Model, tuple[PassReport, ...]]":
            model, reports = run_recipe(start.model, rest, ctx, self._verifier, progress=tell)
            return model, (*start.passes, *reports)

        key = ["front", front.to_toml()]
        model, passes = self._memory.recall_model(f"the model after {front.steps[-1].name}", lambda: key, make)
        if any(step.make().shifts for step in rest.steps):
            ctx = ctx.afresh(model)
        return Front(model, passes, ctx)
