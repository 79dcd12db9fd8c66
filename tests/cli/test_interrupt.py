"""Signals in the middle of saving: the output is what it was or complete, and nothing else stays.

The signal is sent by the process to itself, right before or right after the output takes its place.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.model import load
from tests.cli.bad_files import make

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

OPTIMIZE = "from onnxcomp.cli import main; main()"
# Of a model that counts as too large for one file, with weights of a given value
SAVE = """
import sys
import numpy as np, onnx, onnx_ir as ir
from onnxcomp import model
model._PROTOBUF_LIMIT = 4000
text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 64] x) => (float[N, 32] y) { y = MatMul(x, w) }'
proto = onnx.parser.parse_model(text)
weight = np.full((64, 32), float(sys.argv[1]), np.float32)
proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
model.save(ir.from_proto(proto), "out/o.onnx")
"""
HOOK = """
import os, signal
replace = os.replace
def hooked(source, target):
    mine = os.path.basename(target) == {target!r}
    if mine and {when!r} == "before":
        os.kill(os.getpid(), {number})
    replace(source, target)
    if mine and {when!r} == "after":
        os.kill(os.getpid(), {number})
os.replace = hooked
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "temporary").mkdir()
    make("m.onnx", tmp_path)
    return tmp_path


def start(folder: Path, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "CI": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def hook(when: str, number: signal.Signals, target: str = "o.onnx") -> str:
    return HOOK.format(when=when, number=int(number), target=target)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


ARGUMENTS = ("optimize", "m.onnx", "-o", "out/o.onnx", "--overwrite", "--time-budget", "1")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing_behind(folder: Path, number: signal.Signals, when: str) -> None:
    (folder / "out" / "o.onnx").write_bytes(b"old")
    done = start(folder, hook(when, number) + OPTIMIZE, *ARGUMENTS)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "error: interrupted; no file is half written"
    assert "Traceback" not in done.stderr
    assert names(folder / "out") == ["o.onnx"]
    assert names(folder / "temporary") == []
    if when == "before":
        assert (folder / "out" / "o.onnx").read_bytes() == b"old"
    else:
        assert load(folder / "out" / "o.onnx")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_an_interrupt_of_packing_leaves_nothing_behind(folder: Path, command: str, when: str) -> None:
    onnxcomp.pack(folder / "m.onnx", folder / "m.onnxz")
    (folder / "out" / "o.onnx").write_bytes(b"old")
    source = {"pack": "m.onnx", "unpack": "m.onnxz"}[command]
    arguments = (command, source, "-o", "out/o.onnx", "--overwrite")
    done = start(folder, hook(when, signal.SIGINT) + OPTIMIZE, *arguments)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "error: interrupted; no file is half written"
    assert names(folder / "out") == ["o.onnx"]
    assert names(folder / "temporary") == []
    found = (folder / "out" / "o.onnx").read_bytes()
    new = {"pack": folder / "m.onnxz", "unpack": folder / "m.onnx"}[command].read_bytes()
    assert found == (b"old" if when == "before" else new)


def test_a_kill_leaves_what_the_next_run_removes(folder: Path) -> None:
    done = start(folder, hook("before", signal.SIGKILL) + OPTIMIZE, *ARGUMENTS)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(folder / "out")
    assert left.startswith(".o.onnx.")
    assert start(folder, OPTIMIZE, *ARGUMENTS).returncode == 0
    assert names(folder / "out") == ["o.onnx"]
    assert load(folder / "out" / "o.onnx")


def weight(folder: Path) -> float:
    """Return the one value of the weights that the model at ``out/o.onnx`` points to."""
    proto = onnx.load(folder / "out" / "o.onnx")
    (value,) = np.unique(onnx.numpy_helper.to_array(proto.graph.initializer[0]))
    return float(value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    ("target", "when", "expected"),
    [
        ("o.onnx.2.data", "before", 1.0),
        ("o.onnx.2.data", "after", 1.0),
        ("o.onnx", "before", 1.0),
        ("o.onnx", "after", 2.0),
    ],
)
def test_a_model_in_two_files_never_has_the_tensors_of_another(
    folder: Path, number: signal.Signals, target: str, when: str, expected: float
) -> None:
    assert start(folder, SAVE, "1").returncode == 0
    assert names(folder / "out") == ["o.onnx", "o.onnx.1.data"]
    done = start(folder, hook(when, number, target) + SAVE, "2")
    assert done.returncode == -number
    assert weight(folder) == expected
    if number == signal.SIGINT and expected == 1.0:
        assert names(folder / "out") == ["o.onnx", "o.onnx.1.data"]
    assert start(folder, SAVE, "3").returncode == 0
    assert weight(folder) == 3.0
    assert len(names(folder / "out")) == 2
