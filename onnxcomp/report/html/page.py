"""The page: one file with its style and its script, sections with figures, and a table behind every drawing."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from onnxcomp.report.html.markup import Markup, join, tag

__all__ = ["Cell", "Section", "Tile", "bullets", "code", "facts", "figure", "fold", "page", "paragraph", "table"]

_MOST_ROWS = 1000  # of a table: pages stay small
_SEEN_ROWS = 14  # of a table at once: more are there to scroll to
_THEMES = ("auto", "light", "dark")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: what is shown, what it is sorted by, what it is about (as a mark of a drawing is)."""

    shown: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure of the head: what it was, what it is, what that means, and whether it keeps its bound.

    Attributes:
        name: What is measured.
        before: As it was; empty: there is no such figure.
        after: As it is.
        change: What became of it.
        note: With what certainty, in which bounds.
        ratio: After over before, for the bars; None: no bars.
        status: Whether that is what was wanted.
    """

    name: str
    before: str
    after: str
    change: str = ""
    note: str = ""
    ratio: float | None = None
    status: Literal["", "good", "bad"] = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a title, and what is in it."""

    title: str
    parts: tuple[str, ...]


def page(
    *, kind: str, title: str, verdict: str, passed: bool | None, tiles: Sequence[Tile], sections: Iterable[Section],
    created: str,
) -> str:  # fmt: skip
    """Return the whole document.

    Args:
        kind: The command that it is the report of.
        title: What was worked on.
        verdict: What came out, in one sentence.
        passed: Whether gates passed; None: there were none.
        tiles: The figures that matter most.
        sections: Those without parts are left out.
        created: When that was.
    """
    shown = [section for section in sections if section.parts]
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'; base-uri 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"onnxcomp {kind}: {title}"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#main", class_="skip"),
        tag("header", _top(kind, created), _headline(title, verdict, passed), _tiles(tiles)),
        _contents(shown),
        tag("main", *(_section(one, index) for index, one in enumerate(shown)), id="main"),
        tag("footer", tag("p", "Everything here is in this one file; it asks no server for anything.")),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _top(kind: str, created: str) -> Markup:
    themes = [tag("button", name, type="button", data_theme=name, aria_pressed="false") for name in _THEMES]
    switch = tag(
        "div", tag("span", "Colours"), *themes, class_="themes", role="group", aria_label="Colours", hidden=True
    )
    return tag("div", tag("p", f"onnxcomp {kind}", tag("span", created), class_="kind"), switch, class_="top")


def _headline(title: str, verdict: str, passed: bool | None) -> Markup:
    badge = ""
    if passed is not None:
        badge = tag("span", "passed" if passed else "failed", class_=f"badge {'good' if passed else 'bad'}")
    return join([tag("h1", title), tag("p", badge, verdict, class_="verdict")])


def _tiles(tiles: Sequence[Tile]) -> Markup:
    return tag("dl", *map(_tile, tiles), class_="tiles") if tiles else Markup("")


def _tile(tile: Tile) -> Markup:
    was = [tag("span", tile.before, class_="was"), tag("span", " → ", class_="arrow")] if tile.before else []
    parts = [tag("dt", tile.name), tag("dd", *was, tag("span", tile.after, class_="is"), class_="figures")]
    if tile.ratio is not None:
        widest = max(1.0, tile.ratio)
        bars = [
            tag("i", class_=kind, style=f"width:{100 * max(0.004, share / widest):.1f}%")
            for kind, share in (("before", 1.0), ("after", tile.ratio))
        ]
        parts.append(tag("dd", *bars, class_="bars", aria_hidden="true"))
    parts += [tag("dd", tile.change, class_="change")] if tile.change else []
    parts += [tag("dd", tile.note, class_="note")] if tile.note else []
    return tag("div", *parts, class_=f"tile {tile.status}".strip())


def _contents(sections: Sequence[Section]) -> Markup:
    links = [tag("li", tag("a", one.title, href=f"#s{index}")) for index, one in enumerate(sections)]
    return tag("nav", tag("ul", *links), aria_label="Contents") if len(links) > 1 else Markup("")


def _section(section: Section, index: int) -> Markup:
    heading = tag("h2", section.title, id=f"h{index}")
    return tag("section", heading, *section.parts, id=f"s{index}", aria_labelledby=f"h{index}")


def figure(caption: str, said: str, drawing: str, *behind: str, kind: str = "") -> Markup:
    """Return a drawing with its caption, and what is behind it: a table, that opens on demand."""
    opened = tag("details", tag("summary", "As a table"), *behind) if behind else ""
    title = tag("figcaption", tag("strong", caption), tag("span", said))
    return tag("figure", title, tag("div", drawing, class_="draw"), opened, class_=kind or None)


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, keys: Sequence[str] = ()
) -> Markup:
    """Return a table whose columns can be sorted.

    Args:
        caption: What it lists.
        heads: Of the columns.
        rows: Cells; those with a value, or of which the whole column has one, are set as figures.
        keys: Of the rows: the same as of marks that they belong to.
    """
    numeric = [all(isinstance(row[i], Cell) for row in rows) for i in range(len(heads))]
    head = tag(
        "tr", *(tag("th", name, scope="col", class_="n" if n else None) for name, n in zip(heads, numeric, strict=True))
    )
    body = [_row(row, numeric, keys[i] if keys else None) for i, row in enumerate(rows[:_MOST_ROWS])]
    many = f", {len(rows)} rows" if len(rows) > _SEEN_ROWS else ""
    parts = [tag("caption", caption, many), tag("thead", head), tag("tbody", *body)]
    found = tag("div", tag("table", *parts), class_="scroll", tabindex=0, role="region", aria_label=caption)
    if len(rows) > _MOST_ROWS:
        return join([found, paragraph(f"{len(rows) - _MOST_ROWS} more rows are in the JSON report.")])
    return found


def _row(row: Sequence[Cell | str], numeric: Sequence[bool], key: str | None) -> Markup:
    cells = []
    for index, (cell, is_number) in enumerate(zip(row, numeric, strict=True)):
        shown = cell.shown if isinstance(cell, Cell) else cell
        value = None if not isinstance(cell, Cell) or cell.value is None else repr(cell.value)
        if index == 0:
            cells.append(tag("th", shown, scope="row", data_value=value, class_="n" if is_number else None))
        else:
            cells.append(tag("td", shown, data_value=value, class_="n" if is_number else None))
    return tag("tr", *cells, data_key=key)


def paragraph(said: str, kind: str = "") -> Markup:
    """Return a paragraph."""
    return tag("p", said, class_=kind or None)


def bullets(items: Iterable[str]) -> Markup:
    """Return a list."""
    return tag("ul", *(tag("li", item) for item in items))


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return names and what they stand for."""
    return tag("dl", *(join([tag("dt", name), tag("dd", said)]) for name, said in pairs), class_="facts")


def code(content: str, caption: str) -> Markup:
    """Return a text to copy."""
    return tag("div", tag("p", caption, class_="caption"), tag("pre", tag("code", content), tabindex=0), class_="code")


def fold(summary: str, *parts: str) -> Markup:
    """Return parts that open on demand."""
    return tag("details", tag("summary", summary), *parts, class_="fold")


@cache
def _asset(name: str) -> str:
    return files("onnxcomp.report.html").joinpath(name).read_text(encoding="utf-8").strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
