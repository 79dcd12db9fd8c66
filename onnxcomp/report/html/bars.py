"""Drawings of lengths: bars before and after, what something is made of, distributions, the map of layers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnxcomp.report.figures import bytes_text
from onnxcomp.report.html.charts import drawing, mark, shortened, text
from onnxcomp.report.html.markup import Markup, tag
from onnxcomp.report.html.scale import Scale, percent, scale_of

__all__ = ["Pair", "Stack", "dtype_kind", "histogram", "layer_map", "pairs", "short_dtype", "stacks"]

_WIDTH = 1040.0
_NAME = 190.0  # where names end and bars begin


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure before and after; None: it was not there."""

    name: str
    before: float | None
    after: float | None
    tip: str


@dataclass(frozen=True, slots=True)
class Stack:
    """What something is made of: names, kinds and sizes of its parts."""

    name: str
    parts: tuple[tuple[str, str, float], ...]


def pairs(rows: Sequence[Pair], *, label: str, unit: str, written: Callable[[float], str]) -> Markup:
    """Draw two bars per row, before over after, with the figure at the end of each.

    Args:
        rows: At least one.
        label: What the drawing shows.
        unit: Name of the axis.
        written: How a figure is written.
    """
    x = scale_of([v for row in rows for v in (row.before, row.after) if v], _NAME, _WIDTH - 90, zero=True, pad=0.0)
    names = shortened((row.name for row in rows), 28)
    parts, top = [], 6.0
    two = any(row.before is not None for row in rows)
    for row in rows:
        bars = []
        for value, kind, y in ((row.before, "before", top), (row.after, "after", top + 12 * two)):
            if value is not None:
                end = x(max(0.0, value))
                bars.append(tag("rect", x=_NAME, y=y, width=max(1.0, end - _NAME), height=10, class_=kind))
                bars.append(text(end + 6, y + 9, written(value), f"figure {kind}"))
        parts.append(mark(row.tip, text(_NAME - 10, top + 9 + 6 * two, names[row.name], "name", anchor="end"), *bars))
        top += 20 + 12 * two
    return drawing(_WIDTH, top + 18, label, *parts, text(_NAME, top + 12, unit, "axis"), marks=True)


def stacks(rows: Sequence[Stack], *, label: str) -> Markup:
    """Draw bars of bytes, each cut into its parts; a part that is wide enough has its name on it."""
    totals = [sum(size for _, _, size in row.parts) for row in rows]
    x = scale_of(totals, _NAME, _WIDTH - 90, zero=True, pad=0.0)
    parts, top = [], 4.0
    for row, total in zip(rows, totals, strict=True):
        parts.append(text(_NAME - 10, top + 24, row.name, "name", anchor="end"))
        begin = 0.0
        for name, kind, size in row.parts:
            left, right = x(begin), x(begin + size)
            begin += size
            tip = f"{row.name}: {name} {bytes_text(int(size))}, {percent(size / total if total else 0)}"
            inside = [tag("rect", x=left, y=top, width=max(0.6, right - left - 1), height=38, class_=f"part {kind}")]
            said = name, bytes_text(int(size))
            if right - left > 7.5 * max(map(len, said)) + 14:
                inside += [text(left + 7, top + y, line, "on-part") for y, line in zip((16, 31), said, strict=True)]
            parts.append(mark(tip, *inside))
        parts.append(text(x(total) + 8, top + 24, bytes_text(int(total)), "figure"))
        top += 50
    return drawing(_WIDTH, top, label, *parts, marks=True)


def histogram(counts: Sequence[int], extremes: tuple[float, float], kept: tuple[float, float], *, label: str) -> Markup:
    """Draw how often values occur, on a scale that shows single ones; what is cut off is marked.

    Args:
        counts: Of equal bins.
        extremes: Smallest and largest value.
        kept: Where the integers begin and end.
        label: What the drawing shows.
    """
    width, height, base = 250.0, 104.0, 84.0
    low, high = min(extremes[0], kept[0]), max(extremes[1], kept[1])
    x = scale_of([low, high], 6, width - 6, pad=0.0, least=1e-30)
    most = math.log10(1 + max(counts, default=0)) or 1.0
    step = (extremes[1] - extremes[0]) / max(1, len(counts))
    inside: list[str] = []
    outside: list[str] = []
    for index, count in enumerate(counts):
        if not count:
            continue
        left, right = x(extremes[0] + index * step), x(extremes[0] + (index + 1) * step)
        tall = (base - 8) * math.log10(1 + count) / most
        middle = extremes[0] + (index + 0.5) * step
        bar = f"M{left:.1f} {base:g}V{base - tall:.1f}H{max(right, left + 0.8):.1f}V{base:g}"
        (inside if kept[0] <= middle <= kept[1] else outside).append(bar)
    parts = [tag("path", d=" ".join(inside), class_="bins") if inside else ""]
    parts += [tag("path", d=" ".join(outside), class_="bins cut") if outside else ""]
    parts.append(tag("line", x1=6.0, x2=width - 6, y1=base, y2=base, class_="baseline"))
    for value, anchor in ((kept[0], "start"), (kept[1], "end")) if high > low else ((low, "middle"),):
        place = x(value)
        parts.append(tag("line", x1=place, x2=place, y1=4.0, y2=base + 4, class_="threshold"))
        at = min(max(place, 6.0), width - 6)
        parts.append(text(at, height - 4, f"{value:.3g}", "tick", anchor=anchor))
    return drawing(width, height, label, *parts)


def layer_map(layers: Sequence[Mapping[str, object]], *, label: str, unit: tuple[float, str]) -> Markup:
    """Draw layers one under another, in columns: data type, bytes, time, and how close each stays.

    Args:
        layers: As the anatomy of a report has them.
        label: What the drawing shows.
        unit: How many of the unit of time are in a second, and its name.
    """
    factor, name = unit
    timed = any(one["seconds_before"] is not None or one["seconds_after"] is not None for one in layers)
    heard = [float(str(one["sqnr"])) for one in layers if one["sqnr"] is not None]
    stored = scale_of([_number(one[k]) for one in layers for k in ("bytes_before", "bytes_after")], 420, 610, zero=True)
    taken = scale_of(
        [factor * _number(one[k]) for one in layers for k in ("seconds_before", "seconds_after")], 660, 810, zero=True
    )
    noise = scale_of([*heard, 20.0, 40.0], 860, 1010, pad=0.04)
    parts = [text(0, 14, "layer", "axis"), text(304, 14, "weights", "axis"), text(420, 14, "bytes", "axis")]
    parts += [text(660, 14, f"time, {name}", "axis")] if timed else []
    bottom = 26.0 + 22 * len(layers)
    if heard:
        parts.append(text(860, 14, "SQNR, dB (higher is closer)", "axis"))
        for tick in noise.ticks(4):
            parts.append(tag("line", x1=noise(tick), x2=noise(tick), y1=22.0, y2=bottom, class_="grid"))
            parts.append(text(noise(tick), bottom + 14, noise.text(tick, 4), "tick", anchor="middle"))
    names = shortened((str(one["name"]) for one in layers), 40)
    for index, one in enumerate(layers):
        top = 26.0 + 22 * index
        cells = [text(0, top + 13, names[str(one["name"])], "name"), *_chips(one, top)]
        cells += _double(stored, _number(one["bytes_before"]), _number(one["bytes_after"]), top)
        if timed:
            cells += _double(
                taken, factor * _number(one["seconds_before"]), factor * _number(one["seconds_after"]), top
            )
        if one["sqnr"] is not None:
            place = noise(_number(one["sqnr"]))
            cells.append(tag("line", x1=noise.start, x2=place, y1=top + 9, y2=top + 9, class_="stem"))
            cells.append(tag("circle", cx=place, cy=top + 9, r=4.0, class_="after"))
        parts.append(mark(_layer_tip(one, unit), *cells))
    return drawing(_WIDTH, bottom + 20, label, *parts, marks=True)


def short_dtype(dtype: str) -> str:
    """Return a data type in few letters: ``fp32``, ``int8``."""
    return dtype.replace("bfloat", "bf").replace("float", "fp") or "none"


def dtype_kind(dtype: str) -> str:
    """Return the class that colours a data type, by its bits."""
    digits = "".join(c for c in dtype.rpartition("t")[2].split("e")[0] if c.isdigit())
    bits = int(digits) if digits else 32
    whole = "int" in dtype
    return f"w{4 if bits <= 4 else 8 if bits <= 8 else 16 if bits <= 16 else 64 if whole else 32}"


def _chips(layer: Mapping[str, object], top: float) -> list[Markup]:
    found: list[Markup] = []
    before, after = str(layer["dtype_before"]), str(layer["dtype_after"])
    if before != after:
        found.append(text(304, top + 13, short_dtype(before), "quiet"))
        found.append(text(338, top + 13, "→", "quiet"))
    found.append(tag("rect", x=354, y=top + 1, width=48, height=16, rx=3, class_=f"part {dtype_kind(after or 'none')}"))
    found.append(text(378, top + 13, short_dtype(after), "on-part", anchor="middle"))
    return found


def _double(x: Scale, before: float, after: float, top: float) -> list[Markup]:
    bars = ((before, "before", top + 1), (after, "after", top + 9))
    return [
        tag("rect", x=x.start, y=y, width=max(0.8, x(value) - x.start), height=7, class_=kind)
        for value, kind, y in bars
        if value > 0
    ]


def _layer_tip(one: Mapping[str, object], unit: tuple[float, str]) -> str:
    factor, name = unit
    said = [f"{one['name']} ({one['op_type']})"]
    said.append(f"{short_dtype(str(one['dtype_before']))} to {short_dtype(str(one['dtype_after']))}")
    said.append(f"{bytes_text(int(_number(one['bytes_before'])))} to {bytes_text(int(_number(one['bytes_after'])))}")
    if one["seconds_before"] is not None and one["seconds_after"] is not None:
        before, after = (factor * _number(one[key]) for key in ("seconds_before", "seconds_after"))
        said.append(f"{before:.3g} to {after:.3g} {name}")
    if one["sqnr"] is not None:
        said.append(f"SQNR {_number(one['sqnr']):.1f} dB")
    return ", ".join(said)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
