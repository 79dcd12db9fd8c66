"""Measuring elsewhere: the whole loop of `bench`, its script run by an interpreter to which onnxcomp is not there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import DataError, UsageError
from onnxcomp.model import fingerprint, load
from tests.api.elsewhere import change, measure

Parse = Callable[..., onnx.ModelProto]


@pytest.fixture
def models(parse: Parse, tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for name, width in (("narrow", 8), ("wide", 512)):
        weights = {"v": rng.normal(size=(4, width)), "w": rng.normal(size=(width, 3))}
        text = "g (float[N,4] x) => (float[N,3] y) { h = MatMul(x, v)  y = MatMul(h, w) }"
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(parse(text, weights).SerializeToString())
        paths.append(str(path))
    return paths


def test_the_loop_of_bench(models: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "device"
    data = tmp_path / "x.npz"
    np.savez(data, x=np.ones((8, 4), np.float32))
    assert run(build_app(), ["bench", *models, "--bundle", str(folder), "--data", str(data), "--batch", "4"]) == 0
    assert "python measure.py" in capfd.readouterr().out
    with np.load(folder / "input.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {"0": (4, 4)}
    done = measure(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "narrow.onnx" in done.stdout

    found = onnxcomp.read_measurements(folder / "measurements.json")
    assert [model.model for model in found.models] == models
    assert [model.fingerprint for model in found.models] == [fingerprint(load(path)) for path in models]
    assert found.rows == 4
    first, second = found.models
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.low <= second.ratio.ratio <= second.ratio.high
    assert second.memory is not None
    assert 0 < second.memory.before <= second.memory.peak
    assert found.machine["python"]
    assert found.to_dict() == json.loads((folder / "measurements.json").read_text(encoding="utf-8"))
    assert run(build_app(), ["bench", "--measurements", str(folder / "measurements.json")]) == 0
    assert "narrow.onnx" in capfd.readouterr().out


def test_a_model_that_does_not_run_there_is_left_out(models: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "device"
    first, second = onnxcomp.bundle(*models, folder=folder).models
    (folder / second.file).write_bytes(b"broken")
    done = measure(folder)
    assert done.returncode == 0
    found = onnxcomp.read_measurements(folder / "measurements.json")
    assert [model.model for model in found.models] == [models[0]]
    assert any("wide.onnx does not run there" in note for note in found.notes)
    (folder / first.file).write_bytes(b"broken")
    done = measure(folder)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "narrow.onnx" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["--provider", "cuda"], 4, "no CUDAExecutionProvider"), (["--custom-ops", "no.so"], 3, "no.so")],
)
def test_what_the_machine_lacks(models: list[str], tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    onnxcomp.bundle(models[0], folder=tmp_path / "device")
    done = measure(tmp_path / "device", *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_that_is_not_whole(models: list[str], tmp_path: Path) -> None:
    onnxcomp.bundle(models[0], folder=tmp_path / "device")
    (tmp_path / "device" / "input.npz").unlink()
    done = measure(tmp_path / "device")
    assert done.returncode == 2
    assert "copy it again" in done.stderr


def test_one_model_twice(models: list[str], tmp_path: Path) -> None:
    found = onnxcomp.bundle(models[0], models[0], folder=tmp_path / "device").models
    assert [model.model for model in found] == [models[0], f"{models[0]} (2)"]
    assert len({model.file for model in found}) == 2


@pytest.fixture(scope="module")
def measured(sample_models: Path) -> str:
    return onnxcomp.bench(sample_models / "lenet5" / "model.onnx", seconds=0.05).to_json()


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("kind", "check", "is no file of measurements"),
        ("schema_version", 99, "another version"),
        ("rounds", "many", "'many' is no int"),
        ("models", {}, "is no list"),
        ("models.0.latency.median", "fast", "is no int"),
        ("settings.provider", "abacus", "'abacus' is none of"),
        ("settled", 1, "is no bool"),
        ("rounds", True, "is no int"),
    ],
)
def test_measurements_that_are_damaged(where: str, value: Any, says: str, measured: str, tmp_path: Path) -> None:
    found = json.loads(measured)
    change(found, where, value)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        onnxcomp.read_measurements(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}"])
def test_what_is_no_file_of_measurements(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"m\.json"):
        onnxcomp.read_measurements(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--bundle {folder}", "no model"),
        ("{model} --measurements m.json", "name no models"),
        ("--measurements nowhere.json", "nowhere.json"),
        ("{model} --bundle {model}", "is no folder"),
        ("{model} --bundle {folder} --seconds 0", "seconds"),
        ("{model} --bundle {full}", "not empty"),
    ],
)
def test_wrong_use(
    arguments: str, says: str, models: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = arguments.format(model=models[0], folder=tmp_path / "device", full=tmp_path)
    assert run(build_app(), ["bench", *text.split()]) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert out == ""


def test_wrong_use_from_python(models: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        onnxcomp.bundle(folder=tmp_path / "device")
    with pytest.raises(UsageError, match="threads"):
        onnxcomp.bundle(models[0], folder=tmp_path / "device", threads=-1)
