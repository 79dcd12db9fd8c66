"""Zeros before values are shared: as many weights as the gates allow, with half of what they allow left for sharing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxcomp.api.making import measured, missed
from onnxcomp.errors import UsageError
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.sharing import TriedSparsity
from onnxcomp.search import Judge, Progress
from onnxcomp.target import Gates

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AUTO", "Thinner", "sparsity_of"]

AUTO = "auto"
_PASS = "prune-weights"
_SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_HALF_DB = 3.0  # half of the noise


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
        """Return the model with as many zeros as half of the gates allows, by bisection; as it is where none does."""
        best: tuple[ir.Model, list[PassReport]] = (model, [])
        low, high = -1, len(_SHARES)
        half = _half(gates)
        while high - low > 1:
            middle = (low + high) // 2
            show(f"prune {_SHARES[middle]:.0%} of the weights", None)
            found = self.pruned(model, _SHARES[middle])
            if not any(report.modified for report in found[1]):
                return found  # which says why
            made = measured(found[0], self._judge)
            objection = "; ".join(missed(half, self._judge, made)) or None
            self.tried.append(TriedSparsity(_SHARES[middle], made.quality, objection))
            if objection is None:
                low, best = middle, found
            else:
                high = middle
        return best


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


def _half(gates: Gates) -> Gates:
    """Return gates that allow half of what these do."""
    return replace(
        gates,
        max_drop=None if gates.max_drop is None else gates.max_drop / 2,
        min_agreement=None if gates.min_agreement is None else (1 + gates.min_agreement) / 2,
        min_sqnr=None if gates.min_sqnr is None else gates.min_sqnr + _HALF_DB,
    )
