"""A page in a real browser without a window: its script runs without complaint, and its drawings are seen."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from onnxcomp.report.html import render_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-extensions", "--enable-logging=stderr", "--virtual-time-budget=2000", "--window-size=1180,1700",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(BROWSERS)}")
    return found


@pytest.fixture(scope="module")
def page(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(found), encoding="utf-8")
    return path


def visit(browser: str, page: Path, *what: str) -> str:
    home = page.parent / "profile"
    command = (browser, *FLAGS, f"--user-data-dir={home}", *what, page.as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def test_the_script_runs(browser: str, page: Path) -> None:
    shown = visit(browser, page, "--dump-dom")
    assert re.search(r'<div class="themes" [^>]*aria-label="Colours">', shown)  # not hidden any more
    assert '<button type="button" data-theme="auto" aria-pressed="true">' in shown
    charts = len(re.findall(r'aria-roledescription="chart"', shown))
    assert len(re.findall(r'<g class="mark[^>]* tabindex="0"', shown)) == charts  # one stop of the Tab key for each
    assert len(re.findall(r'<g class="mark[^>]* aria-label="[^"]+"', shown)) > charts
    assert '<th scope="col"><button type="button">layer</button></th>' in shown


def test_the_drawings_are_seen(browser: str, page: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    shot = page.parent / "shot.png"
    visit(browser, page, f"--screenshot={shot}")
    with image.open(shot) as taken:
        counts = {colour: count for count, colour in taken.convert("RGB").getcolors(1 << 24)}
    assert counts[0xFF, 0xFF, 0xFF] > 500_000  # panels
    for colour in ((0x0A, 0x5F, 0xB4), (0x85, 0x8F, 0x9C)):  # after, before
        assert counts.get(colour, 0) > 3000
