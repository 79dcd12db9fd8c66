"""What came nearest, where no candidate keeps the bounds that the user named."""

import math
from collections.abc import Sequence

from onnxcomp.search import choose
from onnxcomp.search.build import Built
from onnxcomp.search.prove import Prover
from onnxcomp.search.result import Miss, NearMiss
from onnxcomp.target import Budget

__all__ = ["nearest_misses", "told"]

_NEAREST = 3  # candidates that are named


def nearest_misses(built: Sequence[Built], prover: Prover, original_size: int, budget: Budget) -> tuple[NearMiss, ...]:
    """Return the candidates that miss their bounds by least, and what each of them misses.

    Args:
        built: All candidates.
        prover: Judges them on the samples of the final verdict.
        original_size: Bytes of the original.
        budget: The bounds.
    """

    def costs(candidate: Built) -> list[Miss]:
        return choose.misses(candidate.result, original_size, budget)

    def excess(missed: list[Miss]) -> float:
        return max((miss.excess for miss in missed), default=0.0)

    found = []
    whole = [one for one in built if one.result.latency is not None] or built  # the others were steps on the way
    for candidate in sorted(whole, key=lambda one: (excess(costs(one)), one.result.size))[:_NEAREST]:
        quality = prover.final_quality(candidate)
        missed = [*costs(candidate), *(prover.misses(quality) if quality is not None else ())]
        missed = missed or [Miss(candidate.result.rejected or "", math.inf)]
        found.append((excess(missed), NearMiss(candidate.result.name, tuple(miss.text for miss in missed))))
    return tuple(near for _, near in sorted(found, key=lambda pair: pair[0]))


def told(missed: str, nearest: Sequence[NearMiss]) -> str:
    """Return what was missed, and what came nearest, as one sentence."""
    near = "; ".join(f"{one.name}: {', '.join(one.misses)}" for one in nearest)
    return f"{missed} (nearest: {near})"
