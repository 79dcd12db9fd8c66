"""The command line as users meet it. Errors are checked in this process, whatever needs a process of its own in one."""

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.api import optimize
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import UsageError

ENVIRONMENT = {**os.environ, "CI": "1", "COLUMNS": "200"}


@pytest.fixture
def folder(sample_models: Path, tmp_path: Path) -> Path:
    """A folder with a model, samples of it, and a file that is no model."""
    shutil.copyfile(sample_models / "lenet_300_100" / "model.onnx", tmp_path / "model.onnx")
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        np.savez(tmp_path / "eval.npz", image=rows["image"][:40], labels=rows["labels"][:40])
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "out").mkdir()
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(*arguments: str) -> int:
    return run(build_app(), list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [{"model": 3}, {"model": None}, {"calibration": 5}, {"eval": ["eval.npz"]}, {"metric": len}],
    ids=str,
)
def test_arguments_of_another_type(folder: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        optimize(**{"model": folder / "model.onnx", "eval": folder / "eval.npz"} | arguments)
    assert "pass" in str(caught.value.hint)


def test_names_with_line_breaks_can_not_pass_for_messages(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    assert call("inspect", str(folder / "a\nhint: run this\x1b[31m.onnx")) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("hint: run this")] == []
    assert "\x1b" not in "".join(lines)


@pytest.mark.usefixtures("quick")
def test_a_gate_that_fails(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    report = folder / "failed.json"
    assert call("optimize", str(folder / "model.onnx"), "--max-size", "1kB", "--report", str(report)) == 1
    out, err = capfd.readouterr()
    assert err.splitlines()[-1].startswith("error: no candidate keeps the budget")
    assert "larger than 1000 bytes" in out  # the numbers are shown, too
    assert "no model is written" in out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert "larger than 1000 bytes" in found["missed"]
    assert found["winner"] is None
    report.unlink()
    assert snapshot(folder) == before


@pytest.mark.usefixtures("quick")
def test_writes_the_model_and_says_so(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    assert call("optimize", str(folder / "model.onnx")) == 0
    out, err = capfd.readouterr()
    assert "model.opt.onnx" in out.splitlines()[-1]
    assert "before" in out
    assert all(line.endswith(" ...") for line in err.splitlines())  # a line per stage
    after = snapshot(folder)
    assert after.keys() - before.keys() == {"model.opt.onnx"}
    assert {name: after[name] for name in before} == before
    assert call("optimize", str(folder / "model.onnx")) == 2  # it is there now
    assert call("optimize", str(folder / "model.onnx"), "--overwrite", "-q") == 0


@pytest.mark.usefixtures("quick")
def test_reports(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [folder / "out" / "r.json", folder / "out" / "r.txt"]
    arguments = [option for file in files for option in ("--report", str(file))]
    assert call("optimize", str(folder / "model.onnx"), "--eval", str(folder / "eval.npz"), *arguments, "-v") == 0
    written = json.loads(files[0].read_text(encoding="utf-8"))
    assert written["schema_version"] == 1
    assert written["settings"]["metric"] == "top1"
    assert "top1" in files[1].read_text(encoding="utf-8")
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["r.json", "r.txt"]
    assert "top1" in capfd.readouterr().out


@pytest.mark.usefixtures("quick")
def test_json_is_all_there_is_on_stdout(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", str(folder / "model.onnx"), "--format", "json", "-v") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["schema_version"] == 1
    assert all(line.endswith(" ...") for line in err.splitlines())  # a line per stage


@pytest.mark.usefixtures("quick")
def test_quiet_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize", str(folder / "model.onnx"), "-q") == 0
    assert capfd.readouterr() == ("", "")
    assert (folder / "model.opt.onnx").stat().st_size > 0


def test_passes(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("passes") == 0
    listed = capfd.readouterr().out
    assert call("passes", "quantize-static") == 0
    shown = capfd.readouterr().out
    assert "quantize-static" in listed
    assert "lossy" in shown
    assert "per_channel = true" in shown
    assert call("passes", "nothing") == 2
    assert "no pass 'nothing'" in capfd.readouterr().err


def test_version_and_no_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capfd.readouterr().out.startswith("onnxcomp ")
    assert call("nothing") == 2
    assert "Traceback" not in capfd.readouterr().err
    assert call() in (0, 2)
    out, err = capfd.readouterr()
    assert "optimize" in out + err


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "onnxcomp", "optimize", "nothing.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "cannot read nothing.onnx" in done.stderr


def test_a_bug_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("onnxcomp.api.optimize", broken)
    assert call("optimize", str(folder / "model.onnx")) == 70
    err = capfd.readouterr().err
    assert "oops" in err
    assert "report it" in err


@pytest.mark.parametrize("arguments", [["--help"], ["optimize", "--help"], ["optimize", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from onnxcomp.cli.app import build_app, run\n"
        f"code = run(build_app(), {arguments!r})\n"
        "heavy = {'onnxruntime', 'onnx', 'onnx_ir', 'onnxscript', 'scipy', 'sklearn', 'numba'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stderr.strip() == "[]"
    assert "onnxcomp" in done.stdout


def start(*arguments: str, first: str = "pass", **environment: str) -> "subprocess.Popen[str]":
    """Start the command line in a process of its own, after the statement ``first``."""
    command = [sys.executable, "-c", f"{first}\nfrom onnxcomp.cli import main; main()", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT | environment, start_new_session=True, **pipes)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_leaves_nothing_behind(folder: Path) -> None:
    """A metric that marks its first call and then takes its time tells when the work is going on."""
    (folder / "metric.py").write_text(
        "import pathlib, time\n"
        "def score(outputs, labels):\n"
        "    pathlib.Path(__file__).with_name('begun').touch()\n"
        "    time.sleep(60)\n"
        "    return 1.0\n",
        encoding="utf-8",
    )
    temporary = folder / "temporary"
    temporary.mkdir()
    before = snapshot(folder)
    data, metric, output = folder / "eval.npz", f"{folder / 'metric.py'}:score", folder / "out" / "o.onnx"
    arguments = ["optimize", str(folder / "model.onnx"), f"--eval={data}", f"--metric={metric}", f"--output={output}"]

    program = start(*arguments, TMPDIR=str(temporary))
    deadline = time.monotonic() + 120
    while not (folder / "begun").exists():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    after = {name: content for name, content in snapshot(folder).items() if "__pycache__" not in name}
    assert after.keys() - before.keys() == {"begun"}
    assert list(temporary.iterdir()) == []


def test_a_reader_that_leaves() -> None:
    """`onnxcomp passes | head -1` is no error."""
    program = start("passes")
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.wait(timeout=60) == 0
    assert "Traceback" not in program.stderr.read()


def finish(program: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = program.communicate(timeout=60)
    return program.returncode, out, err


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_while_modules_are_loaded() -> None:
    interrupting = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxcomp.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
"""
    code, out, err = finish(start("passes", first=interrupting))
    assert (code, out) == (130, "")
    assert err.startswith("error: interrupted")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]])
def test_closed_streams(folder: Path, closed: list[int]) -> None:
    """As after `>&-`: Python finds the descriptors closed when it starts."""
    program = "from onnxcomp.cli import main; main()"
    redirections = " ".join(f"{number}>&-" for number in closed)
    script = f"exec {sys.executable} -c '{program}' \"$@\" {redirections}"
    for arguments, code in (
        (["passes"], 0),
        (["optimize", "--help"], 0),
        (["passes", "nothing"], 2),
        (["optimize", str(folder / "model.onnx"), "--max-latency-ratio", "100", "--time-budget", "1"], 0),
    ):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert "error:" not in done.stdout
    assert (folder / "model.opt.onnx").stat().st_size > 0


def test_streams_that_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pythonw, where no descriptor is behind them."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert call("passes") == 0
    assert call("optimize", str(folder / "empty.onnx")) == 3


@pytest.mark.parametrize("arguments", [["passes"], ["--help"], ["--version"]])
def test_a_disk_that_is_full(arguments: list[str]) -> None:
    """The stand-in fails, as a file on a full disk does, until its descriptor is pointed elsewhere."""
    full = """
import errno, io, os, sys
class Full(io.FileIO):
    def write(self, content):
        if os.path.samestat(os.fstat(1), BEGIN):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)
BEGIN = os.fstat(1)
sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.BufferedWriter(Full(1, "w", closefd=False)), encoding="utf-8")
"""
    message = "error: cannot write to standard output: No space left on device\n"
    assert finish(start(*arguments, first=full)) == (2, "", message)


@pytest.mark.usefixtures("quick")
def test_a_report_that_can_not_be_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr("onnxcomp.cli.app.discard_stdout", lambda: None)
    assert call("optimize", str(folder / "model.onnx")) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "error: cannot write to standard output: No space left on device"
    assert (folder / "model.opt.onnx").stat().st_size > 0


def test_a_terminal_that_lacks_letters(folder: Path) -> None:
    code, _, err = finish(start("optimize", str(folder / "m\u00fc.onnx"), PYTHONIOENCODING="ascii"))
    assert code == 2
    assert "m\\xfc.onnx" in err
    shutil.copyfile(folder / "model.onnx", folder / "m\u00fc.onnx")
    arguments = ["--max-latency-ratio", "100", "--time-budget", "1"]
    code, out, err = finish(start("optimize", str(folder / "m\u00fc.onnx"), *arguments, PYTHONIOENCODING="ascii"))
    assert (code, "error" in err) == (0, False)
    assert "m\\xfc.opt.onnx" in out


def test_no_foreign_log_before_our_error(folder: Path, parse: Callable[..., onnx.ModelProto]) -> None:
    proto = parse("g (float[3] x) => (float[3] y) { y = Add(x, nowhere) }")
    (folder / "undefined.onnx").write_bytes(proto.SerializeToString())
    code, _, err = finish(start("optimize", str(folder / "undefined.onnx")))
    assert code == 3
    assert err.startswith("error: ")


@pytest.mark.usefixtures("quick")
def test_a_metric_that_prints_leaves_stdout_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "loud.py").write_text(
        "print('import')\ndef score(outputs, labels):\n    print('call')\n    return 1.0\n", encoding="utf-8"
    )
    data = ["--eval", str(folder / "eval.npz"), "--metric", f"{folder / 'loud.py'}:score"]
    assert call("optimize", str(folder / "model.onnx"), *data, "--format", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["schema_version"] == 1
    assert {"import", "call"} <= set(err.splitlines())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("improved", [True, False])
def test_the_report_names_the_file_that_was_written(
    folder: Path, improved: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    gates = [] if improved else ["--min-agreement", "1", "--min-sqnr", "300", "--max-drop", "0"]
    output = folder / "out" / "o.onnx"
    assert call("optimize", str(folder / "model.onnx"), *gates, "-o", str(output), "--format", "json") == 0
    found = json.loads(capfd.readouterr().out)["output"]
    content = output.read_bytes()
    assert found == {"path": str(output), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
