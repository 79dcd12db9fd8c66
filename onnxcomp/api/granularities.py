"""The table of ``prune --granularity``: for each the pass that removes things of that kind."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from onnxcomp import registry
from onnxcomp.errors import UsageError
from onnxcomp.recipe import Step

__all__ = ["GRANULARITIES", "RECOVERIES", "Granularity", "get_granularity"]

RECOVERIES = ("least-squares", "distill", "bias", "affine", "none")


@dataclass(frozen=True, slots=True)
class Granularity:
    """One kind of thing that can be removed.

    Attributes:
        name: As given to ``--granularity``.
        work: Name of the pass that removes it.
        names: What options are called among its settings, where that differs.
        settings: Of the pass, the same for all.
        recovers: Whether the pass itself makes up for what it removes; else the pass ``recover`` does, behind it.
    """

    name: str
    work: str
    names: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    recovers: bool = False

    def step(self, options: Mapping[str, Any], *, recovery: str, steps: int) -> Step:
        """Return the pruning step with the settings that were asked for.

        Args:
            options: By the name of the command-line option; None, nothing and 0 mean the pass's default.
            recovery: Of `RECOVERIES`.
            steps: In how many the target is reached.

        Raises:
            UsageError: It has no such setting.
            RecipeError: A value is wrong.
        """
        known = {each.name for each in dataclasses.fields(registry.pass_class(self.work).Config)}
        settings = dict(self.settings)
        for option, value in options.items():
            name = self.names.get(option, option)
            if value is None or value == [] or (option == "seed" and (not value or name not in known)):
                continue
            if name not in known or name in self.settings:
                raise UsageError(f"granularity {self.name} has no --{option}", hint=f"onnxcomp passes {self.work}")
            settings[name] = value
        if self.recovers:
            if recovery not in ("least-squares", "none"):
                raise UsageError(f"granularity {self.name} has no recovery {recovery}", hint="least-squares, or none")
            settings |= {"recover": False} if recovery == "none" else {}
            settings |= {"schedule": "polynomial", "steps": steps} if steps > 1 else {}
        step = Step(self.work, settings)
        step.make()
        return step

    def after(self, recovery: str) -> tuple[Step, ...]:
        """Return what comes behind each pruning step."""
        if self.recovers or recovery == "none":
            return ()
        if recovery == "distill":
            return Step("recover", {"spare": 8}), Step("distill")  # what judges the second is not fitted by the first
        return (Step("recover", {"method": recovery}),)


_WEIGHTS = {"ratio": "sparsity", "criterion": "method"}
_PATTERN = re.compile(r"\d{1,2}:\d{1,2}")

GRANULARITIES: Mapping[str, Granularity] = MappingProxyType(
    {
        each.name: each
        for each in (
            Granularity("channel", "prune-channels"),
            Granularity("dim", "prune-channels", settings={"granularity": "dim"}),
            Granularity("block", "prune-blocks"),
            Granularity("weight", "prune-weights", _WEIGHTS, recovers=True),
        )
    }
)


def get_granularity(name: str) -> Granularity:
    """Return the granularity of that name; ``2:4`` and the like are patterns of weights.

    Raises:
        UsageError: There is none.
    """
    if _PATTERN.fullmatch(name):
        names = {"criterion": "method", "ratio": "pattern"}  # which says the ratio
        return Granularity(name, "prune-weights", names, {"pattern": name}, recovers=True)
    if name not in GRANULARITIES:
        raise UsageError(f"unknown granularity {name!r}", hint=f"one of: {', '.join(GRANULARITIES)}, 2:4")
    return GRANULARITIES[name]
