"""Pages: one file, nothing from outside, whole, and safe whatever models and nodes are called."""

import copy
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from onnxcomp.errors import DataError
from onnxcomp.report.html import render_html
from onnxcomp.report.rendering import render_saved

HOSTILE = "</title><script>alert('x')</script>\"><img src='http://x/'>\n\x00`${1}`]]>"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Reads a page and refuses one that is not well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: Counter[str] = Counter()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs), tuple(name for name, _ in self.open)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] not in ("script", "style"):
            self.texts[self.open[-1][0]] += len(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def spoiled(value: Any, *, key: str = "") -> Any:
    """Put a hostile text behind every text but the kind."""
    if isinstance(value, dict):
        return {name: spoiled(one, key=name) for name, one in value.items()}
    if isinstance(value, list):
        return [spoiled(one, key=key) for one in value]
    return value + HOSTILE if isinstance(value, str) and key != "kind" else value


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return render_html(found, command="onnxcomp optimize 'my model.onnx'")


def test_a_page_is_whole_and_small(page: str) -> None:
    read = Page(page)
    names = Counter(name for name, _, _ in read.elements)
    assert page.startswith("<!DOCTYPE html>")
    assert len(page.encode()) < 3_000_000
    assert [names[one] for one in ("html", "head", "body", "h1", "main", "header", "footer", "nav")] == [1] * 8
    assert names["svg"] > 5
    ids = [a["id"] for _, a, _ in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for a in read.all("a") if a["href"])


def test_a_page_asks_for_nothing(page: str) -> None:
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|<link|<img|<iframe", page)
    (policy,) = (a["content"] for a in Page(page).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_drawings_say_what_they_are_and_have_tables_behind_them(page: str) -> None:
    read = Page(page)
    charts = [a for a in read.all("svg") if a.get("class") == "chart"]
    assert all(a["aria-label"] for a in charts)
    assert {a["role"] for a in charts} <= {"img", "group"}
    sections = re.findall(r"<section .*?</section>", page, flags=re.DOTALL)
    assert len(sections) >= 8
    for section in sections:
        if 'class="chart"' in section:
            assert "<table" in section
        assert re.match(r'<section id="s\d+" aria-labelledby="h\d+"><h2 id="h\d+">', section)
    titled = [path for name, _, path in read.elements if name == "title" and path[-1] == "g"]
    assert len(titled) == sum(a.get("role") == "img" for a in read.all("g"))
    assert all(a.get("scope") for a in read.all("th"))


@pytest.mark.parametrize(
    "part",
    [
        "Candidates",
        "Layers",
        "Bytes",
        "Time",
        "Calibration",
        "What was done",
        "Make it again",
        "Notes and circumstances",
    ],
)
def test_every_part_is_there(page: str, part: str) -> None:
    assert f">{part}</h2>" in page


def test_a_page_tells_what_the_report_holds(page: str, found: dict[str, Any]) -> None:
    assert found["winner"] in page
    assert "onnxcomp optimize &#x27;my model.onnx&#x27;" in page
    assert found["recipe"].replace('"', "&quot;") in page
    for one in found["anatomy"]["layers"]:
        assert one["name"] in page
    assert page.count('class="bins"') == len(found["anatomy"]["activations"])


def test_hostile_names_are_harmless(found: dict[str, Any], page: str) -> None:
    hostile = render_html(spoiled(found), command=HOSTILE)
    read, plain = Page(hostile), Page(page)
    names, expected = (Counter(name for name, _, _ in one.elements) for one in (read, plain))
    for dangerous in ("script", "img", "style", "section", "button"):
        assert names[dangerous] == expected[dangerous], dangerous
    known = {name for _, attributes, _ in plain.elements for name in attributes}
    assert {name for _, attributes, _ in read.elements for name in attributes} <= known
    assert "\x00" not in hostile
    assert "<script>alert" not in hostile


def test_a_report_without_a_winner_has_a_page(found: dict[str, Any]) -> None:
    plain = copy.deepcopy(found) | {
        "winner": None, "anatomy": None, "latency": None, "evidence": None, "recipe": "", "timings": [],
        "size": found["original_size"],
    }  # fmt: skip
    page = render_html(plain)
    assert "the original is delivered unchanged" in page
    assert ">Layers</h2>" not in page
    Page(page)


def test_a_report_of_untimed_candidates_has_a_page(found: dict[str, Any]) -> None:
    plain = copy.deepcopy(found) | {"latency": None, "original_seconds": None, "seconds_per_run": None, "timings": []}
    plain["settings"]["unmeasured"] = "it is another machine"
    for one in plain["candidates"]:
        one["latency"], one["quality"] = None, None
    page = render_html(plain)
    assert "it is another machine" in page
    assert "Size and latency" not in page
    Page(page)


def test_a_missed_bound_is_said_at_the_top(found: dict[str, Any]) -> None:
    page = render_html({**found, "missed": "no candidate keeps the budget", "winner": None, "anatomy": None})
    assert "No model is written: no candidate keeps the budget." in page
    assert '<span class="badge bad">failed</span>' in page


def test_a_saved_report_gives_the_same_page(found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    assert render_saved(path) == render_html(found)


DAMAGED: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot read"),
    "no report": ("[1]", "no report"),
    "no kind": ('{"schema_version": 1}', "no report"),
    "another version": ('{"schema_version": 99, "kind": "optimize"}', "another version"),
    "without fields": ('{"schema_version": 1, "kind": "optimize"}', "damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_report_is_refused(case: str, tmp_path: Path) -> None:
    text, said = DAMAGED[case]
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        render_saved(tmp_path / "run.json")


@pytest.mark.parametrize("field", ["settings", "candidates", "size", "timings", "anatomy", "original_quality"])
@pytest.mark.parametrize("value", ["text", 0, [1], {"a": []}])
def test_damaged_reports_are_refused_or_shown(field: str, value: Any, found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**found, field: value}), encoding="utf-8")
    try:
        Page(render_saved(tmp_path / "run.json"))
    except DataError as err:
        assert "damaged" in str(err)  # noqa: PT017  (either is right; anything else is a bug)
