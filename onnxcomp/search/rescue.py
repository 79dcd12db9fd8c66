"""Brings a candidate that loses too much back inside the budget: the nodes that harm most stay float.

``sensitivity`` puts the units that the candidate's passes declare in order; the fewest of the first ones that satisfy
the budget are then found by bisection, with the real judge.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from onnxcomp.passbase import Unit
from onnxcomp.search.sensitivity import by_harm, everywhere
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fewest", "grouped", "rescue"]

_MOST_TRIALS = 64  # units are left out in groups of neighbours where there are more
_GROWTH = 2
_CLOSE = 0.25  # the number of float groups is found to this share

_Found = TypeVar("_Found")


def rescue(
    variants: Variants,
    acceptable: Callable[["ir.Model"], bool],
    progress: Callable[[float | None], None],
    late: Callable[[], bool],
    *,
    cost: Callable[[Switch], float] = lambda _: 1.0,
    late_to_order: Callable[[], bool] | None = None,
    keep: Callable[[Variant], None] = lambda _: None,
) -> tuple[Variant, list[Switch]] | None:
    """Return a variant with few float groups that is acceptable, and those groups; None where there is none.

    Args:
        variants: Of the candidate; their verifier's samples must not be the evaluation samples.
        acceptable: Whether a model keeps the budget; asked about the logarithm of the number of groups.
        progress: Told the share done of putting the groups in order.
        late: Whether to be content with what is found.
        cost: What it costs to leave a group float, in any unit.
        late_to_order: Whether to be content with the order found so far; None: as ``late``.
        keep: Told every variant that was acceptable, the one that is returned last.
    """
    units = variants.units()
    hurry = late_to_order or late
    harm = by_harm(variants, grouped(units), len(units), cost=cost, progress=progress, late=hurry)
    return fewest(harm.order, len(units), lambda groups: _try(variants, groups, acceptable, keep), late)


def fewest(
    order: Sequence[Switch], steps: int, attempt: Callable[[list[Switch]], _Found | None], late: Callable[[], bool]
) -> tuple[_Found, list[Switch]] | None:
    """Return what is found by leaving out the fewest of the first groups, and those, as far as is worth the trials.

    Args:
        order: Groups, those first that are to be left out first.
        steps: Number of the recipe's steps that have units.
        attempt: Leaves groups out and returns what comes of it, None where that is not enough.
        late: Whether to be content with what is found.
    """
    found = _bisected([(group,) for group in order], attempt, late)
    if found is None and steps > 1 and not late():  # what one step left out, the next took and harmed as much
        found = _bisected([everywhere(group, steps) for group in order], attempt, late)
    return found


def grouped(units: list[list[Unit]], most: int = _MOST_TRIALS) -> list[Switch]:
    """Return the units of each step, neighbours together where there are more than ``most``."""
    size = max(1, -(-sum(map(len, units)) // most))
    return [
        Switch(
            step,
            tuple(name for unit in found[i : i + size] for name in unit.nodes),
            tuple(name for unit in found[i : i + size] for name in unit.tails),
        )
        for step, found in enumerate(units)
        for i in range(0, len(found), size)
    ]


def _bisected(
    order: list[tuple[Switch, ...]], attempt: Callable[[list[Switch]], _Found | None], late: Callable[[], bool]
) -> tuple[_Found, list[Switch]] | None:
    def first(count: int) -> list[Switch]:
        return [switch for group in order[:count] for switch in group]

    low, high = 0, 1  # `low` groups are too few; grow until enough, then bisect
    found = None
    while order and found is None:
        found = attempt(first(high))
        if found is None:
            if high == len(order) or late():
                return None
            # All but one before all: with all of them float there may be nothing left to do
            low, high = high, min(high * _GROWTH, max(high + 1, len(order) - 1))
    while found is not None and high - low > max(1, low * _CLOSE) and not late():
        middle = (low + high) // 2
        better = attempt(first(middle))
        low, high, found = (low, middle, better) if better is not None else (middle, high, found)
    return None if found is None else (found, first(high))


def _try(
    variants: Variants,
    groups: list[Switch],
    acceptable: Callable[["ir.Model"], bool],
    keep: Callable[[Variant], None],
) -> Variant | None:
    variant = variants.build(groups)
    if not (variant.modified and acceptable(variant.model)):
        return None
    keep(variant)
    return variant
