"""Remove channels, hidden units and attention heads with all that belongs to them.

::

    a = Conv(x, w1: [64, 3, 3, 3])             a = Conv(x, w1: [32, 3, 3, 3])
    y = Conv(Relu(a), w2: [8, 64, 1, 1])  ==>  y = Conv(Relu(a), w2: [8, 32, 1, 1])

Which layers belong together is found by executing labels (``groups``); which channels matter least is told from the
weights (``importance``); what is left is a smaller model of the same operators.

Declines: channels that are outputs of the model, or that a normalization, a Softmax or an operator unknown here takes
together; what the bodies of If, Loop and Scan read; groups of which too little would go; quantized models. A group
whose result differs from the original with these channels masked is declined, always.

Correct because what is removed was multiplied by weights that are removed too: masked and smaller model agree. The
masked model is not the original: this is lossy.

Source: Li et al. 2017 and others (``importance``); Fang et al. 2023 for groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import is_quantized, parameter_count
from onnxcomp.passbase import Grouping, Pass, PassContext, PassStats, Unit

from .groups import Channels, Group, discover, prepare
from .importance import Criterion, importance
from .listing import listing
from .origin import after
from .select import choose, kept_count, protected
from .trace import inputs_for
from .verify import verified

__all__ = ["PruneChannels", "PruneChannelsConfig"]


@dataclass(frozen=True, slots=True)
class PruneChannelsConfig:
    """Settings of channel pruning.

    Attributes:
        ratio: Share of the channels of each group that is removed, in [0, 1).
        criterion: What tells how much a channel matters; see `importance`.
        round: Channels that a layer keeps are a multiple of this; 0: what suits the target, 1: any number.
        granularity: Whether attention loses whole heads, or the same dimensions of all heads.
        seed: Of the criterion ``random``.
        ignore: Patterns of names of layers whose channels stay.
        exclude: Names of layers whose channels stay.
    """

    ratio: float = 0.3
    criterion: Criterion = "l2"
    round: int = 0
    granularity: Literal["head", "dim"] = "head"
    seed: int = 0
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise RecipeError(f"ratio must be in [0, 1), got {self.ratio}")
        if self.round < 0 or self.seed < 0:
            raise RecipeError("round and seed must not be negative", hint="round 0 is what suits the target, 1 is off")


class PruneChannels(Pass[PruneChannelsConfig]):
    """Remove the channels, hidden units and attention heads that matter least. Needs no calibration data."""

    name: ClassVar[str] = "prune-channels"
    Config: ClassVar[type[PruneChannelsConfig]] = PruneChannelsConfig
    exact: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"ratio": (0.25, 0.5, 0.75)}

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if is_quantized(model):
            ctx.skip(next(iter(model.graph)), "the model is quantized already: prune first, then quantize")
            return PassStats(modified=False)
        prepared = prepare(model, ctx)
        feed = inputs_for(prepared, ctx.samples, seed=ctx.seed)
        channels = discover(prepared, ctx, granularity=self.config.granularity, feed=feed)
        nodes = {str(node.name): node for node in prepared.graph}
        for name, reason in channels.frozen.items():
            ctx.skip(nodes[name], reason)
        scores: dict[str, np.ndarray] = {}
        kept: dict[str, np.ndarray] = {}
        rng = np.random.default_rng(self.config.seed)
        for group in channels.groups:
            found = importance(group, nodes, self.config.criterion, rng)
            mask = self._mask(group, found, ctx)
            if isinstance(mask, str):
                ctx.skip(nodes[group.producers[0].node], mask)
            elif found is not None:
                scores[group.name], kept[group.name] = found, mask
        if not kept:
            return PassStats(modified=False)
        result = verified(prepared, channels, protected(channels, kept, scores), feed, ctx)
        first = {group.name: group.producers[0].node for group in channels.groups}
        for name, reason in result.declined.items():
            ctx.skip(nodes[first[name]], reason)
        if not result.kept:
            return PassStats(modified=False)
        ctx.origin = after(ctx.origin, prepared, channels, result.kept)
        before = parameter_count(model)
        result.model.graph.meta.update(model.graph.meta)
        model.graph = result.model.graph
        counters = {
            "groups pruned": len(result.kept),
            "channels removed": sum(int((~mask).sum()) for mask in result.kept.values()),
            "parameters removed": before - parameter_count(model),
        }
        return PassStats(modified=True, counters=counters)

    def _mask(self, group: Group, scores: np.ndarray | None, ctx: PassContext) -> np.ndarray | str:
        """Return which channels of a group stay, or why all do."""
        if any(item.node in self.config.exclude for item in group.producers):
            return "excluded"
        if any(fnmatchcase(item.node, pattern) for item in group.producers for pattern in self.config.ignore):
            return "it is to be ignored"
        if scores is None:
            return f"the criterion {self.config.criterion} says nothing about it"
        multiple = self.config.round or ctx.target.channel_multiple
        count = kept_count(group, self.config.ratio, multiple)
        if count >= group.channels:
            return f"{group.channels} channels, rounded to {multiple}, leave none to remove"
        return choose(scores, count)

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the groups; a search leaves one out by naming its layers in ``exclude``."""
        prepared, channels = self._found(model, ctx)
        types = {str(node.name): node.op_type for node in prepared.graph}
        return [
            Unit(
                group.name, types[group.producers[0].node], tuple(dict.fromkeys(item.node for item in group.producers))
            )
            for group in channels.groups
        ]

    def groups(self, model: ir.Model, ctx: PassContext) -> Grouping:
        """See `Pass.groups`."""
        prepared, channels = self._found(model, ctx)
        return listing(prepared, channels)

    def _found(self, model: ir.Model, ctx: PassContext) -> tuple[ir.Model, Channels]:
        prepared = prepare(model, ctx)
        return prepared, discover(prepared, ctx, granularity=self.config.granularity)
