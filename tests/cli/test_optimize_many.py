"""``onnxcomp optimize`` with several models and folders of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onnxcomp.cli.app import build_app, run
from onnxcomp.model import load
from tests.cli.bad_files import make

# Sends the signal when the result of the second model is about to take its place
INTERRUPT = """
import os, signal
replace = os.replace
def hooked(source, target):
    if os.fspath(target).endswith(os.path.join("out", "m.onnx")):
        os.kill(os.getpid(), signal.SIGINT)
    replace(source, target)
os.replace = hooked
from onnxcomp.cli import main; main()
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "inner").mkdir(parents=True)
    make("m.onnx", folder)
    shutil.copyfile(folder / "m.onnx", folder / "inner" / "m.onnx")
    return folder


def call(*arguments: object) -> int:
    return run(build_app(), ["--no-config", *map(str, arguments)])


@pytest.mark.usefixtures("quick")
def test_a_folder(models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call("optimize", models, "-o", out, "--report", tmp_path / "run.json") == 0
    shown, told = capfd.readouterr()
    assert "2 of 2 models written" in shown
    assert "inner/m.onnx (1 of 2)" in told
    assert load(out / "m.onnx")
    assert load(out / "inner" / "m.onnx")
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert [one["output"]["path"] for one in found["models"]] == [str(out / "inner" / "m.onnx"), str(out / "m.onnx")]


@pytest.mark.usefixtures("quick")
def test_a_bad_file_among_good_ones(models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    out = tmp_path / "out"
    assert call("optimize", tmp_path / "bad.onnx", models / "m.onnx", "-o", out, "--report", tmp_path / "run.md") == 3
    shown, told = capfd.readouterr()
    assert "failed (exit code 3)" in shown
    assert "1 of 2 models written" in shown
    assert told.splitlines()[-2] == f"error: 1 of 2 models failed: {tmp_path / 'bad.onnx'}"
    assert "bad.onnx" in (tmp_path / "run.md").read_text(encoding="utf-8")
    assert [path.name for path in out.iterdir()] == ["m.onnx"]


def test_what_several_models_need(models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", models) == 2
    assert "several models need a folder" in capfd.readouterr().err
    assert call("optimize", models, "-o", tmp_path / "out", "--dry-run") == 2
    assert "--dry-run looks at one model" in capfd.readouterr().err
    assert call("optimize", models, models / "m.onnx", "-o", tmp_path / "out") == 2
    assert "would both be written to" in capfd.readouterr().err
    (tmp_path / "file").write_bytes(b"")
    assert call("optimize", models, "-o", tmp_path / "file") == 2
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_an_interrupt_leaves_whole_files(models: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CI": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ("optimize", str(models), "-o", str(tmp_path / "out"), "--time-budget", "1")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.returncode != -signal.SIGINT
    assert done.stderr.splitlines()[-1] == "error: interrupted; no file is half written"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / "inner" / "m.onnx"]
    assert load(files[0])
