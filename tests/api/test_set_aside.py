"""Without evaluation samples: part of the calibration samples judges, and nothing is fitted to it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcomp

Parse = Callable[..., onnx.ModelProto]


def _net(parse: Parse) -> bytes:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(64, 256)) / 8, "v": rng.normal(size=(256, 8)) / 16}
    text = "g (float[n, 64] x) => (float[n, 8] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    return parse(text, weights).SerializeToString()


@pytest.fixture
def data(tmp_path: Path) -> Callable[[int], Path]:
    """Write calibration samples."""

    def make(runs: int) -> Path:
        path = tmp_path / "calibration.npz"
        np.savez(path, x=np.random.default_rng(1).normal(size=(runs, 64)).astype(np.float32))
        return path

    return make


def test_a_quarter_judges(parse: Parse, data: Callable[[int], Path]) -> None:
    result = onnxcomp.quantize(_net(parse), mode="static", calibration=data(64))
    assert "48 of 64 runs" in str(result.report.calibration)
    assert any("which nothing is fitted to" in note for note in result.report.notes)


@pytest.mark.parametrize(("runs", "pruned"), [(16, False), (64, True)])
def test_too_few_to_part_are_not_pruned_by(parse: Parse, data: Callable[[int], Path], runs: int, pruned: bool) -> None:
    result = onnxcomp.optimize(_net(parse), calibration=data(runs), time_budget=60)
    names = [candidate.name for candidate in result.report.outcome.candidates]
    assert any("pruned" in name for name in names) == pruned
    assert any("too few to part" in note for note in result.report.notes) != pruned


def test_units_are_not_judged_on_what_measures_their_noise(parse: Parse, data: Callable[[int], Path]) -> None:
    found = onnxcomp.sensitivity(_net(parse), mode="static", calibration=data(64))
    assert any("which nothing is fitted to" in note for note in found.notes)
