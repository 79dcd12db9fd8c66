"""calibration_bench and calibration_methods on a small model."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from onnxcomp.thresholds import METHODS

RunTool = Callable[..., CompletedProcess[str]]


def test_times_all_contenders(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written = tmp_path / "bench.json"
    skip: tuple[str | Path, ...] = ("--skip", "onnxruntime Entropy")
    skip += ("--markdown", tmp_path / "bench.md")
    done = run_tool("calibration_bench", zoo / "resnet8", "--samples", 20, "--repeats", 2, *skip, "--json", written)
    assert done.returncode == 0, done.stderr
    document = json.loads(written.read_text(encoding="utf-8"))
    rows = document["measurements"]
    names = ["onnxcomp, all methods", "onnxruntime MinMax", "onnxruntime Percentile"]
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert row["error"] is None
        assert len(row["repeats"]) == 2
        assert row["repeats"][0]["tensors"] > 5
        assert row["repeats"][0]["seconds"] > 0
    assert set(document["solve_seconds"]) == set(METHODS)
    shown = [line.split("|")[1:-1] for line in (tmp_path / "bench.md").read_text(encoding="utf-8").splitlines()]
    cells = {
        line[0].strip(): dict(zip(map(str.strip, shown[0]), map(str.strip, line), strict=True)) for line in shown[2:5]
    }
    assert (cells[names[1]]["s / MinMax"], cells[names[2]]["MB / Percentile"]) == ("1.00", "1.00")
    medians = [statistics.median(repeat["seconds"] for repeat in row["repeats"]) for row in rows]
    assert cells[names[0]]["s / Percentile"] == f"{medians[0] / medians[2]:.2f}"
    assert "s / MinMax" in done.stdout


def test_scores_a_model_by_method(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written = tmp_path / "methods.json"
    wanted = ("--methods", "minmax", "octav", "--recipe", "static")
    done = run_tool("calibration_methods", zoo, "--only", "resnet8", *wanted, "--json", written)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(written.read_text(encoding="utf-8"))["models"]
    found = row["value"]["methods"]
    assert list(found) == ["minmax", "octav"]
    assert all(result["modified"] == ["quantize-static"] and result["sqnr"] > 15 for result in found.values())
    assert found["minmax"]["sqnr"] != found["octav"]["sqnr"]
    assert "resnet8" in done.stdout


def test_wrong_use(zoo: Path, run_tool: RunTool) -> None:
    assert run_tool("calibration_bench", zoo / "broken").returncode == 2
    assert run_tool("calibration_methods", zoo, "--only", "nothing").returncode == 2
    assert run_tool("calibration_methods", zoo, "--only", "broken").returncode == 1


def test_shows_what_a_repair_gains(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written, recipe = tmp_path / "repair.json", tmp_path / "recipe.toml"
    recipe.write_text('schema_version = 1\n[[pass]]\nname = "equalize"\nsweeps = 3\n', encoding="utf-8")
    corrected = "round-weights:per_channel=false+bias-correct:runs=4"
    wanted = ("--with", "equalize:absorb=true", recipe, corrected, "--set", "per_channel=false", "method=minmax")
    done = run_tool("repair_bench", zoo, "--only", "resnet8", *wanted, "--seconds", 0.2, "--json", written)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(written.read_text(encoding="utf-8"))["models"]
    found = row["value"]["repairs"]
    assert list(found) == ["none", "equalize:absorb=true", str(recipe), corrected]
    assert [list(result["passes"]) for result in found.values()] == [
        ["quantize-static"],
        *[["equalize", "quantize-static"]] * 2,
        ["round-weights", "quantize-static", "bias-correct"],
    ]
    assert all(result["sqnr"] > 15 and not result["failures"] for result in found.values())
    assert len({result["sqnr"] for result in found.values()}) > 1
    assert all(result["ratio"]["ratio"] > 0 for result in found.values() if result is not found["none"])
    assert done.stdout.count("resnet8") == 4


def test_equalizing_takes_planted_ranges_back(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written = tmp_path / "repair.json"
    planted = ("--spread", 30, "--seconds", 0, "--json", written)
    done = run_tool("repair_bench", zoo, "--only", "resnet8", "--with", "equalize", *planted)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(written.read_text(encoding="utf-8"))["models"]
    found = row["value"]["repairs"]
    assert found["equalize"]["sqnr"] > found["none"]["sqnr"] + 5


def test_wrong_repairs(zoo: Path, run_tool: RunTool) -> None:
    for wrong in (("--with", "nothing"), ("--with", "equalize:sweeps"), ("--set", "methd=minmax"), ("--spread", 0)):
        done = run_tool("repair_bench", zoo, "--only", "resnet8", *wrong)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
