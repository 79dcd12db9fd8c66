"""Parts of the page of `inspect`: how the values of weights are distributed."""

from collections.abc import Iterator, Sequence

from onnxcomp.report.html.bars import histogram
from onnxcomp.report.html.charts import shortened
from onnxcomp.report.html.common import Found, number
from onnxcomp.report.html.markup import tag
from onnxcomp.report.html.page import Cell, figure, paragraph, table
from onnxcomp.report.html.scale import percent

__all__ = ["histogram_parts"]

_MOST_DRAWN = 36


def histogram_parts(found: Sequence[Found]) -> Iterator[str]:
    """Yield a drawing for each of the weights with the most values far out, and a table of all."""
    if not found:
        return
    drawn = sorted(found, key=lambda one: -one["outliers"])[:_MOST_DRAWN]
    some = f" The {len(drawn)} with the most values far out are drawn." if len(drawn) < len(found) else ""
    yield paragraph(
        "How often values occur, on a logarithmic scale. Few values far from all others make integers coarse." + some
    )
    names = shortened((one["name"] for one in found), 30)
    yield tag(
        "div",
        *(
            figure(
                names[one["name"]],
                f"{percent(one['outliers'])} beyond 4 std",
                histogram(one["counts"], ends := (one["least"], one["most"]), ends, label=_said(one)),
            )
            for one in drawn
        ),
        class_="small",
    )
    rows: list[list[Cell | str]] = [
        [
            one["name"],
            one["dtype"],
            "x".join(map(str, one["shape"])),
            *(number(one[field], ".4g") for field in ("least", "most", "mean", "std")),
            *(Cell(percent(one[field]), one[field]) for field in ("zeros", "outliers")),
            number(one["broken"], "d"),
        ]
        for one in found
    ]
    heads = ("weight", "type", "shape", "smallest", "largest", "mean", "std", "zeros", "beyond 4 std", "not finite")
    yield table("Weights in the order of the file", heads, rows)


def _said(one: Found) -> str:
    return f"{one['name']}: values from {one['least']:.3g} to {one['most']:.3g}"
