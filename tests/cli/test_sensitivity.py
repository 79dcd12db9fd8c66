"""`onnxcomp sensitivity` as users meet it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.cli.app import build_app, run

DYNAMIC = "sensitivity model.onnx --mode dynamic"


@pytest.fixture
def folder(sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a model and samples the current one."""
    shutil.copyfile(sample_models / "lenet_300_100" / "model.onnx", tmp_path / "model.onnx")
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        np.savez(tmp_path / "calib.npz", image=rows["image"][:12])
        np.savez(tmp_path / "eval.npz", image=rows["image"][:40], labels=rows["labels"][:40])
    (tmp_path / "old.json").write_bytes(b"precious")
    (tmp_path / "static.toml").write_text('schema_version = 1\n[[pass]]\nname = "quantize-static"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(arguments: str) -> int:
    return run(build_app(), arguments.split())


ERRORS: dict[str, tuple[str, int, str]] = {
    # name: (arguments, exit code, what stderr must say)
    "model missing": ("sensitivity missing.onnx", 2, "missing.onnx"),
    "output exists": (f"{DYNAMIC} -o old.json", 2, "--overwrite"),
    "output is no json": (f"{DYNAMIC} -o old.md", 2, ".json"),
    "output is the recipe": ("sensitivity model.onnx --recipe old.json -o old.json --overwrite", 2, "input itself"),
    "two outputs": (f"{DYNAMIC} -o s.json --report s.json", 2, "the same path"),
    "recipe missing": ("sensitivity model.onnx --recipe missing.toml", 2, "missing.toml"),
    "recipe and mode": (f"{DYNAMIC} --recipe static.toml", 2, "says itself"),
    "recipe without samples": ("sensitivity model.onnx --recipe static.toml", 2, "--calibration"),
    "unknown mode": ("sensitivity model.onnx --mode magic", 2, "quantize-dynamic"),
    "no such node": (f"{DYNAMIC} --exclude nothing", 2, "'nothing'"),
    "samples missing": ("sensitivity model.onnx --calibration no.npz", 2, "no.npz"),
    "no such goal": (f"{DYNAMIC} --goal beauty", 2, "beauty"),
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


def test_prints_saves_and_reports(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    options = "--calibration calib.npz --eval eval.npz --report s.md --report s.txt"
    assert call(f"sensitivity model.onnx {options}") == 0
    out, err = capfd.readouterr()
    assert "SQNR alone" in out
    assert out.splitlines()[-1] == " wrote   model.sensitivity.json"
    assert "measure the harm ..." in err.splitlines()
    after = snapshot(folder)
    assert after.keys() - before.keys() == {"model.sensitivity.json", "s.md", "s.txt"}
    found = json.loads(after["model.sensitivity.json"])
    assert found["kind"] == "sensitivity"
    assert [unit["step"] for unit in found["units"]] == ["quantize-static"] * 3
    assert all(unit["nodes"][0].encode() in after["s.md"] for unit in found["units"])
    assert b"| unit | operator |" in after["s.md"]


def test_json_alone(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(f"{DYNAMIC} --format json -o s.json -q") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["kind"] == "sensitivity"
    assert err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_an_interrupt_leaves_nothing_behind(folder: Path) -> None:
    before = snapshot(folder)
    program = (
        "import os, signal\n"
        "from onnxcomp.search import judge\n"
        "judge.Judge.quality = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "from onnxcomp.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "CI": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *DYNAMIC.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "error: interrupted; no file is half written"
    assert snapshot(folder) == before
