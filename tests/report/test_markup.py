"""Whatever a text holds, it stays a text."""

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.report.html.markup import Markup, join, tag
from onnxcomp.report.html.scale import Scale, percent, scale_of, time_unit

HOSTILE = [
    "<script>alert(1)</script>",
    "\" onload='x'",
    "a\nb",
    "</title><img src=x>",
    "&amp;&#60;",
    "\x00\x1b[31m",
    "\ud800",
]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_and_attributes_are_escaped(text: str) -> None:
    reader = read(tag("p", text, title=text))
    shown = text.replace("\x00", "\\x00").replace("\x1b", "\\x1b").replace("\ud800", "\\ud800")
    assert reader.tags == ["p"]
    assert reader.text == shown
    assert reader.attributes == [("title", shown)]


@given(st.text())
@settings(max_examples=50)
def test_no_text_makes_a_tag_or_an_attribute(text: str) -> None:
    reader = read(join([tag("b", text, data_x=text), text]))
    assert reader.tags == ["b"]
    assert [name for name, _ in reader.attributes] == ["data-x"]


def test_markup_is_not_escaped_again() -> None:
    assert tag("p", tag("br"), "<", class_="k", hidden=True, id=None) == '<p class="k" hidden><br>&lt;</p>'
    assert isinstance(join(["<", Markup("<br>")]), Markup)
    assert join(["<", Markup("<br>")]) == "&lt;<br>"
    assert tag("circle", r=5.0, cx=1 / 3) == '<circle r="5" cx="0.33"></circle>'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), (0.0, 0.012, ["0.000", "0.005", "0.010"])],
)
def test_ticks_are_round_and_told_apart(low: float, high: float, ticks: list[str]) -> None:
    scale = Scale(low, high, 0, 100)
    assert [scale.text(tick) for tick in scale.ticks()] == ticks


def test_scales_hold_all_values_and_one_alone() -> None:
    scale = scale_of([3.0, float("inf"), 5.0], 10, 110)
    assert 10 < scale(3.0) < scale(5.0) < 110
    assert scale(-99.0) == 10
    assert scale_of([2.0], 0, 100)(2.0) == pytest.approx(50, abs=10)
    assert scale_of([], 0, 100, zero=True).low == 0


def test_shares_and_times_are_told_in_units_that_fit() -> None:
    assert [percent(share) for share in (0, 0.5, 0.0123, 0.00004)] == ["0 %", "50 %", "1.2 %", "0.0040 %"]
    assert [time_unit(seconds) for seconds in (2, 0.002, 1e-6)] == [(1.0, "s"), (1e3, "ms"), (1e6, "µs")]
