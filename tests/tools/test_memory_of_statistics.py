"""memory_of_statistics on a small model."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

RunTool = Callable[..., CompletedProcess[str]]


def test_measures_given_and_generated_samples(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written = tmp_path / "memory.json"
    counts = ("--samples", 8, 40, "--big-mb", 0.02, "--repeats", 1)
    done = run_tool("memory_of_statistics", zoo / "resnet8", *counts, "--json", written)
    document = json.loads(written.read_text(encoding="utf-8"))
    few, many, generated = document["measurements"]
    assert [row["error"] for row in (few, many, generated)] == [None] * 3
    assert few["repeats"][0]["runs"] == 8
    assert many["repeats"][0]["runs"] == 40  # of 16 samples, repeated
    assert generated["repeats"][0]["runs"] == -(-20_000 // 784)
    assert few["repeats"][0]["tensors"] > 5
    assert few["repeats"][0]["baseline"] > 10e6
    assert done.stdout.splitlines()[-1] == document["verdict"]
    assert done.returncode == (document["verdict"] == "grows")


def test_a_failure_is_a_row(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    (folder / "calibration.npz").write_bytes((zoo / "resnet8" / "calibration.npz").read_bytes())
    done = run_tool("memory_of_statistics", folder, "--samples", 8, "--big-mb", 0)
    assert done.returncode == 1
    assert "FAILED: ModelError" in done.stdout
    assert done.stdout.splitlines()[-1] == "a measurement failed"


def test_needs_calibration_data(zoo: Path, run_tool: RunTool) -> None:
    done = run_tool("memory_of_statistics", zoo / "broken")
    assert done.returncode == 2
    assert "no calibration data" in done.stderr
