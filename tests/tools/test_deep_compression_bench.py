"""The bench of the LeNets, on a net that is there in no time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxcomp.model import load, open_session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One dense layer, with samples whose labels are its own answers."""
    rng = np.random.default_rng(0)
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 64] image) => (float[N, 64] y) { y = MatMul(image, w) }'
    proto = parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "w"))
    (tmp_path / "net").mkdir()
    onnx.save(proto, tmp_path / "net" / "model.onnx")
    image = (rng.normal(size=(300, 16)) @ rng.normal(size=(16, 64))).astype(np.float32)
    labels = open_session(load(proto.SerializeToString())).run({"image": image})["y"].argmax(1)
    (tmp_path / "fashion_mnist").mkdir()
    np.savez(tmp_path / "fashion_mnist" / "calibration.npz", image=image[:200])
    np.savez(tmp_path / "fashion_mnist" / "eval.npz", image=image[200:], labels=labels[200:])
    return tmp_path


def test_it_measures(folder: Path, run_tool: Callable[..., Any]) -> None:
    found = folder / "found.json"
    options = ["--only", "net", "--no-plain", "--max-drop", 0.1, "--json", found]
    done = run_tool("deep_compression_bench", folder, *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(found.read_text(encoding="utf-8"))["rows"]
    assert row["zeros"] >= 0.5
    assert row["packed"] < row["fp32"] / 4
    assert row["scores"][1] == 1
    assert (
        row["scores"][0] >= 0.94
    )  # of 50 answers: 4 may be wrong give or take 2, 3 give or take 1.7, where 5 are allowed
    assert row["held_out"][1] == 1
    assert 0 < row["held_out"][0] <= 1
    assert "| net |" in done.stdout
