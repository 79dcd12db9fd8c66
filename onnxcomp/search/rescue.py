"""Brings a candidate that loses too much back inside the budget: the nodes that harm most stay float.

Every unit that the candidate's passes declare is quantized once, alone; the noise that it makes at the outputs is its
harm. (Leaving out one at a time tells less: noise at the outputs saturates, and all units look alike.) Then the fewest
of the most harmful units that satisfy the budget are found by bisection, with the real judge.
Source of the noise model: noise powers of single quantizers add up (Lin et al. 2016, section 3).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxcomp.passbase import Unit
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["rescue"]

_MOST_TRIALS = 64  # units are left out in groups of neighbours where there are more
_GROWTH = 3
_CLOSE = 0.25  # the number of float groups is found to this share


def rescue(
    variants: Variants,
    acceptable: Callable[["ir.Model"], bool],
    progress: Callable[[float | None], None],
    late: Callable[[], bool],
) -> tuple[Variant, list[Switch]] | None:
    """Return a variant with few float groups that is acceptable, and those groups; None where there is none.

    Args:
        variants: Of the candidate; their verifier's samples must not be the evaluation samples.
        acceptable: Whether a model keeps the budget; asked about the logarithm of the number of groups.
        progress: Told the share done.
        late: Whether to be content with what is found.
    """
    units = variants.units()
    steps = len(units)
    order = _by_harm(variants, _groups(units), steps, progress)
    found = _fewest(variants, [(group,) for group in order], acceptable, late)
    if found is None and steps > 1 and not late():  # what one step left out, the next took and harmed as much
        found = _fewest(variants, [_everywhere(group, steps) for group in order], acceptable, late)
    return found


def _fewest(
    variants: Variants,
    order: list[tuple[Switch, ...]],
    acceptable: Callable[["ir.Model"], bool],
    late: Callable[[], bool],
) -> tuple[Variant, list[Switch]] | None:
    """Return the variant that leaves out the fewest of the first groups, as far as is worth the trials."""
    low, high = 0, 1  # `low` groups are too few; grow until enough, then bisect
    found = None
    while order and found is None:
        found = _try(variants, order[:high], acceptable)
        if found is None:
            if high == len(order) or late():
                return None
            # All but one before all: with all of them float there may be nothing left to do
            low, high = high, min(high * _GROWTH, max(high + 1, len(order) - 1))
    while found is not None and high - low > max(1, low * _CLOSE) and not late():
        middle = (low + high) // 2
        better = _try(variants, order[:middle], acceptable)
        low, high, found = (low, middle, better) if better is not None else (middle, high, found)
    return None if found is None else (found, [switch for group in order[:high] for switch in group])


def _by_harm(
    variants: Variants, groups: list[Switch], steps: int, progress: Callable[[float | None], None]
) -> list[Switch]:
    """Return the groups, most harmful first."""
    harm = []
    for index, group in enumerate(groups):
        progress(index / len(groups))
        others = [switch for other in groups if other is not group for switch in _everywhere(other, steps)]
        harm.append(_noise(variants.build(others)))
    progress(None)
    return [groups[i] for i in sorted(range(len(groups)), key=lambda i: -harm[i])]


def _everywhere(group: Switch, steps: int) -> tuple[Switch, ...]:
    """Leave a group out of its step and of those that would take it then."""
    return tuple(Switch(step, group.nodes) for step in range(group.step, steps))


def _groups(units: list[list[Unit]]) -> list[Switch]:
    size = max(1, -(-sum(map(len, units)) // _MOST_TRIALS))
    return [
        Switch(step, tuple(name for unit in found[i : i + size] for name in unit.nodes))
        for step, found in enumerate(units)
        for i in range(0, len(found), size)
    ]


def _noise(variant: Variant) -> float:
    """Return the noise power that a variant adds to the outputs; none where it changes nothing."""
    return next((report.noise for report in reversed(variant.passes) if report.noise is not None), 0.0)


def _try(
    variants: Variants, groups: list[tuple[Switch, ...]], acceptable: Callable[["ir.Model"], bool]
) -> Variant | None:
    variant = variants.build(switch for group in groups for switch in group)
    return variant if variant.modified and acceptable(variant.model) else None
