"""Containers as models: every command reads them where it reads models, and writes one where its name says so."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import ModelError
from onnxcomp.model import is_one_file, is_packed, load, read, save, serialized
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.result import Outcome
from onnxcomp.storage import is_archive, unpacking
from tests.storage.models import dense
from tests.storage.test_round_trip import external, files


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def packed(resnet: Path, tmp_path: Path) -> Path:
    onnxcomp.pack(resnet, tmp_path / "m.onnxz")
    return tmp_path / "m.onnxz"


def test_a_container_loads_as_the_model_in_it(resnet: Path, packed: Path) -> None:
    expected = serialized(load(resnet))
    for source in (packed, packed.read_bytes()):
        for found in (load(source), read(source)):
            assert serialized(found) == expected
            assert is_packed(found)
            assert not is_one_file(found)
    assert not is_packed(load(resnet))


def test_external_data_comes_along(tmp_path: Path) -> None:
    model = external(tmp_path / "a")
    onnxcomp.pack(model, tmp_path / "m.onnxz")
    weights = [v.const_value.numpy() for v in load(model).graph.initializers.values()]
    found = [v.const_value.numpy() for v in load(tmp_path / "m.onnxz").graph.initializers.values()]
    assert all(np.array_equal(a, b) for a, b in zip(weights, found, strict=True))


def test_a_damaged_container_is_refused(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnxz is no \.onnxz file, or damaged"):
        load(packed)


def test_a_container_of_over_2_gb_is_to_be_unpacked_first(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_PROTOBUF_LIMIT", 1000)
    with pytest.raises(ModelError, match="over 2 GB") as raised:
        load(packed)
    assert "onnxcomp unpack" in str(raised.value.hint)


def test_saving_under_the_name_of_a_container_packs(tmp_path: Path) -> None:
    model = load(dense())
    save(model, tmp_path / "m.onnxz")
    assert is_archive((tmp_path / "m.onnxz").read_bytes())
    assert serialized(load(tmp_path / "m.onnxz")) == serialized(model)
    assert files(tmp_path) == ["m.onnxz"]


def test_sizes_are_those_of_the_model_in_it(resnet: Path, packed: Path) -> None:
    found = onnxcomp.inspect(packed)
    assert found.size == pytest.approx(resnet.stat().st_size, rel=0.01)
    assert found.packed_size == packed.stat().st_size == onnxcomp.inspect(packed.read_bytes()).packed_size
    assert f"{packed.stat().st_size / 1e3:.1f} kB, unpacked {found.size / 1e3:.1f} kB" in found.render()
    assert onnxcomp.inspect(resnet).packed_size is None
    report = onnxcomp.compare(resnet, packed)
    assert report.candidate_size == pytest.approx(report.reference_size, rel=0.01)


def test_bench_and_quantize_take_it_and_a_result_is_packed(packed: Path, tmp_path: Path) -> None:
    found = onnxcomp.bench(packed, seconds=0.2)
    assert [model.model for model in found.models] == [str(packed)]
    assert call("quantize", packed, "--mode", "weight-only", "-o", tmp_path / "q.onnxz", "-q") == 0
    assert (tmp_path / "q.onnxz").stat().st_size < 0.5 * packed.stat().st_size
    assert call("unpack", tmp_path / "q.onnxz", "-q") == 0
    assert serialized(load(tmp_path / "q.onnx")) == serialized(load(tmp_path / "q.onnxz"))


@pytest.mark.parametrize("suffix", ["onnx", "onnxz"])
def test_optimize_takes_it_and_writes_what_the_name_says(packed: Path, suffix: str, tmp_path: Path) -> None:
    result = onnxcomp.optimize(packed, recipe=Recipe((Step("remove-identities"),)))
    result.save(tmp_path / f"o.{suffix}")
    assert is_archive((tmp_path / f"o.{suffix}").read_bytes()) == (suffix == "onnxz")
    assert serialized(load(tmp_path / f"o.{suffix}")) == serialized(load(serialized(result.model)))


def test_an_original_that_was_not_improved_is_copied_or_packed(resnet: Path, tmp_path: Path) -> None:
    size = resnet.stat().st_size
    bare: dict[str, Any] = dict.fromkeys(field.name for field in fields(Outcome))
    outcome = Outcome(**bare | {"model": load(resnet), "original_size": size, "source": resnet})
    outcome.save(tmp_path / "o.onnx")
    outcome.save(tmp_path / "o.onnxz")
    assert (tmp_path / "o.onnx").read_bytes() == resnet.read_bytes()
    assert serialized(load(tmp_path / "o.onnxz")) == serialized(load(resnet))
