"""`onnxcomp inspect` and `onnxcomp doctor` as users meet them."""

import json
from pathlib import Path

import pytest

from onnxcomp.cli.app import build_app, run


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def model(sample_models: Path) -> Path:
    return sample_models / "resnet8" / "model.onnx"


def test_text(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", model) == 0
    out, err = capfd.readouterr()
    assert "9.35 M MACs" in out
    assert "Conv" in out
    assert "net.4" not in out  # names of nodes only where they are asked for
    assert err == ""
    assert call("inspect", model, "--nodes", "--quantization") == 0
    out = capfd.readouterr().out
    assert "/net/net.4/conv1/Conv" in out
    assert "int8 on" in out


def test_channel_groups(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", model, "--groups") == 0
    out = capfd.readouterr().out
    assert "6 of channels that can be pruned" in out
    assert "it is an output of the model" in out
    assert call("inspect", model, "--groups", "--format", "json") == 0
    found = json.loads(capfd.readouterr().out)
    assert [group["channels"] for group in found["groups"]["groups"]] == [16, 16, 32, 32, 64, 64]
    assert 0 < found["groups"]["parameters"] <= found["parameters"]


def test_json_and_reports(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "r.txt"
    assert call("inspect", model, "--format", "json", "--nodes", "--report", report) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["kind"] == "inspect"
    assert found["macs"] == sum(node["macs"] for node in found["nodes"])
    assert "MACs" in report.read_text(encoding="utf-8")
    assert call("inspect", model, "--report", report) == 2
    assert "--overwrite" in capfd.readouterr().err


def test_what_is_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_text("hello", encoding="utf-8")
    assert call("inspect", tmp_path / "m.onnx") == 3
    assert call("inspect", tmp_path / "none.onnx") == 2
    assert "Traceback" not in capfd.readouterr().err


def test_doctor(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("doctor") == 0
    assert "onnxcomp works here" in capfd.readouterr().out
    assert call("doctor", "--format", "json") == 0
    assert json.loads(capfd.readouterr().out)["works"]
