"""Parts of pages that several kinds of report share. All of them read a report as its JSON has it."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnxcomp.report.figures import bytes_text, seconds_text
from onnxcomp.report.html.markup import Markup, tag
from onnxcomp.report.html.page import Cell, Section, Tile, bullets, code, facts, fold, paragraph, table

__all__ = [
    "Found",
    "change",
    "circumstances",
    "decibels",
    "key",
    "latency_tile",
    "left_alone",
    "number",
    "quality_tiles",
    "reproduce",
    "size_tile",
    "work_done",
]

Found = Mapping[str, Any]
_SAME = 1.005  # a ratio below this is no difference
_PATH = re.compile(r"\S*/\S+")  # a name of a node within a reason, as many exporters make them
_MOST_NAMES = 300
_LONG = 400  # characters of a setting that is shown as it is


def change(ratio: float, better: str, worse: str) -> str:
    """Say what a ratio of after to before means."""
    if ratio <= 1 / _SAME:
        return f"{1 / ratio:.2f}x {better}"
    return f"{ratio:.2f}x {worse}" if ratio >= _SAME else "the same"


def number(value: float | None, form: str = ".4f") -> Cell:
    """Return a cell with a figure; None: there is none."""
    return Cell("\N{EN DASH}") if value is None else Cell(format(value, form), float(value))


def decibels(value: float | None) -> Cell:
    """Return a cell with a level."""
    return Cell("\N{EN DASH}", math.inf) if value is None else Cell(f"{value:.1f} dB", float(value))


def size_tile(before: int, after: int) -> Tile:
    """Return the figure that compares bytes."""
    ratio = after / before
    status = "good" if ratio < 1 / _SAME else ""
    return Tile("Size", bytes_text(before), bytes_text(after), change(ratio, "smaller", "larger"), "", ratio, status)  # type: ignore[arg-type]


def latency_tile(before: float | None, after: float | None, latency: Found | None, unmeasured: str | None) -> Tile:
    """Return the figure that compares times of a run."""
    if before is None or after is None:
        return Tile("Latency", "", "not measured", note=unmeasured or "")
    if latency is None:
        return Tile("Latency", seconds_text(before), seconds_text(after))
    ratio, low, high = latency["ratio"], latency["low"], latency["high"]
    note = "" if high is None or not low else f"95 % interval of the ratio of times: {low:.3f} to {high:.3f}"
    status = "good" if high is not None and high < 1 else "bad" if low > 1 else ""
    said = change(ratio, "faster", "slower")
    return Tile("Latency", seconds_text(before), seconds_text(after), said, note, ratio, status)  # type: ignore[arg-type]


def quality_tiles(
    before: Found, after: Found, metric: str | None, *, allowed: float | None, least: float | None, note: str = ""
) -> list[Tile]:
    """Return the figures on answers: score, where there is one, and how close they are to the original's."""
    found = []
    if before["score"] is not None and after["score"] is not None:
        lost = after["score"] - before["score"]
        bound = f"{lost:+.4f}" + (f", allowed {-allowed:+g}" if allowed is not None else "")
        found.append(Tile(metric or "Score", f"{before['score']:.4f}", f"{after['score']:.4f}", bound, note))
    sqnr = "no noise" if after["sqnr"] is None else f"SQNR {after['sqnr']:.1f} dB"
    bound = sqnr if least is None else f"at least {least:g} is asked for; {sqnr}"
    found.append(Tile("Answers that stay the same", "", f"{100 * after['agreement']:.2f} %", "", bound))
    return found


def key(*entries: tuple[str, str, str]) -> Markup:
    """Return what kinds of marks stand for: shape (``circle`` or ``rect``), class, words."""
    items = []
    for shape, kind, words in entries:
        inside = (
            tag("rect", x=3, y=3, width=10, height=10, class_=kind)
            if shape == "rect"
            else tag("g", tag("circle", cx=8, cy=8, r=5), class_=kind)
        )
        items.append(tag("li", tag("svg", inside, viewBox="0 0 16 16", aria_hidden="true"), words))
    return tag("ul", *items, class_="key")


def work_done(passes: Iterable[tuple[str, Found]]) -> list[str]:
    """Return a table of what passes did, with whom each belongs to."""
    rows: list[list[Cell | str]] = []
    for owner, done in passes:
        counted = ", ".join(f"{name}: {count}" for name, count in done["counters"].items() if count)
        said = f"rolled back: {done['failure']}" if done["failure"] else counted or "nothing to do"
        if done["modified"] or done["failure"]:
            rows.append([done["name"], owner, said, decibels(done["sqnr"]), number(done["seconds"], ".1f")])
    if not rows:
        return []
    heads = ("pass", "part of", "what it did", "SQNR after it", "seconds")
    return [table("Passes that changed something, in their order", heads, rows)]


def left_alone(skipped: Iterable[Found]) -> list[str]:
    """Return the nodes that were left alone, by reason."""
    reasons: dict[str, list[Found]] = {}
    for skip in skipped:
        reasons.setdefault(_PATH.sub("…", skip["reason"]), []).append(skip)
    if not reasons:
        return []
    parts: list[str] = [paragraph("Nodes that passes did not rewrite, by reason; open one to see their names.")]
    for reason, skips in sorted(reasons.items(), key=lambda one: -len(one[1])):
        types = ", ".join(
            f"{count} {kind or 'model'}" for kind, count in Counter(s["op_type"] for s in skips).most_common()
        )
        plain = {s["node"]: s["node"] if s["reason"] == reason else f"{s['node']}: {s['reason']}" for s in skips}
        names = [said for node, said in plain.items() if node]
        names[_MOST_NAMES:] = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
        parts.append(fold(f"{reason} ({types})", bullets(names)) if names else paragraph(f"{reason} ({types})"))
    return parts


def reproduce(found: Found, command: str | None) -> Section:
    """Return how to come to the same result again."""
    parts: list[str] = []
    if command:
        parts.append(code(command, "The command that made this report:"))
    if found.get("recipe"):
        how = "the same command with --recipe recipe.toml makes it again, without a search"
        if found["kind"] != "optimize":
            how = "it is what optimize --recipe recipe.toml takes"
        parts.append(code(found["recipe"], f"The recipe of this very model. Saved as recipe.toml, {how}:"))
    match found.get("output"):
        case {"path": str(path), "sha256": str(digest)}:
            parts.append(facts([("written to", path), ("SHA-256", digest)]))
        case str(folder):
            parts.append(facts([("written to", folder)]))
    return Section("Make it again", tuple(parts))


def circumstances(found: Found, settings: Found) -> Section:
    """Return what was asked for, notes, and on what this ran."""
    notes = list(found.get("notes") or ())
    parts: list[str] = [bullets(notes)] if notes else []
    said = [(name.replace("_", " "), _said(value)) for name, value in settings.items() if value not in (None, "", [])]
    parts.append(fold("Settings", facts(said)))
    machine = [*(found.get("machine") or {}).items(), *(found.get("versions") or {}).items()]
    parts.append(fold("Machine and versions", facts((name, str(value)) for name, value in machine)))
    return Section("Notes and circumstances", tuple(parts))


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items() if one is not None) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_said, value))
    said = str(value)
    return said if len(said) <= _LONG else f"{said[:_LONG]}…"
