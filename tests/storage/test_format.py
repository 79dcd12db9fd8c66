"""The documented format: a reader written from the page reads every codec; the file is a safetensors file."""

import json
import struct
from pathlib import Path

import pytest

from onnxcomp.coding import Codec
from onnxcomp.storage import pack_file
from tests.storage.independent_reader import read
from tests.storage.models import MODELS
from tests.storage.test_round_trip import external

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", MODELS)
def test_the_independent_reader_reads_what_pack_writes(name: str, tmp_path: Path) -> None:
    pack_file(MODELS[name](), tmp_path / "m.onnxz", producer="a test")
    assert read((tmp_path / "m.onnxz").read_bytes()) == {"": MODELS[name]()}


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("name", ["int8", "uint8", "mostly zero", "odd number of int4"])
def test_it_reads_every_codec(name: str, codec: Codec, tmp_path: Path) -> None:
    pack_file(MODELS[name](), tmp_path / "m.onnxz", producer="a test", codec=codec)
    assert read((tmp_path / "m.onnxz").read_bytes()) == {"": MODELS[name]()}


def test_it_reads_external_data_and_a_real_model(tmp_path: Path) -> None:
    model = external(tmp_path / "a", location="data/w.bin")
    pack_file(model, tmp_path / "m.onnxz", producer="a test")
    weights = (tmp_path / "a" / "data" / "w.bin").read_bytes()
    assert read((tmp_path / "m.onnxz").read_bytes()) == {"": model.read_bytes(), "data/w.bin": weights}
    resnet = ROOT / "sample_models" / "resnet8" / "model.onnx"
    pack_file(resnet, tmp_path / "m.onnxz", producer="a test")
    assert read((tmp_path / "m.onnxz").read_bytes()) == {"": resnet.read_bytes()}


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    """Header first, texts alone as metadata, no gap, nothing behind the last part."""
    pack_file(MODELS["dense"](), tmp_path / "m.onnxz", producer="a test")
    content = (tmp_path / "m.onnxz").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {
        "format": "onnxz", "format_version": "2", "min_reader": "2", "producer": "a test"
    }  # fmt: skip
    assert list(header) == ["__onnx__", "__manifest__", "0"]
    end = 0
    for entry in header.values():
        assert entry["dtype"] == "U8"
        assert entry["data_offsets"][0] == end
        end = entry["data_offsets"][1]
        assert entry["shape"] == [end - entry["data_offsets"][0]]
    assert end == len(content) - 8 - length
