"""What weight sharing gives, on a small zoo."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_zoo_is_measured_in_all_forms(zoo: Path, run_tool: Callable[..., Any], tmp_path: Path) -> None:
    files = tmp_path / "s.json", tmp_path / "s.md"
    done = run_tool(
        "sharing_bench", zoo, "--only", "resnet8", "--max-drop", 0.1, "--batch", 50, "--json", files[0],
        "--markdown", files[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(files[0].read_text(encoding="utf-8"))["rows"]
    assert row["onnxz"] < row["shared"] < row["fp32"]
    assert row["onnxz"] < row["int8"] < row["fp32_gzip"] < row["fp32"]
    if importlib.util.find_spec("zstandard") is not None:
        assert row["onnxz"] < row["rival_zstd"] < row["fp32_gzip"]
    assert min(row["load"], row["load_shared"], row["load_onnxz"]) > 0
    assert row["score"] - row["onnxz_score"] <= 0.1 + 1e-9
    assert row["score"] - row["shared_score"] <= 0.1 + 1e-9
    assert 0.2 < row["bits"] < 8
    assert files[1].read_text(encoding="utf-8").count("\n| resnet8 ") == 1
    assert "Geometric mean of 1" in done.stdout


def test_packed_alone(zoo: Path, run_tool: Callable[..., Any]) -> None:
    given = "--only", "resnet8", "--max-drop", 0.1, "--batch", 50, "--no-int8", "--packed-only"
    done = run_tool("sharing_bench", zoo, *given)
    assert done.returncode == 0, done.stderr
    (row,) = (line.split("|") for line in done.stdout.splitlines() if line.startswith("| resnet8 "))
    assert [cell.strip() for cell in row[5:10]] == ["-", "-", "-", "-", "-"]


def test_what_is_no_model(zoo: Path, run_tool: Callable[..., Any]) -> None:
    done = run_tool("sharing_bench", zoo, "--only", "broken")
    assert done.returncode == 1
    assert "broken" in done.stderr
    assert run_tool("sharing_bench").returncode == 2
