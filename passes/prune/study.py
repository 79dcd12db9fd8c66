"""What pruning finds out about a model once, however often it is then pruned: groups, and the order of their channels.

It is kept in the context, by the fingerprint of the model: a search that tries several strengths pays for it once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed
from onnxcomp.errors import PassError
from onnxcomp.model import fingerprint
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup.constants import LiftConstants

from .criteria import ACTIVE, READ, activations
from .groups import Channels, Group, discover, prepare
from .importance import Criterion, importance
from .obs import Curve, ranked
from .readings import readings
from .trace import inputs_for

__all__ = ["Study", "curves_of", "study_of"]

_MOST = 8  # findings that are kept
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Study:
    """A model made ready, and what labels tell about it.

    Attributes:
        key: Of all that it depends on.
        model: What `groups.prepare` returned; not to be changed.
        feed: One that it runs on.
        channels: Its groups.
    """

    key: tuple[str, ...]
    model: ir.Model
    feed: Feed
    channels: Channels

    @cached_property
    def nodes(self) -> Mapping[str, ir.Node]:
        """Its nodes by name."""
        return {str(node.name): node for node in self.model.graph}


def study_of(model: ir.Model, ctx: PassContext, *, granularity: Literal["head", "dim"]) -> Study:
    """Find the channel groups of a model, or remember them.

    Raises:
        PassError: The model is quantized, or does not run.
    """
    lifted = model.clone()  # as `prepare` does it: that names tensors which clones share, and would change the key
    LiftConstants().run(lifted, PassContext(ctx.target))
    key = ("channels", fingerprint(lifted), granularity, str(ctx.seed))

    def find() -> Study:
        prepared = prepare(model, ctx)
        feed = inputs_for(prepared, ctx.samples, seed=ctx.seed)
        return Study(key, prepared, feed, discover(prepared, ctx, granularity=granularity, feed=feed))

    return _remembered(ctx, key, find)


def curves_of(study: Study, ctx: PassContext, *, criterion: Criterion, seed: int) -> Mapping[str, Curve]:
    """Return the order in which channels go, by group, or remember it; groups of which nothing is known are left out.

    Raises:
        PassError: The criterion needs samples, and there are none.
        ModelError: The model does not run on them, or computes a NaN or an infinity.
    """
    if criterion == "auto":
        criterion = "l2" if ctx.samples is None else "obs"
    key = (*study.key, criterion, str(seed))
    if criterion in READ or criterion in ACTIVE:
        return _remembered(ctx, key, lambda: _measured(study, ctx, criterion))
    return _remembered(ctx, key, lambda: _from_weights(study, criterion, np.random.default_rng(seed)))


def _measured(study: Study, ctx: PassContext, criterion: Criterion) -> dict[str, Curve]:
    """Rank with samples; what nobody reads in a way that is understood, by its weights."""
    if ctx.samples is None:
        hint = "--calibration DATA, or another criterion"
        raise PassError(f"the criterion {criterion} needs calibration samples", hint=hint)
    groups = study.channels.groups
    if criterion in ACTIVE:
        found = activations(study.model, groups, criterion, ctx.samples, ctx)
    else:
        found = {
            group.name: READ[criterion](read, group.channels)
            for group, read in readings(study.model, study.channels, groups, ctx.samples, ctx)
            if read
        }
    unread = [group for group in groups if group.name not in found]
    return found | _from_weights(study, "l2", np.random.default_rng(0), unread)


def _from_weights(
    study: Study, criterion: Criterion, rng: np.random.Generator, groups: list[Group] | None = None
) -> dict[str, Curve]:
    found = {}
    for group in study.channels.groups if groups is None else groups:
        scores = importance(group, study.nodes, criterion, rng)
        if scores is not None:
            found[group.name] = ranked(scores)
    return found


def _remembered(ctx: PassContext, key: tuple[str, ...], find: Callable[[], _T]) -> _T:
    """Return what was found before, or find it; what was asked for longest ago is forgotten."""
    known = ctx.findings.pop(key, None)
    ctx.findings[key] = found = find() if known is None else known
    while len(ctx.findings) > _MOST:
        del ctx.findings[next(iter(ctx.findings))]
    return found
