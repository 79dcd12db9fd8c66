"""Looks for the most channels that can go: prune, recover, and then what is done to the best model anyway.

How much is bisected on the float model, which costs no calibration; what is found is then built whole, milder where
that loses too much. Amounts that come to the same channels are recovered and judged once. Whether it is kept, times
decide.
"""

from collections.abc import Callable

from onnxcomp.data import SyntheticSamples
from onnxcomp.recipe import Recipe
from onnxcomp.search.build import Builder, Built
from onnxcomp.search.candidates import pruned
from onnxcomp.search.work import Work
from onnxcomp.target import Goal

__all__ = ["may_prune", "prune"]

_KEPT = tuple(share / 100 for share in range(95, 5, -5))  # of the model's cost, mild to bold
_MILDER = 3  # whole candidates that are tried, each milder than the one before


def may_prune(work: Work) -> bool:
    """Say whether to try. Where made-up inputs, or what judges, tell which channels matter: only where named."""
    if work.calibration is None:
        return False
    if work.techniques is not None:
        return "prune" in work.techniques
    return not work.task.fitted and not isinstance(work.calibration, SyntheticSamples)


def prune(
    best: Built | None, builder: Builder, judge: Callable[[Built], None], *, goal: Goal, late: Callable[[], bool]
) -> tuple[list[Built], Built | None]:
    """Return judged candidates with fewer channels, and the boldest whole one that keeps the budget, if one does.

    Args:
        best: What they are to be better than; its recipe follows the pruning. None: nothing follows.
        builder: Makes them.
        judge: Fills in a candidate's quality, and why it is rejected.
        goal: What costs count: parameters for ``size``, else multiply-accumulate operations.
        late: Whether to be content with what has been found.
    """
    what = "params" if goal == "size" else "macs"
    tried: dict[tuple[str, str], Built] = {}

    def attempt(kept: float, name: str, follow: Recipe) -> Built | None:
        candidate = pruned(name, follow, {what: kept})
        outcome = builder.outcome(candidate.recipe.steps[0])
        if outcome is None:
            return None
        if (outcome, name) in tried:  # rounded counts of channels: other amounts may come to the same model
            return tried[outcome, name]
        (made,) = builder.build([candidate]) or (None,)
        if made is None or not made.result.passes[0].modified:
            return None
        made.rescued = True  # it is milder ones that repair it
        tried[outcome, name] = made
        if made.result.rejected is None:
            judge(made)
        return made

    found: Built | None = None
    mild, bold = -1, len(_KEPT)  # the boldest that keeps the budget, the mildest that does not
    while bold - mild > 1 and not late():
        middle = (mild + bold) // 2
        made = attempt(_KEPT[middle], "", Recipe())
        if made is None and not tried:  # there is nothing to prune
            return [], None
        if made is None or made.result.rejected is None:
            mild, found = middle, made or found
        else:
            bold = middle
    if best is None or not best.recipe.steps:
        return [*tried.values()], found
    found, before = None, len(tried)
    for place in range(mild, -1, -1):
        if late() or len(tried) == before + _MILDER:
            break
        made = attempt(_KEPT[place], best.result.name, best.recipe)
        if made is None:  # milder amounts change nothing either
            break
        if made.result.rejected is None:
            found = made
            break
    return [*tried.values()], found
