"""Drawings with a row for each thing: intervals, values against bounds, several measures side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxcomp.report.html.charts import drawing, mark, shortened, text
from onnxcomp.report.html.markup import Markup, tag
from onnxcomp.report.html.scale import Scale, scale_of

__all__ = ["Bound", "Column", "Interval", "Measured", "bounds", "intervals", "measures"]

_WIDTH = 1040.0
_NAME = 260.0
_TALL = 30.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval (None: it has none), and what it says in full."""

    name: str
    value: float
    low: float | None
    high: float | None
    tip: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A value that is held against a bound: what both are in words, and whether it passes."""

    name: str
    value: float
    bound: float
    low: float | None
    high: float | None
    said: str
    status: str
    tip: str


@dataclass(frozen=True, slots=True)
class Column:
    """A measure of all rows: its name, and whether it is drawn as a bar from 0 or as a dot."""

    name: str
    form: Literal["bar", "dot"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A thing with its measures, one for each column (None: not known), and what it says in full."""

    name: str
    values: tuple[float | None, ...]
    tip: str


def intervals(rows: Sequence[Interval], *, against: float, label: str, across: str) -> Markup:
    """Draw values with their intervals, and the line of what they are held against."""
    edges = [against, *(v for row in rows for v in (row.value, row.low, row.high) if v is not None)]
    x = scale_of(edges, _NAME, _WIDTH - 20, least=0.01)
    bottom = 10 + _TALL * len(rows)
    parts = [*_axis(x, bottom, across)]
    parts.append(tag("line", x1=x(against), x2=x(against), y1=4.0, y2=bottom, class_="reference"))
    names = shortened((row.name for row in rows), 38)
    for index, row in enumerate(rows):
        y = 10 + _TALL * (index + 0.5)
        inside = [text(_NAME - 14, y + 4, names[row.name], "name", anchor="end")]
        if row.low is not None and row.high is not None:
            inside.append(tag("line", x1=x(row.low), x2=x(row.high), y1=y, y2=y, class_="span thick"))
        inside.append(tag("circle", cx=x(row.value), cy=y, r=6.0))
        parts.append(mark(row.tip, *inside, kind="after"))
    return drawing(_WIDTH, bottom + 40, label, *parts, marks=True)


def bounds(rows: Sequence[Bound], *, label: str) -> Markup:
    """Draw values as bars, each on a scale of its own, with a line where its bound is."""
    parts = []
    names = shortened((row.name for row in rows), 38)
    for index, row in enumerate(rows):
        top = 6 + 38.0 * index
        highest = max(0.0, row.bound, row.value, row.high or 0.0)
        lowest = min(0.0, row.bound, row.value, row.low or 0.0)
        x = scale_of([lowest, highest], _NAME, 760, pad=0.04, least=1e-9)
        zero, end = x(0.0), x(row.value)
        kind = "good" if row.status == "passed" else "bad"
        inside = [
            text(_NAME - 14, top + 17, names[row.name], "name", anchor="end"),
            tag("rect", x=min(zero, end), y=top + 4, width=max(1.5, abs(end - zero)), height=18, class_=kind),
            text(776, top + 17, row.said, "name"),
        ]
        if row.low is not None and row.high is not None:
            inside.append(tag("line", x1=x(row.low), x2=x(row.high), y1=top + 13, y2=top + 13, class_="whisker"))
        inside.append(tag("line", x1=x(row.bound), x2=x(row.bound), y1=top, y2=top + 26, class_="reference"))
        parts.append(mark(row.tip, *inside))
    return drawing(_WIDTH, 14 + 38.0 * len(rows), label, *parts, marks=True)


def measures(rows: Sequence[Measured], columns: Sequence[Column], *, label: str) -> Markup:
    """Draw several measures of things, side by side; each column has a scale of its own."""
    room = (_WIDTH - _NAME) / len(columns)
    bottom = 24 + 22.0 * len(rows)
    parts, scales = [], []
    for index, column in enumerate(columns):
        left = _NAME + room * index
        values = [v for row in rows if (v := row.values[index]) is not None]
        x = scale_of([*values, 0.0] if column.form == "bar" else values, left, left + room - 44, pad=0.03, least=1e-12)
        scales.append(x)
        parts.append(text(left, 13, column.name, "axis"))
        for tick in x.ticks(3):
            parts.append(tag("line", x1=x(tick), x2=x(tick), y1=20.0, y2=bottom, class_="grid"))
            parts.append(text(x(tick), bottom + 14, x.text(tick, 3), "tick", anchor="middle"))
    names = shortened((row.name for row in rows), 38)
    for index, row in enumerate(rows):
        top = 24 + 22.0 * index
        inside = [text(_NAME - 14, top + 14, names[row.name], "name", anchor="end")]
        for value, column, x in zip(row.values, columns, scales, strict=True):
            if value is None:
                continue
            if column.form == "bar":
                zero, end = x(0.0), x(value)
                size = max(0.8, abs(end - zero))
                inside.append(tag("rect", x=min(zero, end), y=top + 5, width=size, height=11, class_="after"))
            else:
                inside.append(tag("line", x1=x.start, x2=x(value), y1=top + 10, y2=top + 10, class_="stem"))
                inside.append(tag("circle", cx=x(value), cy=top + 10, r=4.0, class_="after"))
        parts.append(mark(row.tip, *inside))
    return drawing(_WIDTH, bottom + 20, label, *parts, marks=True)


def _axis(x: Scale, bottom: float, across: str) -> list[Markup]:
    parts = [text((x.start + x.end) / 2, bottom + 34, across, "axis", anchor="middle")]
    for tick in x.ticks(7):
        parts.append(tag("line", x1=x(tick), x2=x(tick), y1=4.0, y2=bottom, class_="grid"))
        parts.append(text(x(tick), bottom + 16, x.text(tick, 7), "tick", anchor="middle"))
    return parts
