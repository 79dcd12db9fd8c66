"""The section on disturbed inputs: how both models fare the harder these are disturbed."""

from collections.abc import Iterator, Mapping, Sequence

from onnxcomp.report.html.charts import Curve, curves
from onnxcomp.report.html.common import Found, number
from onnxcomp.report.html.markup import tag
from onnxcomp.report.html.page import Cell, figure, paragraph, table

__all__ = ["robustness_parts"]

_FIELDS = {
    "agreement": "agreement",
    "reference_kept": "reference keeps",
    "candidate_kept": "candidate keeps",
    "reference_score": "reference scores",
    "candidate_score": "candidate scores",
}


def robustness_parts(
    robustness: Sequence[Found],
    score: Mapping[str, float | str] | None,
    names: tuple[str, str] = ("reference", "candidate"),
) -> Iterator[str]:
    """Yield the drawings and the table.

    Args:
        robustness: As the report has it; may be empty.
        score: Name of the ``metric``, and scores of ``reference`` and ``candidate`` on undisturbed inputs; None: there
            are none.
        names: Of both models.
    """
    if not robustness:
        return
    yield paragraph(
        "What disturbing the inputs does to both models: lines that fall together mean that nothing was lost."
    )
    kinds = dict.fromkeys(one["perturbation"] for one in robustness)
    drawn = [_curves(kind, [o for o in robustness if o["perturbation"] == kind], score, names) for kind in kinds]
    yield tag("div", *drawn, class_="columns")
    rows: list[list[Cell | str]] = [
        [one["perturbation"], number(one.get("severity"), "d"), number(one["strength"], "g"),
         *(number(one[field]) for field in _FIELDS)]
        for one in robustness
    ]  # fmt: skip
    heads = [said.replace("reference", names[0]).replace("candidate", names[1]) for said in _FIELDS.values()]
    yield table("Both models on disturbed inputs", ("disturbance", "severity", "strength", *heads), rows)


def _curves(kind: str, found: Sequence[Found], score: Mapping[str, float | str] | None, names: tuple[str, str]) -> str:
    scored = score is not None and all(one["reference_score"] is not None for one in found)
    what = str(score["metric"]) if scored and score else "share of answers that stay the same"
    graded = all(one.get("severity") is not None for one in found)
    place = "severity" if graded else "strength"
    lines = []
    for name, side, shade in zip(names, ("reference", "candidate"), ("before", "after"), strict=True):
        field = f"{side}_score" if scored else f"{side}_kept"
        on_these = next((one.get(f"{side}_undisturbed") for one in found), None)
        start = float(score[side] if on_these is None else on_these) if scored and score else 1.0
        at = sorted((float(one[place]), float(one[field]), float(one["strength"])) for one in found)
        points = ((0.0, start), *((x, y) for x, y, _ in at))
        tips = (
            f"{name}, undisturbed: {start:.4f}",
            *(f"{name}, {kind} {strength:g}: {y:.4f}" for _, y, strength in at),
        )
        lines.append(Curve(name, shade, points, tips))
    return figure(kind, "", curves(lines, label=f"{kind}: {what}", across=place, up=what))
