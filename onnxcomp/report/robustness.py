"""What disturbances of the inputs do to two models, and the table of that."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Robustness", "robustness_rows"]


@dataclass(frozen=True, slots=True)
class Robustness:
    """What a disturbance of the inputs does to both models.

    Attributes:
        perturbation: Its kind, as in ``noise``.
        strength: In the unit of the kind: for noise and brightness a share of the standard deviation of each input.
        agreement: Share of equal answers of both models to disturbed inputs.
        reference_kept: Share of the reference's answers that the disturbance does not change.
        candidate_kept: The same of the candidate's.
        reference_score: On disturbed inputs, for top1 and top5; None: not known.
        candidate_score: The same of the candidate.
        severity: 1 to 5, where the strength is that of a severity.
        reference_undisturbed: The reference's score on the same runs as they are; None: not known.
        candidate_undisturbed: The same of the candidate.
    """

    perturbation: str
    strength: float
    agreement: float
    reference_kept: float
    candidate_kept: float
    reference_score: float | None
    candidate_score: float | None
    severity: int | None = None
    reference_undisturbed: float | None = None
    candidate_undisturbed: float | None = None


def robustness_rows(found: Sequence[Robustness], names: tuple[str, str]) -> Iterable[tuple[str, ...]]:
    """Yield the rows of a table: the heads, then one per disturbance.

    Args:
        found: At least one.
        names: Of the reference and of the candidate.
    """
    scored = any(one.reference_score is not None for one in found)
    heads = ("disturbed by", "agreement", *(f"{name} keeps" for name in names))
    yield (*heads, *(f"{name} scores" for name in names)) if scored else heads
    for one in found:
        shares = (one.agreement, one.reference_kept, one.candidate_kept)
        severity = "" if one.severity is None else f" (severity {one.severity})"
        row = (f"{one.perturbation} {one.strength:g}{severity}", *(f"{share:.4f}" for share in shares))
        scores = (one.reference_score, one.candidate_score)
        yield (*row, *("-" if score is None else f"{score:.4f}" for score in scores)) if scored else row
