"""What is still there of the model that a recipe began to prune, so that later steps can compare with it."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Samples
from onnxcomp.errors import PassError
from onnxcomp.facts import name_nodes
from onnxcomp.passbase import Origin, PassContext
from onnxcomp.passes.cleanup.batch_norm import FoldBatchNorm

from .groups import Channels, Kept

__all__ = ["after", "beside"]


def beside(model: ir.Model, ctx: PassContext) -> tuple[ir.Model, Samples]:
    """Prepare a pruned model to be fitted: BatchNormalization is folded and nodes are named, in place.

    Returns:
        A copy of the original prepared in the same way, and the calibration samples; the context has an origin then.

    Raises:
        PassError: There are no samples, or nothing was pruned.
    """
    if ctx.samples is None:
        raise PassError("fitting a pruned model needs calibration samples", hint="--calibration DATA")
    if ctx.origin is None:
        raise PassError("nothing was pruned in this recipe", hint="put a step that prunes before it")
    teacher = ctx.origin.model.clone()
    for each in (teacher, model):
        FoldBatchNorm().run(each, PassContext(ctx.target))
        name_nodes(each.graph)
    return teacher, ctx.samples


def after(origin: Origin | None, model: ir.Model, channels: Channels, kept: Kept) -> Origin:
    """Return what is known once channels are removed.

    Args:
        origin: What was known before; None: nothing was pruned yet.
        model: What `groups.prepare` returned, in which the channels were found.
        channels: Of the model.
        kept: A mask per group that was pruned.
    """
    table = channels.table(kept)
    known = {} if origin is None else dict(origin.kept)
    for name, labels in channels.labels.items():
        masks = {axis: table[channels.positions(name, axis)] for axis in range(labels.ndim)}
        lost = {axis: np.flatnonzero(mask) for axis, mask in masks.items() if not mask.all()}
        if lost:
            known[name] = _composed(known.get(name, {}), lost)
    return Origin(model if origin is None else origin.model, known)


def _composed(earlier: Mapping[int, np.ndarray], later: Mapping[int, np.ndarray]) -> Mapping[int, np.ndarray]:
    """Return which indices of the first tensor are left after both: the later ones count what the earlier left."""
    both = {axis: earlier[axis][places] if axis in earlier else places for axis, places in later.items()}
    return {**earlier, **both}
