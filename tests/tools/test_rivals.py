"""rivals on a small model: onnxcomp's part is played by a copy of the original."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

RunTool = Callable[..., CompletedProcess[str]]


def test_measures_all_contenders_in_one_run(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    written, ours = tmp_path / "rivals.json", tmp_path / "ours"
    ours.mkdir()
    shutil.copy(zoo / "resnet8" / "model.onnx", ours / "resnet8.onnx")
    settings = ("--max-drop", 0.1, "--samples", 8, "--seconds", 4, "--only", "resnet8")
    done = run_tool("rivals", zoo, "--ours", ours, *settings, "--json", written)
    (row,) = json.loads(written.read_text(encoding="utf-8"))["models"]
    assert (row["error"], row["errors"]) == (None, {})
    assert set(row["contenders"]) == {"ort static, expert", "ort dynamic, no Conv", "onnxcomp"}
    copy = row["contenders"]["onnxcomp"]
    assert (copy["size"], copy["score"], copy["agreement"], copy["eligible"]) == (1, row["score"], 1, True)
    static = row["contenders"]["ort static, expert"]
    assert static["size"] < 0.5
    assert static["low"] <= static["ratio"] <= static["high"]
    assert done.returncode == (row["against"]["low"] > 1)
    assert row["best_rival"] in done.stdout


def test_a_missing_model_of_ours_is_a_failure(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    done = run_tool("rivals", zoo, "--ours", tmp_path, "--only", "broken")
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_wrong_usage_is_exit_code_2(zoo: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("rivals", zoo, "--ours", tmp_path / "nowhere").returncode == 2
