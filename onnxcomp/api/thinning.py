"""Zeros before values are shared: as many as two thirds of what the gates allow; sharing has the rest.

What is chosen, first how many zeros and then how many bits, is the boldest of dozens that were judged, and in part the
luckiest: on samples that have not chosen it loses more. So what is chosen keeps more than the gates say (`objection`).
By the score alone, 1,000 images of Fashion-MNIST choosing for at most one point, LeNet-5 lost 2.3 points on 1,000
others and LeNet-300-100 1.9; how much is lost there follows from how many answers differ.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxcomp.api.making import Measured, measured, missed
from onnxcomp.errors import UsageError
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.sharing import TriedSparsity
from onnxcomp.search import Judge, Progress
from onnxcomp.target import Budget, Gates

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AUTO", "Thinner", "objection", "sparsity_of", "wary"]

AUTO = "auto"
_PASS = "prune-weights"
_SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_PART = 2 / 3  # of what the gates allow, noise too


class Thinner:
    """Prunes single weights of a model, over all layers together, and judges what is left.

    Args:
        ctx: Of the passes.
        verifier: Runs what was made.
        judge: Of the original.
        exclude: Names of nodes whose weights stay as they are.

    Attributes:
        tried: What was judged.
    """

    def __init__(self, ctx: PassContext, verifier: Verifier, judge: Judge, exclude: Sequence[str]) -> None:
        self.tried: list[TriedSparsity] = []
        self._ctx, self._verifier, self._judge, self._exclude = ctx, verifier, judge, list(exclude)

    def pruned(self, model: "ir.Model", share: float) -> "tuple[ir.Model, list[PassReport]]":
        """Return the model with a share of zeros, and what the pass did."""
        step = Step(_PASS, {"sparsity": share, "scope": "global", "exclude": self._exclude})
        return run_recipe(model, Recipe((step,)), self._ctx, self._verifier)

    def most(self, model: "ir.Model", gates: Gates, show: Progress) -> "tuple[ir.Model, list[PassReport]]":
        """Return the model with as many zeros as a part of what the gates allow, by bisection; as it is where none."""
        best: tuple[ir.Model, list[PassReport]] = (model, [])
        low, high = -1, len(_SHARES)
        part = _part(gates)
        while high - low > 1:
            middle = (low + high) // 2
            show(f"prune {_SHARES[middle]:.0%} of the weights", None)
            found = self.pruned(model, _SHARES[middle])
            if not any(report.modified for report in found[1]):
                return found  # which says why
            made = measured(found[0], self._judge)
            why_not = "; ".join(missed(part, self._judge, made)) or None
            self.tried.append(TriedSparsity(_SHARES[middle], made.quality, why_not))
            if why_not is None:
                low, best = middle, found
            else:
                high = middle
        return best


def wary(gates: Gates) -> Gates:
    """Return gates that bound how many answers may change, too, where only the drop of a score is bounded."""
    if gates.max_drop is None or gates.min_agreement is not None:
        return gates
    return replace(gates, min_agreement=Budget(gates.max_drop).agreement_bound)


def objection(gates: Gates, judge: Judge, made: Measured) -> str | None:
    """Say why a model is not to be chosen, or None: it misses a gate, or keeps one by less than a standard error."""
    if found := missed(gates, judge, made):
        return "; ".join(found)
    return None if gates.max_drop is None else judge.luck(made.quality, Budget(gates.max_drop, gates.min_agreement))


def sparsity_of(prune: str | float | None) -> float | None:
    """Return a share of zeros; None: it is chosen, or nothing is pruned.

    Raises:
        UsageError: It is neither a share nor ``auto``.
    """
    if prune is None or prune == AUTO:
        return None
    try:
        share = float(prune)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share < 1:
        raise UsageError(f"prune must be a share from 0 to less than 1, or auto; got {prune!r}")
    return share


def _part(gates: Gates) -> Gates:
    """Return gates that allow a part of what these do."""
    return replace(
        gates,
        max_drop=None if gates.max_drop is None else _PART * gates.max_drop,
        min_agreement=None if gates.min_agreement is None else 1 - _PART * (1 - gates.min_agreement),
        min_sqnr=None if gates.min_sqnr is None else gates.min_sqnr - 10 * math.log10(_PART),
    )
