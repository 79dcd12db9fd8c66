"""Which units to leave float first: those that take most noise from the outputs per second that float costs.

Noise is measured on calibration samples. Of a pass that offers a simulation, one session answers for every choice, so
units are left out for good one after another (an eighth of those left at a time), each time those that help most given
what is float already: noises do not add up where tensors are rounded twice in a row, or where the network itself damps
them. While the outputs are drowned in noise no single unit helps; then the noise that each makes alone decides. Of
other passes every unit is built and run alone, all others float.
Source of the noise measure: SQNR as sensitivity, Lin et al. 2016, section 3; measured cost: Dong et al. 2020 (HAWQ-V2),
section 3.2, with time in the place of bits.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import ModelError
from onnxcomp.model import open_session
from onnxcomp.passbase import Simulation
from onnxcomp.pipeline import Verifier
from onnxcomp.runtime import Session
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Harm", "by_harm", "everywhere", "noise_runs"]

_SHARE = 8  # a share of the units left goes float before all are measured again
_DROWNED = 0.5  # noise over signal from which on leaving out one unit tells nothing
_RUNS = 4, 24  # to measure noise on: at least, at most
_NUMBERS = 1000  # that the outputs of these runs should hold together

Progress = Callable[[float | None], None]
Cost = Callable[[Switch], float]


@dataclass(frozen=True, slots=True)
class Harm:
    """What groups of units do to the outputs.

    Attributes:
        order: In which to leave them float.
        alone: Noise power over signal power that each makes where all others are float; of those that were measured.
        simulated: Returns the noise when groups are left out; None: no simulation covers all of them.
    """

    order: list[Switch]
    alone: Mapping[Switch, float]
    simulated: Callable[[Collection[Switch]], float] | None = None


def noise_runs(model: "ir.Model", feed: Feed) -> int:
    """Return how many runs tell noise from chance: a classifier gives but a few numbers per run."""
    answers = open_session(model).run(feed).values()
    numbers = sum(np.size(answer) for answer in answers if isinstance(answer, np.ndarray))
    return min(max(_NUMBERS // max(numbers, 1), _RUNS[0]), _RUNS[1])


def by_harm(
    variants: Variants,
    groups: list[Switch],
    steps: int,
    *,
    cost: Cost,
    progress: Progress,
    late: Callable[[], bool],
    all_alone: bool = False,
) -> Harm:
    """Measure what groups of units do to the outputs, and put them in the order in which to leave them float.

    Args:
        variants: Of the candidate.
        groups: Units, neighbours together where there are many.
        steps: Number of the recipe's steps that have units.
        cost: Seconds that a group takes longer in float.
        progress: Told the share done.
        late: Whether to be content with what has been measured so far.
        all_alone: Whether each group is measured alone however late it is; else those left count as harmless.
    """
    simulation = variants.simulation()
    first = [group for group in groups if group.step == 0] if simulation is not None else []
    alone: dict[Switch, float] = {}

    def in_time(groups: list[Switch]) -> Iterator[Switch]:
        return takewhile(lambda _: all_alone or not late(), groups)

    ordered: list[Switch] = []
    noise: _Noise | None = None
    if simulation is not None and first:
        noise = _Noise(simulation, variants.verifier)
        for group in in_time(first):
            alone[group] = noise([other for other in first if other is not group])
        known = dict.fromkeys(first, 0.0) | alone
        ordered = _greedy(first, noise, alone=known, cost=_floored(cost, first), progress=progress, late=late)
    rest = [group for group in groups if group not in first]
    for index, group in enumerate(in_time(rest)):
        progress(index / len(rest))
        others = [switch for other in groups if other is not group for switch in everywhere(other, steps)]
        alone[group] = _added_noise(variants.build(others))
    progress(None)
    known = dict.fromkeys(groups, 0.0) | alone
    for group in sorted(rest, key=known.__getitem__, reverse=True):  # before the first that harms less
        at = next((i for i, other in enumerate(ordered) if known[other] < known[group]), len(ordered))
        ordered.insert(at, group)
    return Harm(ordered, alone, None if rest else noise)


def everywhere(group: Switch, steps: int) -> tuple[Switch, ...]:
    """Leave a group out of its step and of those that would take it then."""
    return tuple(replace(group, step=step) for step in range(group.step, steps))


def _greedy(
    groups: list[Switch],
    noise: Callable[[Collection[Switch]], float],
    *,
    alone: Mapping[Switch, float],
    cost: Mapping[Switch, float],
    progress: Progress,
    late: Callable[[], bool],
) -> list[Switch]:
    ordered: list[Switch] = []
    rest = sorted(groups, key=lambda group: -alone[group] / cost[group])  # what is left when time is up
    while rest:
        now = noise(ordered)
        gain: dict[Switch, float] = {}
        for group in rest:
            if late():
                return ordered + rest
            gained = now - noise([*ordered, group]) if now < _DROWNED else alone[group]
            gain[group] = gained / cost[group]
        rest.sort(key=lambda group: -gain[group])
        count = max(1, len(rest) // _SHARE)
        ordered += rest[:count]
        rest = rest[count:]
        progress(len(ordered) / len(groups))
    return ordered


def _floored(cost: Cost, groups: list[Switch]) -> dict[Switch, float]:
    """Return the cost of each group, the median at least: what is dear goes later, nothing first for being cheap."""
    costs = {group: cost(group) for group in groups}
    typical = float(np.median([abs(value) for value in costs.values()])) or 1.0
    return {group: max(value, typical) for group, value in costs.items()}


class _Noise:
    """Noise power at the outputs when groups of a simulated step are left out."""

    def __init__(self, simulation: Simulation, verifier: Verifier) -> None:
        self._simulation = simulation
        self._verifier = verifier
        self._session = open_session(simulation.model, threads=0)

    def __call__(self, left_out: Collection[Switch]) -> float:
        names = {name for group in left_out for name in group.nodes}
        try:
            return self._verifier.compare(_Switched(self._session, self._simulation.switches(names))).noise
        except ModelError:  # an output is not finite any more
            return math.inf


class _Switched:
    """A session whose switches are set."""

    def __init__(self, session: Session, switches: Mapping[str, np.ndarray]) -> None:
        self._session = session
        self._switches = switches

    def run(self, feed: Feed) -> dict[str, Any]:
        return self._session.run({**feed, **self._switches})


def _added_noise(variant: Variant) -> float:
    """Return the noise power that a variant adds to the outputs; none where it changes nothing."""
    return next((report.noise for report in reversed(variant.passes) if report.noise is not None), 0.0)
