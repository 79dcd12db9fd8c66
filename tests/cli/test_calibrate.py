"""`onnxcomp calibrate` as users meet it, and the file in the hands of the other commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.cli.app import build_app, run


@pytest.fixture
def folder(sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with models and samples the current one."""
    shutil.copyfile(sample_models / "lenet_300_100" / "model.onnx", tmp_path / "model.onnx")
    shutil.copyfile(sample_models / "lenet5" / "model.onnx", tmp_path / "other.onnx")
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        np.savez(tmp_path / "calib.npz", image=rows["image"][:12])
    (tmp_path / "old.npz").write_bytes(b"precious")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(arguments: str) -> int:
    return run(build_app(), arguments.split())


ERRORS: dict[str, tuple[str, int, str]] = {
    # name: (arguments, exit code, what stderr must say)
    "no samples": ("calibrate model.onnx", 2, "--calibration"),
    "samples of another model": ("calibrate model.onnx --calibration old.npz", 2, "old.npz"),
    "model missing": ("calibrate missing.onnx --synthetic", 2, "missing.onnx"),
    "output exists": ("calibrate model.onnx --synthetic -o old.npz", 2, "--overwrite"),
    "output is the data": ("calibrate model.onnx --calibration calib.npz -o calib.npz --overwrite", 2, "input itself"),
    "output is no npz": ("calibrate model.onnx --synthetic -o s.json", 2, ".npz"),
    "output folder missing": ("calibrate model.onnx --synthetic -o nowhere/s.npz", 2, "mkdir"),
    "statistics missing": ("quantize model.onnx --mode static --statistics no.npz", 2, "no.npz"),
    "statistics are none": ("quantize model.onnx --mode static --statistics old.npz", 2, "no .npz file"),
    "statistics are samples": ("optimize model.onnx --statistics calib.npz", 2, "no statistics file"),
    "output is the statistics": ("optimize model.onnx --statistics old.npz -o old.npz --overwrite", 2, "input itself"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, code, says = ERRORS[name]
    before = snapshot(folder)
    assert call(arguments) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert snapshot(folder) == before


def test_once_for_several_models(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    assert call("calibrate model.onnx --calibration calib.npz --report r.json") == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == " wrote   model.statistics.npz"
    assert "calibrate ..." in err.splitlines()
    after = snapshot(folder)
    assert after.keys() - before.keys() == {"model.statistics.npz", "r.json"}
    assert json.loads(after["r.json"])["runs"] == 12
    for method in ("minmax", "mmse"):
        common = f"quantize model.onnx --mode static --method {method} --no-bench -q"
        assert call(f"{common} --statistics model.statistics.npz -o {method}.onnx") == 0
        assert call(f"{common} --calibration calib.npz -o direct.onnx --overwrite") == 0
        assert (folder / f"{method}.onnx").read_bytes() == (folder / "direct.onnx").read_bytes()
    assert (folder / "minmax.onnx").read_bytes() != (folder / "mmse.onnx").read_bytes()


def test_a_plan_with_statistics(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("calibrate model.onnx --synthetic -o s.npz -q") == 0
    assert call("optimize model.onnx --statistics s.npz --dry-run --format json") == 0
    found = json.loads(capfd.readouterr().out)
    assert "static" in [candidate["name"] for candidate in found["candidates"]]


def test_another_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("calibrate model.onnx --synthetic -o s.npz -q") == 0
    assert call("quantize other.onnx --mode static --statistics s.npz") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "another model" in err
    assert not (folder / "other.quantized.onnx").exists()
