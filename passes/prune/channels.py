"""Remove channels, hidden units and attention heads with all that belongs to them.

::

    a = Conv(x, w1: [64, 3, 3, 3])             a = Conv(x, w1: [32, 3, 3, 3])
    y = Conv(Relu(a), w2: [8, 64, 1, 1])  ==>  y = Conv(Relu(a), w2: [8, 32, 1, 1])

Which layers belong together is found by executing labels (``groups``); which channels matter least is measured with
samples (``obs``) or told from the weights (``importance``); how many go from where follows from what was asked for
(``goals``). What is left is a smaller model of the same operators.

Declines: channels that are outputs of the model, or that a Softmax or an operator unknown here takes together; what
the bodies of If, Loop and Scan read; groups of which too little would go; quantized models. A group whose result
differs from the original with these channels masked is declined, always.

Correct because what is removed was multiplied by weights that are removed too: masked and smaller model agree. The
masked model is not the original: this is lossy. A normalization over channels takes its statistics over those that
stay, in both models (``norms``).

Source: Hassibi & Stork 1993 (``obs``), Li et al. 2017 and others (``importance``); Fang et al. 2023 for groups.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import is_quantized, parameter_count
from onnxcomp.passbase import Grouping, Need, Pass, PassContext, PassStats, Unit

from .allocate import Ladder
from .goals import NAMES, Allocation, Counts, by_cost, by_ratio, share_of
from .groups import Group, Kept
from .importance import Criterion
from .latency import Latency, slower
from .listing import listing
from .obs import Curve
from .origin import after
from .pricing import Measure
from .select import ladder, masks
from .study import Study, curves_of, study_of
from .verify import Verified, verified

__all__ = ["PruneChannels", "PruneChannelsConfig"]

_RATIO = 0.3  # where no target is given
_MEASURES: tuple[Measure, ...] = ("macs", "params")
_TARGETS = ("ratio", *_MEASURES, "latency", "keep")


@dataclass(frozen=True, slots=True)
class PruneChannelsConfig:
    """Settings of channel pruning: at most one of ratio, macs, params, latency and keep; without any, ratio is 0.3.

    Attributes:
        ratio: Share of the channels of each group that is removed, in [0, 1).
        macs: Share of the model's multiply-accumulate operations that stays, in (0, 1].
        params: Share of the model's parameters that stays, in (0, 1].
        keep: How many channels stay, by name of the group; of others all stay.
        latency: Share of the latency that stays, as measured on this machine, in (0, 1].
        seconds: For latency: of measuring, for all models that are tried together.
        allocation: For macs, params and latency, which groups lose channels: those that lose least by it, or all alike.
        criterion: What tells how much a channel matters; see `importance`. ``auto`` is obs where there are calibration
            samples, else l2.
        round: Channels that a layer keeps are a multiple of this; 0: what suits the target, 1: any number.
        granularity: Whether attention loses whole heads, or the same dimensions of all heads.
        streams: Whether channels go that a normalization takes its statistics over, as those of a transformer between
            its layers; they are then statistics of what stays.
        seed: Of the criterion ``random``.
        ignore: Patterns of names of layers whose channels stay.
        exclude: Names of layers whose channels stay.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    keep: Mapping[str, int] = field(default_factory=dict)
    latency: float | None = None
    seconds: float = 30.0
    allocation: Allocation = "global"
    criterion: Criterion = "auto"
    round: int = 0
    granularity: Literal["head", "dim"] = "head"
    streams: bool = True
    seed: int = 0
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = {name: value for name in _TARGETS if (value := getattr(self, name)) not in (None, {})}
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(given)} are both given", hint="give one of them")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise RecipeError(f"ratio must be in [0, 1), got {self.ratio}")
        for name in (*_MEASURES, "latency"):
            if name in given and not 0 < given[name] <= 1:
                raise RecipeError(f"{name} must be in (0, 1], got {given[name]}", hint="it is the share that stays")
        if any(not isinstance(count, int) or count < 1 for count in self.keep.values()):
            raise RecipeError("keep must be a number of channels, 1 or more, for each group")
        if not 0 < self.seconds < math.inf:
            raise RecipeError(f"seconds must be positive, got {self.seconds}")
        if self.round < 0 or self.seed < 0:
            raise RecipeError("round and seed must not be negative", hint="round 0 is what suits the target, 1 is off")

    @property
    def measure(self) -> Measure | None:
        """What the target is told in; None: channels of each group."""
        return next((name for name in _MEASURES if getattr(self, name) is not None), None)

    @property
    def share(self) -> float:
        """Of the measure, what stays; of channels, what goes."""
        name = self.measure
        share: float | None = self.ratio if name is None else getattr(self, name)
        return _RATIO if share is None else share


class PruneChannels(Pass[PruneChannelsConfig]):
    """Remove the channels, hidden units and attention heads that matter least."""

    name: ClassVar[str] = "prune-channels"
    Config: ClassVar[type[PruneChannelsConfig]] = PruneChannelsConfig
    exact: ClassVar[bool] = False
    wants: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    shifts: ClassVar[bool] = True
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"ratio": (0.25, 0.5, 0.75)}

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if is_quantized(model):
            ctx.skip(next(iter(model.graph)), "the model is quantized already: prune first, then quantize")
            return PassStats(modified=False)
        study = study_of(model, ctx, granularity=self.config.granularity)
        for name, reason in study.channels.frozen.items():
            ctx.skip(study.nodes[name], reason)
        curves = curves_of(study, ctx, criterion=self.config.criterion, seed=self.config.seed)
        ladders: dict[str, Ladder] = {}
        for group in study.channels.groups:
            found = self._ladder(group, curves, ctx)
            if isinstance(found, str):
                _skip(study, ctx, group, found)
            else:
                ladders[group.name] = found
        result = self._pruned(study, curves, ladders, ctx)
        if result is None or not result.kept:
            return PassStats(modified=False)
        ctx.origin = after(ctx.origin, study.model, study.channels, result.kept)
        before = parameter_count(model)
        result.model.graph.meta.update(model.graph.meta)
        model.graph = result.model.graph
        counters = {
            "groups pruned": len(result.kept),
            "channels removed": sum(int((~mask).sum()) for mask in result.kept.values()),
            "parameters removed": before - parameter_count(model),
        }
        return PassStats(modified=True, counters=counters)

    def _ladder(self, group: Group, curves: Mapping[str, Curve], ctx: PassContext) -> Ladder | str:
        """Return what a group may keep, or why all of it stays."""
        if any(item.node in self.config.exclude for item in group.producers):
            return "excluded"
        if any(fnmatchcase(item.node, pattern) for item in group.producers for pattern in self.config.ignore):
            return "it is to be ignored"
        if group.normalized and not self.config.streams:
            return "a normalization takes statistics over its channels"
        if group.name not in curves:
            return f"the criterion {self.config.criterion} says nothing about it"
        found = ladder(group, curves[group.name], self._multiple(ctx))
        if len(found.counts) < 2:
            return f"{group.channels} channels, rounded to {self._multiple(ctx)}, leave none to remove"
        return found

    def _pruned(
        self, study: Study, curves: Mapping[str, Curve], ladders: dict[str, Ladder], ctx: PassContext
    ) -> Verified | None:
        """Remove what was asked for; where a group turns out to have to stay, the others take its share."""
        groups = {group.name: group for group in study.channels.groups}
        latency = Latency(study, curves, ctx, self._multiple(ctx), self.config.seconds)
        given_back = self.config.latency is None
        while ladders:
            counts = self._counts(study, ladders, latency, ctx)
            kept = masks(study.channels, curves, counts)
            result = verified(study.model, study.channels, kept, study.feed, ctx)
            whole = dict(result.declined)
            if not given_back and not whole and result.kept:
                given_back = True
                whole = dict.fromkeys(slower(study, result.model, kept, latency.timer), "it was slower without some")
            for name, reason in whole.items():
                _skip(study, ctx, groups[name], reason)
                del ladders[name]
            if not whole or (self.config.measure is None and self.config.latency is None):
                self._tell(study, result.kept, ladders, ctx)
                if self.config.latency is not None and (left := latency.ratio(counts)) > self.config.latency:
                    _tell_rest(study, ctx, left, self.config.latency, "latency")
                return result
        return None

    def _counts(self, study: Study, ladders: Mapping[str, Ladder], latency: Latency, ctx: PassContext) -> Counts:
        measure, share, keep = self.config.measure, self.config.share, self.config.keep
        if keep:
            channels = {group.name: group.channels for group in study.channels.groups}
            return {name: min(keep.get(name, channels[name]), channels[name]) for name in ladders}
        if self.config.latency is not None:
            return latency.counts(ladders, self.config.latency, self.config.allocation)
        if measure is None:
            return by_ratio(study, ladders, share, self._multiple(ctx))
        return by_cost(study, ladders, measure, share, self.config.allocation)

    def _multiple(self, ctx: PassContext) -> int:
        return 1 if self.config.keep else self.config.round or ctx.target.channel_multiple

    def _tell(self, study: Study, kept: Kept, ladders: Mapping[str, Ladder], ctx: PassContext) -> None:
        """Say why groups are whole that need not be, and what is left where that is more than was asked for."""
        measure, share = self.config.measure, self.config.share
        for group in study.channels.groups:
            if group.name in ladders and group.name not in kept:
                _skip(study, ctx, group, self._why_whole(group, ctx))
        if measure is not None and (left := share_of(study, measure, kept)) > share:
            _tell_rest(study, ctx, left, share, NAMES[measure])

    def _why_whole(self, group: Group, ctx: PassContext) -> str:
        if self.config.keep:
            return "all its channels are to stay"
        if self.config.measure is not None or self.config.latency is not None:
            return "its channels matter more than those of others"
        return f"{group.channels} channels, rounded to {self._multiple(ctx)}, leave none to remove"

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the groups; a search leaves one out by naming its layers in ``exclude``."""
        study = study_of(model, ctx, granularity=self.config.granularity)
        return [
            Unit(
                group.name,
                study.nodes[group.producers[0].node].op_type,
                tuple(dict.fromkeys(item.node for item in group.producers)),
            )
            for group in study.channels.groups
        ]

    def groups(self, model: ir.Model, ctx: PassContext) -> Grouping:
        """See `Pass.groups`."""
        study = study_of(model, ctx, granularity=self.config.granularity)
        times = None if ctx.timer is None else ctx.timer.nodes(study.model, study.feed)
        return listing(study.model, study.channels, times)


def _skip(study: Study, ctx: PassContext, group: Group, reason: str) -> None:
    ctx.skip(study.nodes[group.producers[0].node], reason)


def _tell_rest(study: Study, ctx: PassContext, left: float, share: float, what: str) -> None:
    reason = f"{what}: {left:.1%} is left, not {share:.1%}; the channel groups can't give more"
    ctx.skip(next(iter(study.model.graph)), reason)
