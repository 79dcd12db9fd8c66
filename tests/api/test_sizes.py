"""`--sizes` of `share` and `pack`: one table of what a model takes in several forms."""

import gzip
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.model import load
from tests.storage.test_round_trip import external


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    storing = importlib.import_module("onnxcomp.api.storing")
    monkeypatch.setattr(storing, "find_spec", lambda _name: None)


@pytest.mark.parametrize("kind", ["path", "bytes", "memory"])
@pytest.mark.usefixtures("without_zstd")
def test_a_packed_model_beside_gzip(kind: str, resnet: Path, tmp_path: Path) -> None:
    content = resnet.read_bytes()
    model: Any = {"path": resnet, "bytes": content, "memory": load(resnet)}[kind]
    report = onnxcomp.pack(model, tmp_path / "m.onnxz", sizes=True)
    plain, zipped, packed = report.sizes
    assert [form.name for form in report.sizes] == ["as it is", "as it is, gzip -9", "as it is, .onnxz"]
    if kind != "memory":
        assert (plain.size, zipped.size) == (len(content), len(gzip.compress(content, 9)))
    assert packed.size == report.size
    assert packed.over_entropy < zipped.over_entropy < plain.over_entropy
    assert all(form.load > 0 for form in report.sizes)
    assert any("zstandard is not installed" in note for note in report.notes)
    assert "as it is, gzip -9" in report.render()
    assert not onnxcomp.pack(model, tmp_path / "m.onnxz").sizes


@pytest.mark.usefixtures("without_zstd")
def test_external_data_counts(tmp_path: Path) -> None:
    """No session is made of two files compressed as one; the others are loaded."""
    model = external(tmp_path / "a")
    report = onnxcomp.pack(model, tmp_path / "m.onnxz", sizes=True)
    plain, zipped, packed = report.sizes
    assert plain.size == report.original_size > model.stat().st_size
    assert max(packed.size, zipped.size) < plain.size
    assert [form.load is None for form in report.sizes] == [False, True, False]


def test_shared_beside_int8(sample_models: Path, data: dict[str, Path], tmp_path: Path) -> None:
    model, files = sample_models / "lenet_300_100" / "model.onnx", [tmp_path / "r.json", tmp_path / "r.html"]
    line = ["share", model, "--bits", 4, "--eval", data["eval"], "--no-bench", "--sizes", "-o", tmp_path / "s.onnx"]
    line += [word for file in files for word in ("--report", file)]
    assert run(build_app(), [str(word) for word in line]) == 0
    found = json.loads(files[0].read_text(encoding="utf-8"))
    forms = {form["name"]: form for form in found["sizes"]}
    kinds = ["", ", gzip -9", *([", zstd -19"] if importlib.util.find_spec("zstandard") else []), ", .onnxz"]
    assert list(forms) == [name + kind for name in ("original", "int8 weights", "shared") for kind in kinds]
    assert forms["original"]["size"] == model.stat().st_size == found["original_size"]
    assert forms["shared"]["size"] == (tmp_path / "s.onnx").stat().st_size
    assert forms["shared, .onnxz"]["size"] < forms["shared"]["size"] < forms["int8 weights, .onnxz"]["size"]
    assert forms["shared"]["bits"] == pytest.approx(8 * forms["shared"]["size"] / found["parameters"], rel=1e-3)
    assert abs(forms["shared, .onnxz"]["over_entropy"]) < 0.03
    assert forms["original"]["score"] == found["original_quality"]["score"]
    assert forms["shared, .onnxz"]["score"] == found["quality"]["score"]
    page = files[1].read_text(encoding="utf-8")
    assert ">Sizes<" in page
    assert "shared, .onnxz" in page
