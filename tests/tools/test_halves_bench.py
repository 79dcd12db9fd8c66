"""The bench of halved models, on a net that is there in no time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser

from onnxcomp.model import load, open_session


def test_a_line_for_each_recovery_and_seed(tmp_path: Path, run_tool: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    body = "h = MatMul(image, a) r = Relu(h) y = MatMul(r, b)"
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N, 12] image) => (float[N, 4] y) {{ {body} }}'
    )
    for name, shape in (("a", (12, 16)), ("b", (16, 4))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model, samples = tmp_path / "model.onnx", tmp_path / "samples.npz"
    onnx.save(proto, model)
    image = rng.normal(size=(32, 12)).astype(np.float32)
    labels = open_session(load(model)).run({"image": image})["y"].argmax(1)
    np.savez(samples, image=image, labels=labels)
    done = run_tool("halves_bench", model, "--calibration", samples, "--eval", samples, "--seeds", 0, 1)
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [line[:2] for line in lines] == [[how, seed] for how in ("least-squares", "distill") for seed in "01"]
    for line in lines:
        assert 0.25 < float(line[2]) < float(line[3]) == 1
        assert float(line[2]) == float(line[4])
        assert line[5:8] == ["-"] * 3


def test_a_missing_model_is_told(tmp_path: Path, run_tool: Callable[..., Any]) -> None:
    done = run_tool("halves_bench", tmp_path / "none.onnx", "--calibration", tmp_path / "c", "--eval", tmp_path / "e")
    assert done.returncode == 2
    assert "none.onnx" in done.stderr
    assert "Traceback" not in done.stderr
