"""Hold a pruned model against the original in which the removed channels read as 0: the two must agree.

Every group is held to it, always: what is wrong in a rule, or unusual in a model, shows here and not at the user's.
With the graph optimisations of onnxruntime off both compute the same sums, in another order.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, ModelError, PassError
from onnxcomp.metrics import as_arrays
from onnxcomp.model import open_session
from onnxcomp.passbase import PassContext

from .groups import Channels, Kept
from .shrink import masked, shrunk

__all__ = ["TOLERANCE", "Verified", "difference", "verified"]

TOLERANCE = (
    1e-5  # of the largest value of an output: sums of float32 in another order; up to 4e-6 in models of practice
)


class Verified:
    """What was accepted: the smaller model, the masks that made it, and why others were not."""

    def __init__(self, model: ir.Model, kept: Kept, declined: dict[str, str]) -> None:
        self.model = model
        self.kept = kept
        self.declined = declined


def difference(a: ir.Model, b: ir.Model, feed: Feed) -> float:
    """Return the largest difference between the outputs of two models, as a share of the output's largest value.

    Raises:
        ModelError: One of them does not run.
    """
    worst = 0.0
    mine, theirs = (as_arrays(open_session(model, optimize=False).run(feed)) for model in (a, b))
    for name, array in mine.items():
        x, y = array, theirs.get(name, np.zeros(0))  # sequences may be of different lengths
        if x.shape != y.shape:
            raise ModelError(f"output {name} has another shape: {y.shape}, not {x.shape}")
        if x.dtype.kind != "f":
            worst = max(worst, float((x != y).mean()) if x.size else 0.0)
        elif x.size:
            if (np.isfinite(x) != np.isfinite(y)).any():
                return float("inf")
            x, y = np.nan_to_num(x.astype(np.float64)), np.nan_to_num(y.astype(np.float64))
            worst = max(worst, float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-9)))
    return worst


def verified(model: ir.Model, channels: Channels, kept: Kept, feed: Feed, ctx: PassContext) -> Verified:
    """Remove channels, group by group where they do not go all at once, and hold the result against the masked model.

    Args:
        model: What `groups.prepare` returned; not changed.
        channels: What `groups.discover` found in it.
        kept: A mask per group.
        feed: To run both on.
        ctx: Handed on.

    Returns:
        The smaller model with all groups that agree; the others are declined, each with its reason.
    """
    declined: dict[str, str] = {}

    def attempt(names: Sequence[str]) -> ir.Model | str:
        chosen = {name: kept[name] for name in names}
        try:
            small = shrunk(model, channels, chosen, ctx)
            found = difference(masked(model, channels, chosen), small, feed)
        except (PassError, ModelError, DataError) as err:
            return str(err)
        return (
            small
            if found <= TOLERANCE
            else f"without its channels the model differs from the masked one by {found:.1e}"
        )

    def accept(base: list[str], names: list[str]) -> list[str]:
        """Return as many of the names as go together with those that went before."""
        if not names:
            return []
        result = attempt([*base, *names])
        if not isinstance(result, str):
            return names
        if len(names) == 1:
            declined[names[0]] = result
            return []
        half = len(names) // 2
        left = accept(base, names[:half])
        return [*left, *accept([*base, *left], names[half:])]

    good = accept([], list(kept))
    final = attempt(good)
    if isinstance(final, str):
        raise PassError(f"the pruned model is not what was verified: {final}")
    return Verified(final, {name: kept[name] for name in good}, declined)
