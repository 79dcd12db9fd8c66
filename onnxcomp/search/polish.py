"""Takes back what quantization made slower: nodes that run faster in float, boundary conversions included.

A node is suspected where its integer kernel takes nearly as long as its float kernel did (onnxruntime's own profile of
both models); the first convolution of a network, with its three input channels, is the usual one. Every suspect is then
left out once and timed beside the rest, and those whose absence pays are left out together.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING

from onnxcomp.measure import Comparison
from onnxcomp.passbase import Unit
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["polish"]

_SUSPECT = 0.7  # share of its float time that a node takes in integers
_MOST_SUSPECTS = 10
_PAYS = 0.995  # upper bound of the ratio of a variant that is faster

Times = dict[str, float]


def polish(
    variants: Variants,
    *,
    float_times: Times,
    integer_times: Times,
    size: Callable[["ir.Model"], int],
    race: Callable[["dict[str, ir.Model]"], Comparison],
    late: Callable[[], bool] = lambda: False,
) -> tuple[Variant, list[Switch]] | None:
    """Return a variant that is measurably faster than the whole recipe's result, and what it leaves out; or None.

    Args:
        variants: Of the candidate.
        float_times: Seconds per node of the model before quantization.
        integer_times: Seconds per node of the candidate.
        size: Bytes of a model: a node goes back to float only where it saves more time than it costs space.
        race: Times models; the ratios are against the one called ``all``.
        late: Whether to be content with the suspects that were built.
    """
    suspects = _suspects(variants.units(), float_times, integer_times)
    if not suspects:
        return None
    whole = variants.build(())
    in_time = takewhile(lambda _: not late(), suspects)
    trials = {switch.nodes[0]: (switch, variants.build((switch,))) for switch in in_time}
    trials = {name: trial for name, trial in trials.items() if trial[1].modified}
    if not trials:
        return None
    ratios = race({"all": whole.model, **{name: variant.model for name, (_, variant) in trials.items()}}).ratios
    growth = {name: size(variant.model) / size(whole.model) for name, (_, variant) in trials.items()}
    paying = [trials[name][0] for name in trials if ratios[name].high * max(1.0, growth[name]) < _PAYS]
    if not paying:
        return None
    together = variants.build(paying)
    if not together.modified or race({"all": whole.model, "together": together.model}).ratios["together"].high >= _PAYS:
        return None
    return together, paying


def _suspects(units: list[list[Unit]], float_times: Times, integer_times: Times) -> list[Switch]:
    """Return the units that gained least, those that take longest first."""
    found = [
        (integer_times[unit.name], Switch(step, unit.nodes))
        for step, found_units in enumerate(units)
        for unit in found_units
        if unit.name in float_times
        and unit.name in integer_times
        and integer_times[unit.name] > _SUSPECT * float_times[unit.name]
    ]
    found.sort(key=lambda pair: -pair[0])
    return [switch for _, switch in found[:_MOST_SUSPECTS]]
