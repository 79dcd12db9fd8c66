"""zoo_bench on a zoo of two small models, and its pure helpers."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from zoo_bench import Row, geometric_means, parse, table, violations
from zoo_folder import find_models
from zoo_tables import Interval, Table, geometric_mean, without_infinity

from onnxcomp.errors import UsageError

RunTool = Callable[..., CompletedProcess[str]]
FAST = Interval(0.5, 0.49, 0.51)


def test_benchmarks_a_zoo_and_goes_on_after_a_failure(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written, shown, kept = tmp_path / "zoo.json", tmp_path / "zoo.md", tmp_path / "kept"
    settings = ("--max-drop", 0.05, "--retime-seconds", 5, "--technique", "dynamic")
    done = run_tool("zoo_bench", zoo, *settings, "--json", written, "--markdown", shown, "--keep", kept)
    assert done.returncode == 1  # the broken model

    document = json.loads(written.read_text(encoding="utf-8"))
    broken, whole = document["models"]
    assert (broken["name"], broken["report"], broken["recheck"]) == ("broken", None, None)
    assert "ModelError" in broken["error"]
    assert whole["error"] is None
    assert whole["card"] == {"task": "clothes"}
    assert whole["report"]["original_quality"]["score"] > 0.8
    assert whole["peak_rss"] > 50e6
    assert whole["recheck"]["feeds"] == 8
    assert whole["recheck"]["bytes"] == (kept / "resnet8.onnx").stat().st_size
    assert document["geometric_means"]["models"] == 1
    assert document["geometric_means"]["retimed"] == pytest.approx(whole["recheck"]["ratio"])
    assert document["command"][1] == str(zoo)
    assert document["versions"]["onnxruntime"]
    assert document["machine"]["processor"]

    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "broken", "resnet8", "geometric"]
    assert "FAILED: ModelError" in lines[1]
    assert len(shown.read_text(encoding="utf-8").splitlines()) == len(lines) + 1
    assert "resnet8  judge the original" in done.stderr


def test_bare_gives_no_data(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written = tmp_path / "zoo.json"
    done = run_tool("zoo_bench", zoo, "--only", "resnet8", "--bare", "--retime-seconds", 5, "--json", written)
    (row,) = json.loads(written.read_text(encoding="utf-8"))["models"]
    assert done.returncode == bool(row["violations"])
    settings = row["report"]["settings"]
    assert (settings["calibration"], settings["metric"]) == (None, None)
    assert row["report"]["quality"]["score"] is None


def test_wrong_usage_is_exit_code_2(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    done = run_tool("zoo_bench", zoo, "--only", "nobody")
    assert done.returncode == 2
    assert "no model 'nobody'" in done.stderr
    assert run_tool("zoo_bench", tmp_path / "nowhere").returncode == 2
    assert run_tool("zoo_bench", zoo, "--goal", "beauty").returncode == 2


def test_finds_the_folders_that_hold_a_model(zoo: Path) -> None:
    broken, whole = find_models(zoo)
    assert (broken.name, broken.calibration, broken.evaluation, broken.metric) == ("broken", None, None, None)
    assert whole.calibration == zoo / "resnet8" / "calibration.npz"
    assert whole.metric == f"{zoo / 'resnet8' / 'metric.py'}:score"
    assert [entry.name for entry in find_models(zoo, ["resnet8"])] == ["resnet8"]


def test_an_empty_zoo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no folder with a model\.onnx"):
        find_models(tmp_path)


@pytest.mark.parametrize(
    ("intervals", "identical", "drop", "expected"),
    [
        ([FAST, FAST], False, 0.0, []),
        ([None, None], False, None, []),
        ([FAST, Interval(1.01, 1.0, 1.02)], False, 0.0, []),
        ([FAST, Interval(1.02, 1.015, 1.021)], False, 0.0, ["slower"]),
        ([Interval(1.0, 0.9, 1.1)], True, None, []),
        ([Interval(0.5, 0.47, 0.52)], False, None, ["wide"]),
        ([Interval(0.5, -math.inf, math.inf)], False, 0.5, ["slower", "drop", "wide"]),
        ([FAST], False, 0.9250 - 0.9150, []),
        ([FAST], False, 0.011, ["drop"]),
    ],
)
def test_violations(intervals: list[Interval | None], identical: bool, drop: float | None, expected: list[str]) -> None:
    assert violations(intervals, identical=identical, drop=drop, max_drop=0.01) == expected


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert geometric_mean([0.25]) == pytest.approx(0.25)
    assert geometric_mean([]) is None


def row(name: str, ratio: float, *, winner: str | None = "static") -> Row:
    latency = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
    quality = {"score": 0.9, "agreement": 0.99}
    report = {"original_size": 100, "winner": winner, "latency": latency if winner else None}
    report |= {"original_quality": quality, "quality": quality}
    return Row(name, {}, 1.0, report, {**latency, "bytes": 25, "identical": False}, 1_000_000)


def test_means_leave_failures_out() -> None:
    means = geometric_means([row("a", 0.5), Row("b", {}, 1.0, error="bad"), row("c", 2.0)])
    assert means == {"models": 2, "size": pytest.approx(0.25), "latency": pytest.approx(1), "retimed": pytest.approx(1)}


def test_a_delivered_original_has_ratio_1() -> None:
    assert row("a", 0.5, winner=None).latency == Interval(1.0, 1.0, 1.0)


def test_table_has_one_line_per_model_and_the_means() -> None:
    shown = table([row("a", 0.5), Row("b", {}, 1.0, error="too|bad")])
    assert [cells[0] for cells in shown.rows] == ["a", "b", "geometric mean of 1"]
    assert {len(cells) for cells in shown.rows} == {len(shown.titles)}
    assert "0.500 [0.490, 0.510]" in shown.text()
    assert "too\\|bad" in shown.markdown()
    assert table([]).rows[0][1] == "-"


def test_table_aligns_its_columns() -> None:
    assert Table(("name", "n"), [["a", "10"], ["long one", "9"]]).text() == "name       n\na         10\nlong one   9\n"


def test_intervals_read_reports() -> None:
    assert Interval.of(None) is None
    assert Interval.of({"ratio": 0.5, "low": 0.0, "high": None}) == Interval(0.5, 0.0, math.inf)
    assert without_infinity({"high": math.inf, "low": math.nan, "n": 1}) == {"high": None, "low": None, "n": 1}


def test_command_line_has_defaults() -> None:
    args = parse(["zoo"])
    assert (args.goal, args.max_drop, args.bare, args.only, args.keep) == ("latency", 0.01, False, [], None)
