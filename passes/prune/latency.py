"""How many channels each group keeps so that a share of the measured latency is left.

A table is measured first: how long each node takes in models whose groups all keep the same share of their channels, on
the numbers of channels that rounding allows. A line through it, time over the size of what the node computes, is what
the node costs; groups then lose the channels whose loss is small for the time that they save. Whole models are timed by
turns with the original, and the goal in the table's time is bisected until their measured ratio meets the target.

Source: Yang et al. 2018, "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", section 3.3, for
the table of measured layers; here it serves all groups at once, and nothing is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.errors import PassError
from onnxcomp.passbase import PassContext, Timer

from .allocate import Ladder
from .goals import Allocation, Counts, allocate
from .obs import Curve
from .pricing import Costs, Counted, work
from .select import kept_count, masks
from .shrink import shrunk
from .study import Study

__all__ = ["Latency", "slower"]

_LEVELS = (0.25, 0.5, 0.75)  # of the channels of each group: the rows of the table, beside the whole model
_TRIALS = 10  # whole models that are timed at most


@dataclass(slots=True)
class Latency:
    """The latency of a model for any choice of channels: a table of node times, and ratios measured so far.

    Attributes:
        study: Of the model.
        curves: The order of the channels of its groups.
        ctx: Its timer and target.
        multiple: What numbers of channels are rounded to.
        seconds: Of measuring, for all trials together.
        measured: Ratios of latency by numbers of channels.
    """

    study: Study
    curves: Mapping[str, Curve]
    ctx: PassContext
    multiple: int
    seconds: float
    measured: dict[tuple[tuple[str, int], ...], float] = field(default_factory=dict)
    _costs: Costs | None = None

    def counts(self, ladders: Mapping[str, Ladder], share: float, allocation: Allocation) -> Counts:
        """Return what each group keeps so that a share of the latency is left, less at most what one step saves.

        Where no choice is as fast as that, all groups are at the bottom of their ladders.

        Raises:
            PassError: Nothing can be timed here.
        """
        groups = self.study.channels.groups
        cost = Counted(self.costs(ladders), self.study.channels)
        whole = cost.of(np.array([group.channels for group in groups], np.int64))

        def trial(goal: float) -> Counts:
            return allocate(self.study, ladders, cost, goal * whole, allocation)

        slow, fast, goal = 1.0, 0.0, share
        best, nearest = trial(0.0), 0.0
        for _ in range(_TRIALS):
            found = trial(goal)
            ratio = self.ratio(found)
            if ratio > share:
                slow = goal
            else:
                fast = goal
                if ratio > nearest:  # times are noisy: what was fast by chance at a large goal is not better than this
                    best, nearest = found, ratio
            if _steps_between(trial(slow), trial(fast), ladders) <= 1:
                break
            goal = (slow + fast) / 2
        return best

    def costs(self, ladders: Mapping[str, Ladder]) -> Costs:
        """Return what nodes cost in seconds: a line through the times that were measured."""
        if self._costs is not None:
            return self._costs
        channels = self.study.channels
        tables, times = [], []
        for level in (1.0, *_LEVELS):
            counts = {g.name: kept_count(g, 1 - level, self.multiple) for g in channels.groups if g.name in ladders}
            kept = masks(channels, self.curves, counts)
            tables.append(channels.table(kept))
            times.append(self.timer.nodes(self._small(kept), self.study.feed))
        fixed, weights, labels = 0.0, [], []
        for name, axes in work(self.study.model, channels).items():
            if not all(name in row for row in times):
                continue
            changing = [axis for axis in axes if axis.any()]
            sizes = np.array([np.prod([table[axis].sum() for axis in changing]) for table in tables], np.float64)
            slope, offset = _line(sizes, np.array([row[name] for row in times])) if changing else (0.0, times[0][name])
            fixed += offset
            if slope > 0:
                weights.append(slope)
                labels.append(changing)
        self._costs = Costs(fixed, np.array(weights, np.float64), labels)
        return self._costs

    def ratio(self, counts: Counts) -> float:
        """Measure a whole model against the original."""
        key = tuple(sorted(counts.items()))
        if key not in self.measured:
            kept = masks(self.study.channels, self.curves, counts)
            budget = self.seconds / _TRIALS
            self.measured[key] = self.timer.ratio(self._small(kept), self.study.model, self.study.feed, seconds=budget)
        return self.measured[key]

    @property
    def timer(self) -> Timer:
        """What times models.

        Raises:
            PassError: There is nothing, or the target is another machine.
        """
        if self.ctx.timer is None or not self.ctx.target.readable:
            raise PassError(
                f"latency can't be measured here for the target {self.ctx.target.name}",
                hint="give the share of MACs (macs) or parameters (params) that stays instead",
            )
        return self.ctx.timer

    def _small(self, kept: Mapping[str, npt.NDArray[np.bool_]]) -> ir.Model:
        return shrunk(self.study.model, self.study.channels, kept, self.ctx)


def _line(sizes: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fit seconds = slope * size + offset, neither of them negative."""
    centred = sizes - sizes.mean()
    spread = float(centred @ centred)
    slope = max(0.0, float(centred @ seconds) / spread) if spread else 0.0
    offset = float(seconds.mean() - slope * sizes.mean())
    if offset < 0:
        return float(sizes @ seconds / (sizes @ sizes)), 0.0
    return slope, offset


def _steps_between(more: Counts, less: Counts, ladders: Mapping[str, Ladder]) -> int:
    def step(name: str, count: int) -> int:
        return int(np.flatnonzero(ladders[name].counts == count)[0])

    return sum(abs(step(name, less[name]) - step(name, more[name])) for name in ladders)


def slower(study: Study, small: ir.Model, kept: Mapping[str, object], timer: Timer) -> list[str]:
    """Name the groups whose layers take longer in the smaller model than in the original, all together."""
    before, after = timer.nodes(study.model, study.feed), timer.nodes(small, study.feed)
    found = []
    for group in study.channels.groups:
        if group.name in kept:
            nodes = {*group.members, *(reader.node for reader in group.consumers)} & set(before) & set(after)
            if sum(after[name] for name in nodes) > sum(before[name] for name in nodes):
                found.append(group.name)
    return found
