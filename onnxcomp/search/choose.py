"""Which of several measured candidates is best for a goal. Pure functions on measured values."""

from collections.abc import Iterable

from onnxcomp.search.race import NO_SLOWER
from onnxcomp.search.result import CandidateResult, Miss
from onnxcomp.target import Budget, Goal

__all__ = ["FASTER", "LATENCY_TIE", "SIZE_TIE", "misses", "objection", "ranked", "worth_saving"]

LATENCY_TIE = 0.02  # ratios this close are one: the machine decides them, not the model
SIZE_TIE = 0.01
FASTER = 0.99  # two sessions of one and the same model differ by up to a percent


def objection(
    candidate: CandidateResult, original_size: int, goal: Goal, budget: Budget, *, fallback: bool
) -> str | None:
    """Say why the measured size and latency rule a candidate out, or None.

    Args:
        candidate: Without a latency, where none is measured, its size alone decides.
        original_size: Bytes of the original.
        goal: What must have become better.
        budget: Bounds on size and latency.
        fallback: Whether being no worse is enough (the cleaned-up model): it is not measured to be slower.
    """
    if missed := misses(candidate, original_size, budget):
        return missed[0].text
    latency = candidate.latency
    if fallback and (latency is None or latency.low <= 1):
        return None
    if goal == "latency" and not (latency is not None and latency.high < FASTER):
        return f"not clearly faster: its interval does not end below {FASTER:g}"
    if goal == "size" and not candidate.size < original_size:
        return "not smaller"
    if goal == "balanced" and not _cost(candidate, original_size, goal) < 1:
        return "not better in the product of size and latency"
    return None


def misses(candidate: CandidateResult, original_size: int, budget: Budget) -> list[Miss]:
    """List the bounds on size and latency that a candidate does not keep.

    Args:
        candidate: Without a latency, where none is measured, its size alone decides.
        original_size: Bytes of the original.
        budget: The bounds.
    """
    latency, size, found = candidate.latency, candidate.size, []
    slowest = budget.max_latency_ratio if budget.max_latency_ratio is not None else NO_SLOWER
    if latency is not None and latency.low > slowest:
        text = f"slower than allowed: {latency.ratio:.3f} of the original's time, the bound is {slowest:g}"
        found.append(Miss(text, latency.ratio / slowest - 1))
    if budget.max_size is not None and size > budget.max_size:
        found.append(Miss(f"larger than {budget.max_size} bytes: {size}", size / budget.max_size - 1))
    if size > original_size:
        found.append(Miss("larger than the original", size / original_size - 1))
    return found


def ranked(candidates: Iterable[CandidateResult], original_size: int, goal: Goal) -> list[CandidateResult]:
    """Order candidates from best to worst.

    Of those that tie, the one better in the other respect comes first; where they tie in that too, the one that fewer
    passes made.
    """
    left = list(candidates)
    order = []
    while left:
        best = min(_cost(c, original_size, goal) for c in left)
        by_size = goal == "size"
        tied = [c for c in left if _cost(c, original_size, goal) <= best * (1 + (SIZE_TIE if by_size else LATENCY_TIE))]
        other = {c.name: _ratio(c) if by_size else c.size for c in tied}
        alike = min(other.values()) * (1 + (LATENCY_TIE if by_size else SIZE_TIE))
        simplest = min(len(c.recipe.steps) for c in tied if other[c.name] <= alike)
        chosen = min(
            (c for c in tied if other[c.name] <= alike and len(c.recipe.steps) == simplest), key=lambda c: other[c.name]
        )
        left.remove(chosen)
        order.append(chosen)
    return order


def worth_saving(candidate: CandidateResult, kept: Iterable[CandidateResult], original_size: int, goal: Goal) -> bool:
    """Whether a candidate that lost too much is so much better than all that are kept that repairing it may pay."""
    cost = _cost(candidate, original_size, goal)
    return all(cost < _cost(other, original_size, goal) * (1 - LATENCY_TIE) for other in kept)


def _cost(candidate: CandidateResult, original_size: int, goal: Goal) -> float:
    size = candidate.size / original_size
    return {"latency": _ratio(candidate), "size": size, "balanced": _ratio(candidate) * size}[goal]


def _ratio(candidate: CandidateResult) -> float:
    return 1.0 if candidate.latency is None else candidate.latency.ratio  # without times none is faster
