"""pack, unpack and session from Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.model import load
from tests.storage.models import dense
from tests.storage.test_round_trip import external, files


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


def test_pack_and_unpack_give_reports(resnet: Path, tmp_path: Path) -> None:
    stages = set()
    report = onnxcomp.pack(resnet, tmp_path / "m.onnxz", progress=lambda stage, _: stages.add(stage))
    assert stages == {"pack", "verify"}
    assert report.size == (tmp_path / "m.onnxz").stat().st_size == report.output.size
    assert report.graph_size + sum(tensor.stored for tensor in report.tensors) == report.size
    assert all(tensor.bound <= tensor.size for tensor in report.tensors)
    assert report.exact
    assert report.verified
    text = report.render(verbose=True)
    assert "net.3.conv1.weight" in text
    assert "decoded and compared" in text
    back = onnxcomp.unpack(tmp_path / "m.onnxz", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == resnet.read_bytes()
    assert back.files == {str(tmp_path / "m.onnx"): resnet.stat().st_size}
    assert "checksums" in back.render()


def test_models_in_memory(tmp_path: Path) -> None:
    onnxcomp.pack(dense(), tmp_path / "a.onnxz")
    onnxcomp.pack(load(dense()), tmp_path / "b.onnxz")
    for name in "ab":
        onnxcomp.unpack((tmp_path / f"{name}.onnxz").read_bytes(), tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == dense()
    assert load(tmp_path / "b.onnx").graph.initializers["w"].const_value.numpy().shape == (64, 40)


def test_a_session_gives_the_same_answers(tmp_path: Path) -> None:
    model = external(tmp_path / "a")
    onnxcomp.pack(model, tmp_path / "m.onnxz")
    feed = {"x": np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)}
    expected = onnxcomp.session(model).run(None, feed)
    for packed in (tmp_path / "m.onnxz", (tmp_path / "m.onnxz").read_bytes()):
        for a, b in zip(expected, onnxcomp.session(packed, threads=1).run(None, feed), strict=True):
            assert (a == b).all()
    assert files(tmp_path) == ["a/m.onnx", "a/w.bin", "m.onnxz"]


def test_a_session_of_a_model_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = external(tmp_path / "a")
    onnxcomp.pack(model, tmp_path / "m.onnxz")
    monkeypatch.setattr("onnxcomp.storage.unpacking._PROTOBUF_LIMIT", 1000)
    feed = {"x": np.ones((2, 50), np.float32)}
    found = onnxcomp.session(tmp_path / "m.onnxz").run(None, feed)
    assert all((a == b).all() for a, b in zip(found, onnxcomp.session(model).run(None, feed), strict=True))


def test_wrong_use(tmp_path: Path) -> None:
    onnxcomp.pack(dense(), tmp_path / "m.onnxz")
    with pytest.raises(UsageError, match="no codec 'zip'"):
        onnxcomp.pack(dense(), tmp_path / "n.onnxz", codec="zip")
    with pytest.raises(UsageError, match="threads"):
        onnxcomp.pack(dense(), tmp_path / "n.onnxz", threads=-1)
    with pytest.raises(ModelError, match="allowed are 1000"):
        onnxcomp.unpack(tmp_path / "m.onnxz", tmp_path / "m.onnx", max_size=1000)
    with pytest.raises(ModelError, match="allowed are 1000"):
        onnxcomp.session(tmp_path / "m.onnxz", max_size=1000)
    with pytest.raises(UsageError, match="No such file"):
        onnxcomp.session(tmp_path / "missing.onnxz")
    with pytest.raises(UsageError, match="can't be made of int"):
        onnxcomp.session(3)  # type: ignore[arg-type]
    assert files(tmp_path) == ["m.onnxz"]


def test_the_commands(resnet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("pack", resnet, "--codec", "rans", "--report", resnet.with_name("r.json")) == 0
    out, err = capfd.readouterr()
    assert "x smaller, decoded and compared" in out
    assert err.splitlines() == ["pack ...", "verify ..."]
    found = json.loads(resnet.with_name("r.json").read_text(encoding="utf-8"))
    assert {tensor["codec"] for tensor in found["tensors"]} == {"rans"}
    packed = resnet.with_suffix(".onnxz")
    assert call("unpack", packed) == 2  # the model is there
    assert call("unpack", packed, "-o", resnet.with_name("b.onnx"), "-q", "--max-size", "1kB") == 3
    assert "--max-size" in capfd.readouterr().err
    assert call("unpack", packed, "-o", resnet.with_name("b.onnx"), "--format", "json", "-q") == 0
    assert json.loads(capfd.readouterr().out)["size"] == resnet.stat().st_size
    assert resnet.with_name("b.onnx").read_bytes() == resnet.read_bytes()
    assert files(resnet.parent) == ["b.onnx", "model.onnx", "model.onnxz", "r.json"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("pack missing.onnx", 2, "No such file"),
        ("pack text.txt -o o.onnxz", 3, "text.txt is not an ONNX model"),
        ("pack m.onnx -o m.onnx --overwrite", 2, "is the input itself"),
        ("pack m.onnx --codec lzma", 2, "'lzma' is not one of"),
        ("pack . -o o.onnxz", 2, "it is a directory"),
        ("unpack missing.onnxz", 2, "No such file"),
        ("unpack text.txt", 3, "text.txt is no .onnxz file, or damaged"),
        ("unpack m.onnx -o o.onnx", 3, "m.onnx is no .onnxz file, or damaged"),
        ("unpack m.onnx", 2, "m.onnx is called like a model, not like a container"),
        ("unpack empty", 3, "empty is no .onnxz file, or damaged"),
    ],
)
def test_wrong_use_of_the_commands(  # noqa: PLR0917
    line: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a text that is no model\n", encoding="utf-8")
    (tmp_path / "empty").touch()
    (tmp_path / "m.onnx").write_bytes(dense())
    before = files(tmp_path)
    assert call(*line.split()) == code
    err = capfd.readouterr().err
    assert says in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert files(tmp_path) == before
