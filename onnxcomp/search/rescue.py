"""Brings a candidate that loses too much back inside the budget: the nodes that harm most stay float.

``sensitivity`` puts the units that the candidate's passes declare in order; the fewest of the first ones that satisfy
the budget are then found by bisection, with the real judge.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxcomp.passbase import Unit
from onnxcomp.search.sensitivity import by_harm, everywhere
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["rescue"]

_MOST_TRIALS = 64  # units are left out in groups of neighbours where there are more
_GROWTH = 2
_CLOSE = 0.25  # the number of float groups is found to this share


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
    steps = len(units)
    hurry = late_to_order or late
    ordered = by_harm(variants, _groups(units), steps, cost=cost, progress=progress, late=hurry)
    found = _fewest(variants, [(group,) for group in ordered], acceptable, late, keep)
    if found is None and steps > 1 and not late():  # what one step left out, the next took and harmed as much
        found = _fewest(variants, [everywhere(group, steps) for group in ordered], acceptable, late, keep)
    return found


def _fewest(
    variants: Variants,
    order: list[tuple[Switch, ...]],
    acceptable: Callable[["ir.Model"], bool],
    late: Callable[[], bool],
    keep: Callable[[Variant], None],
) -> tuple[Variant, list[Switch]] | None:
    """Return the variant that leaves out the fewest of the first groups, as far as is worth the trials."""
    low, high = 0, 1  # `low` groups are too few; grow until enough, then bisect
    found = None
    while order and found is None:
        found = _try(variants, order[:high], acceptable, keep)
        if found is None:
            if high == len(order) or late():
                return None
            # All but one before all: with all of them float there may be nothing left to do
            low, high = high, min(high * _GROWTH, max(high + 1, len(order) - 1))
    while found is not None and high - low > max(1, low * _CLOSE) and not late():
        middle = (low + high) // 2
        better = _try(variants, order[:middle], acceptable, keep)
        low, high, found = (low, middle, better) if better is not None else (middle, high, found)
    return None if found is None else (found, [switch for group in order[:high] for switch in group])


def _groups(units: list[list[Unit]]) -> list[Switch]:
    size = max(1, -(-sum(map(len, units)) // _MOST_TRIALS))
    return [
        Switch(step, tuple(name for unit in found[i : i + size] for name in unit.nodes))
        for step, found in enumerate(units)
        for i in range(0, len(found), size)
    ]


def _try(
    variants: Variants,
    groups: list[tuple[Switch, ...]],
    acceptable: Callable[["ir.Model"], bool],
    keep: Callable[[Variant], None],
) -> Variant | None:
    variant = variants.build(switch for group in groups for switch in group)
    if not (variant.modified and acceptable(variant.model)):
        return None
    keep(variant)
    return variant
