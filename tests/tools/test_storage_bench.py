"""The sizes and speeds of containers, on a small zoo."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coding_streams import measure_streams


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
    text = files[1].read_text(encoding="utf-8")
    assert text.count("\n| resnet8 |") == 1
    assert text.count("\n| resnet8, ") == 2
    assert "geometric means of 1" in done.stdout


def test_streams_of_real_weights_are_near_their_entropy(sample_models: Path) -> None:
    """Within 1 % of the order-0 entropy where they are dense, within 3 % at 90 % zeros."""
    model = os.environ.get("ONNXCOMP_STREAMS", sample_models / "resnet8" / "model.onnx")
    found = {row.stream: row for row in measure_streams(Path(model))}
    assert list(found) == ["16 values", "16 values, 90 % zero", "INT8"]
    for name, most in (("16 values", 1.01), ("16 values, 90 % zero", 1.03), ("INT8", 1.01)):
        row = found[name]
        assert row.bits["onnxz"] < most * row.bound
        assert row.bits["onnxz"] < row.bits["zlib -6"]
    assert 0.4 < found["16 values, 90 % zero"].bound < 1 < found["16 values"].bound < 4


def test_streams_are_printed_for_each_coder(sample_models: Path, run_tool: Callable[..., Any]) -> None:
    done = run_tool("storage_bench", "--streams", sample_models / "lenet5" / "model.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| onnxz |") == done.stdout.count("| zlib -6 |") == 3
