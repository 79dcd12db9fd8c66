"""Sections of the page of `bench` on sizes, streams and nodes."""

from collections.abc import Iterator, Sequence

from onnxcomp.report.figures import counted, seconds_text
from onnxcomp.report.html.charts import Curve, curves, shortened
from onnxcomp.report.html.common import Found, number
from onnxcomp.report.html.markup import tag
from onnxcomp.report.html.page import Cell, figure, fold, paragraph, table
from onnxcomp.report.html.scale import percent, time_unit

__all__ = ["node_parts", "stream_parts", "sweep_parts"]

_MANY = 2000  # rows a second: more are counted by the thousand, as the axis has little room
_SHORT = 13  # characters of a name beside a line


def sweep_parts(points: Sequence[Found]) -> Iterator[str]:
    """Yield the points of a sweep: drawn where one dimension is swept, and as a table."""
    if not points:
        return
    (first, *others) = points[0]["sizes"]
    if not others and len(points) > 1:
        names = [one["model"] for one in points[0]["models"]]
        every = [one for point in points for one in point["models"]]
        factor, unit = time_unit(max(one["per_row"] for one in every))
        many = max(one["throughput"] for one in every) >= _MANY
        drawn = (
            ("per_row", factor, f"{unit} per row"),
            ("throughput", *((1e-3, "1000 rows/s") if many else (1.0, "rows/s"))),
        )
        yield tag("div", *(_drawn(points, names, first, what) for what in drawn), class_="columns")
    rows: list[list[Cell | str]] = [
        [
            one["model"],
            *(number(size, "d") for size in point["sizes"].values()),
            *(Cell(seconds_text(value), value) for value in (one["latency"]["median"], one["per_row"])),
            number(one["throughput"], ".1f"),
            *_ratio(one["ratio"]),
        ]
        for point in points
        for one in point["models"]
    ]
    heads = ("model", *points[0]["sizes"], "run", "per row", "rows/s", "time / first", "from", "to")
    yield table("All models at all sizes", heads, rows)


def _drawn(points: Sequence[Found], names: Sequence[str], dimension: str, drawn: tuple[str, float, str]) -> str:
    field, factor, unit = drawn
    lines = []
    short = shortened(names, _SHORT)
    for index, name in enumerate(names):
        values = [(point["sizes"][dimension], point["models"][index][field] * factor) for point in points]
        tips = tuple(f"{name}, {dimension} {size}: {value:.4g} {unit}" for size, value in values)
        lines.append(Curve(short[name], "after" if index else "before", tuple(values), tips))
    drawing = curves(lines, label=f"{unit} by {dimension}", across=dimension, up=unit)
    return figure(unit, f"One run after the other, at each size of {dimension}.", drawing)


def stream_parts(found: Found | None) -> Iterator[str]:
    """Yield what several streams do."""
    if found is None:
        return
    many = f"{found['streams']} stream{'' if found['streams'] == 1 else 's'}"
    yield paragraph(f"{many} of one session, each a thread with inputs of its own; medians over windows of time.")
    rows: list[list[Cell | str]] = [
        [one["model"], *(number(one[k], ".1f") for k in ("rate", "low", "high")), *_ratio(one["ratio"])]
        for one in found["models"]
    ]
    yield table("Throughput", ("model", "rows/s", "from", "to", "rate / first", "from", "to"), rows)


def node_parts(model: Found) -> Iterator[str]:
    """Yield the time of each node of a model, and what fell back to the CPU."""
    fallen = model.get("fallback")
    if fallen is not None:
        shares = f"{percent(fallen['nodes_share'])} of the nodes, {percent(fallen['time_share'])} of their time"
        kinds = f": {', '.join(fallen['op_types'])}" if fallen["op_types"] else ""
        yield paragraph(f"{model['model']}: {counted(fallen['nodes'], 'node')} ran on the CPU ({shares}){kinds}.")
    nodes = model.get("nodes") or ()
    if nodes:
        total = sum(one["seconds"] for one in nodes) or 1.0
        rows: list[list[Cell | str]] = [
            [one["name"], one["op_type"], one["provider"].removesuffix("ExecutionProvider"),
             Cell(seconds_text(one["seconds"]), one["seconds"]), Cell(percent(one["seconds"] / total), one["seconds"])]
            for one in nodes
        ]  # fmt: skip
        heads = ("node", "operator", "ran on", "time", "share")
        yield fold(f"Time by node of {model['model']}", table("Nodes as onnxruntime runs them", heads, rows))


def _ratio(ratio: Found | None) -> list[Cell]:
    return [number(ratio[k] if ratio else None, ".3f") for k in ("ratio", "low", "high")]
