"""The sizes and speeds of containers, on a small zoo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_zoo_is_measured_in_both_forms(zoo: Path, run_tool: Callable[..., Any], tmp_path: Path) -> None:
    files = tmp_path / "s.json", tmp_path / "s.md"
    done = run_tool("storage_bench", zoo, "--only", "resnet8", "--json", files[0], "--markdown", files[1])
    assert done.returncode == 0, done.stderr
    found = json.loads(files[0].read_text(encoding="utf-8"))
    floats, integers = found["rows"]
    assert (floats["form"], integers["form"]) == ("fp32", "int8")
    assert floats["onnxz"] < floats["gzip"] < floats["onnx"]
    assert integers["onnxz"] < integers["onnx"] < floats["onnxz"]
    assert integers["decode_plain"] > 0
    assert files[1].read_text(encoding="utf-8").count("\n| resnet8, ") == 2
    assert "geometric means of 1" in done.stdout
