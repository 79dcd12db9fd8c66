"""Drawings of points and lines: candidates in the plane, runs as dots, curves. Pure functions from figures to SVG."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxcomp.report.html.markup import Markup, join, tag
from onnxcomp.report.html.scale import Scale, scale_of, time_unit

__all__ = ["Curve", "Point", "curves", "drawing", "mark", "run_dots", "scatter", "shortened", "text"]

_DOT = 5.0  # radius of a dot that stands for runs


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the plane.

    Attributes:
        key: The same for the row of a table that tells more of it.
        label: Written beside it; empty: nothing.
        x: Horizontal value.
        y: Vertical value.
        span: Interval of the horizontal value; None: none.
        kind: ``before``, ``after``, ``ranked`` or ``rejected``.
        tip: What it is, in full.
    """

    key: str
    label: str
    x: float
    y: float
    span: tuple[float, float] | None
    kind: str
    tip: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points, with its name at the end and what each point says."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]
    tips: tuple[str, ...]


def drawing(width: float, height: float, label: str, *parts: str, marks: bool = False) -> Markup:
    """Return an SVG that grows with the page; `marks`: parts of it can be reached by keys and say what they are."""
    roles = {"role": "group", "aria_roledescription": "chart"} if marks else {"role": "img"}
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", aria_label=label, class_="chart", **roles)


def text(x: float, y: float, content: str, kind: str = "", *, anchor: str = "start") -> Markup:
    """Return a text at a place."""
    return tag("text", content, x=x, y=y, class_=kind or None, text_anchor=None if anchor == "start" else anchor)


def mark(tip: str, *parts: str, key: str | None = None, kind: str = "") -> Markup:
    """Return a part of a drawing that says what it is: on hover, on focus, and to a screen reader."""
    classes = f"mark {kind}".strip()
    return tag("g", tag("title", tip), *parts, class_=classes, role="img", data_key=key)


def scatter(
    points: Sequence[Point], *, label: str, across: str, up: str, bound: tuple[float, str] | None = None
) -> Markup:
    """Draw points in the plane; to the left and below is better.

    Args:
        points: At least one.
        label: What the drawing shows.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        bound: A horizontal value that must not be passed, and what it is.
    """
    width, height = 520.0, 380.0
    edges = [edge for point in points for edge in (point.x, *(point.span or ()))]
    x = scale_of([*edges, *([bound[0]] if bound else [])], 56, width - 14, least=0.002)
    y = scale_of([point.y for point in points], height - 48, 14, zero=True)
    parts = [_grid(x, y, across, up), text(64, height - 56, "\N{SOUTH WEST ARROW} better", "hint")]
    if bound:
        place = x(bound[0])
        parts.append(tag("line", x1=place, x2=place, y1=14.0, y2=height - 48, class_="bound"))
        parts.append(text(place - 4, 24, bound[1], "bound-label", anchor="end"))
    taken = [(x(p.x) - 7, y(p.y) - 7, x(p.x) + 7, y(p.y) + 7) for p in points]
    order = sorted(points, key=lambda p: ("rejected", "ranked", "before", "after").index(p.kind))
    for point in order:
        parts.append(_point(point, x, y, _place_label(point, x, y, taken, width)))
    return drawing(width, height, label, *parts, marks=True)


def _point(point: Point, x: Scale, y: Scale, label: tuple[float, float, str] | None) -> Markup:
    px, py = x(point.x), y(point.y)
    shape = (
        tag("rect", x=px - 5, y=py - 5, width=10, height=10)
        if point.kind == "before"
        else tag("circle", cx=px, cy=py, r=7.0 if point.kind == "after" else 5.0)
    )
    parts = [shape]
    if point.span:
        low, high = x(point.span[0]), x(point.span[1])
        parts.insert(0, tag("line", x1=low, x2=high, y1=py, y2=py, class_="span"))
    if point.kind == "rejected":
        parts.append(tag("path", d=f"M{px - 3:.1f} {py - 3:.1f}l6 6m0 -6l-6 6", class_="cross"))
    if label:
        parts.append(text(label[0], label[1], point.label, "name", anchor=label[2]))
    return mark(point.tip, *parts, key=point.key, kind=point.kind)


def _place_label(
    point: Point, x: Scale, y: Scale, taken: list[tuple[float, float, float, float]], width: float
) -> tuple[float, float, str] | None:
    """Find room for a label beside its point; None where there is none, or nothing to write."""
    if not point.label:
        return None
    wide, px, py = 6.6 * len(point.label) + 2, x(point.x), y(point.y)
    for dx, dy, anchor in ((10, 4, "start"), (-10, 4, "end"), (0, -11, "middle"), (0, 20, "middle"),
                           (9, -8, "start"), (-9, -8, "end"), (9, 15, "start"), (-9, 15, "end")):  # fmt: skip
        left = px + dx - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        box = (left, py + dy - 10, left + wide, py + dy + 3)
        inside = box[0] > 52 and box[2] < width and box[1] > 4
        if inside and not any(_overlap(box, other) for other in taken if other[:2] != (px - 7, py - 7)):
            taken.append(box)
            return px + dx, py + dy, anchor
    return None


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _grid(x: Scale, y: Scale, across: str, up: str) -> Markup:
    """Draw both axes: light lines, few figures, names."""
    parts = []
    for tick in y.ticks():
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(text(x.start - 6, y(tick) + 4, y.text(tick), "tick", anchor="end"))
    for tick in x.ticks():
        parts.append(tag("line", x1=x(tick), x2=x(tick), y1=y.end, y2=y.start, class_="grid"))
        parts.append(text(x(tick), y.start + 16, x.text(tick), "tick", anchor="middle"))
    middle = (y.start + y.end) / 2
    parts.append(text((x.start + x.end) / 2, y.start + 36, across, "axis", anchor="middle"))
    parts.append(
        tag("text", up, class_="axis", text_anchor="middle", transform=f"translate(13 {middle:g}) rotate(-90)")
    )
    return tag("g", *parts, aria_hidden="true")


def run_dots(rows: Sequence[tuple[str, str, Sequence[float]]], *, label: str) -> Markup:
    """Draw what runs took as dots, each for a twentieth of the runs, stacked where they are alike.

    Args:
        rows: Name, kind and quantiles of each model, seconds, ascending.
        label: What the drawing shows.
    """
    width, left = 1040.0, 190.0
    factor, unit = time_unit(max(times[len(times) // 2] for _, _, times in rows))
    end = factor * max(times[-3] for _, _, times in rows if times)
    x = scale_of([end], left, width - 60, zero=True, pad=0.03)
    parts, top = [], 8.0
    for name, kind, times in rows:
        columns: dict[int, int] = {}
        dots, late = [], 0
        for seconds in times:
            if seconds * factor > x.high:
                late += 1
                continue
            column = round(x(seconds * factor) / (2 * _DOT))
            level = columns[column] = columns.get(column, -1) + 1
            dots.append((2 * _DOT * column, level))
        tall = 2 * _DOT * (max(columns.values(), default=0) + 1)
        base = top + max(tall, 24.0)
        median = times[len(times) // 2] * factor
        tip = f"{name}: half of the runs take at most {median:.3g} {unit}"
        circles = [tag("circle", cx=cx, cy=base - _DOT - 2 * _DOT * level, r=_DOT - 0.6) for cx, level in dots]
        if late:
            circles.append(text(width - 54, base - 2, f"+{late} later", "tick"))
        parts.append(tag("line", x1=left, x2=width - 60, y1=base, y2=base, class_="baseline"))
        parts.append(mark(tip, *circles, kind=kind))
        parts.append(text(left - 12, base - 4, shortened([name], 26)[name], "name", anchor="end"))
        top = base + 18
    behind = []
    for tick in x.ticks(8):
        behind.append(tag("line", x1=x(tick), x2=x(tick), y1=4.0, y2=top - 14, class_="grid"))
        behind.append(text(x(tick), top + 2, x.text(tick, 8), "tick", anchor="middle"))
    behind.append(text((left + width) / 2, top + 22, f"{unit} per run", "axis", anchor="middle"))
    return drawing(width, top + 30, label, *behind, *parts, marks=True)


def curves(
    lines: Sequence[Curve], *, label: str, across: str, up: str, written: Callable[[float], str] = "{:g}".format
) -> Markup:
    """Draw lines over one horizontal axis, each named where it ends.

    Args:
        lines: At least one, with points.
        label: What the drawing shows.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        written: How a horizontal value is written.
    """
    width, height = 520.0, 300.0
    xs = sorted({x for line in lines for x, _ in line.points})
    x = scale_of(xs, 56, width - 110, pad=0.02, least=1e-9)
    y = scale_of([y for line in lines for _, y in line.points], height - 48, 14, pad=0.08, least=0.01)
    parts = [_grid(Scale(x.low, x.high, x.start, x.end), y, across, up)]
    ends: list[float] = []
    for line in lines:
        places = [(x(a), y(b)) for a, b in line.points]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(tag("path", d=path, class_=f"curve {line.kind}"))
        shapes = zip(places, line.tips, strict=True)
        parts += [mark(tip, tag("circle", cx=a, cy=b, r=4.0), kind=line.kind) for (a, b), tip in shapes]
        end = places[-1][1]
        while any(abs(end - other) < 13 for other in ends):
            end += 13
        ends.append(end)
        parts.append(text(places[-1][0] + 8, end + 4, line.name, f"name {line.kind}"))
    return drawing(width, height, label, join(parts), marks=True)


def shortened(names: Iterable[str], most: int) -> dict[str, str]:
    """Return names no longer than so many characters; long ones keep their ends, which tell them apart."""
    return {name: name if len(name) <= most else f"…{name[-most + 1 :]}" for name in names}
