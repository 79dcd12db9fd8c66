"""Pages of HTML as users get them: `--report FILE.html` of every command, and `onnxcomp report`."""

import json
from pathlib import Path

import pytest

from onnxcomp.cli.app import build_app, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(line: str) -> int:
    return run(build_app(), line.split())


def test_optimize_writes_a_page_that_says_how_it_was_made(
    folder: Path, sample_models: Path, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    model = sample_models / "lenet_300_100" / "model.onnx"
    line = f"optimize {model} -o out.onnx --report run.html --report run.json"
    assert call(line) == 0
    page = (folder / "run.html").read_text(encoding="utf-8")
    assert f"<code>onnxcomp {line}</code>" in page
    assert "<h1>" in page
    assert call("report run.json -o again.html") == 0
    assert capfd.readouterr().out.endswith(" wrote   again.html\n")
    again = (folder / "again.html").read_text(encoding="utf-8")
    assert "<code>onnxcomp" not in again
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["created"] in again


def test_the_page_stands_beside_the_saved_report(folder: Path, sample_models: Path) -> None:
    model = sample_models / "lenet_300_100" / "model.onnx"
    assert call(f"compare {model} {model} --report r.json -q") == 0
    assert call("report r.json -q") == 0
    assert call("report r.json -q") == 2  # it is there already
    assert call("report r.json -q --overwrite") == 0
    assert "onnxcomp compare" in (folder / "r.html").read_text(encoding="utf-8")


ERRORS: dict[str, tuple[str, str]] = {
    "no such file": ("missing.json", "No such file"),
    "no report": ("other.json -o new.html", "no report of onnxcomp"),
    "another ending": ("other.json -o page.pdf", "end it in .html"),
    "over another file": ("other.json", "exists"),
    "over what it reads": ("other.html -o other.html --overwrite", "the input itself"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_use_is_explained(case: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, said = ERRORS[case]
    for name in ("other.json", "other.html"):
        (folder / name).write_text("{}", encoding="utf-8")
    assert call(f"report {arguments}") == 2
    assert said in capfd.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["other.html", "other.json"]


def test_only_check_writes_junit(folder: Path, sample_models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = sample_models / "lenet_300_100" / "model.onnx"
    assert call(f"compare {model} {model} --report r.xml") == 2
    assert ".json, .html, .md or .txt" in capfd.readouterr().err
    assert call(f"check {model} --max-size 5MB --report r.xml --junit j.xml --report r.html -q") == 0
    assert (folder / "r.xml").read_text(encoding="utf-8") == (folder / "j.xml").read_text(encoding="utf-8")
    assert "max-size" in (folder / "r.html").read_text(encoding="utf-8")
