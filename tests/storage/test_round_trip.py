"""Pack and unpack: the same bytes come back, of every kind of model, tensor and place."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcomp import storage
from onnxcomp.coding import Codec
from onnxcomp.errors import ModelError, OutputError, UsageError
from onnxcomp.storage import pack_file, unpack_file
from onnxcomp.storage.container import Member
from onnxcomp.storage.wire import WireError, walk
from tests.storage.models import MODELS, dense

ROOT = Path(__file__).parents[2]
REAL = sorted([*ROOT.glob("sample_models/*/model.onnx"), *ROOT.glob("tests/fixtures/*.onnx")])


def pack(model: bytes | Path, target: Path, **settings: object) -> storage.Packed:
    return pack_file(model, target, producer="a test", threads=1, **settings)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", MODELS)
def test_models_come_back_to_the_byte(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    packed = pack(model, tmp_path / "m.onnxz")
    assert packed.exact
    assert packed.size == (tmp_path / "m.onnxz").stat().st_size
    unpack_file(tmp_path / "m.onnxz", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == model
    assert files(tmp_path) == ["m.onnx", "m.onnxz"]


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_models_come_back_to_the_byte_and_get_smaller(path: Path, tmp_path: Path) -> None:
    packed = pack(path, tmp_path / "m.onnxz", verify=False)
    unpack_file(tmp_path / "m.onnxz", tmp_path / "m.onnx", threads=2)
    assert (tmp_path / "m.onnx").read_bytes() == path.read_bytes()
    assert packed.size < 0.95 * packed.original or packed.original < 20_000


@pytest.mark.parametrize("codec", list(Codec))
def test_a_forced_codec_is_that_of_all_tensors(codec: Codec, tmp_path: Path) -> None:
    for name in ("branches, constants, one tensor twice", "int4", "mostly zero"):
        packed = pack(MODELS[name](), tmp_path / "m.onnxz", codec=codec)
        assert {tensor.codec for tensor in packed.tensors} == {codec.name.lower()}
        unpack_file(tmp_path / "m.onnxz", tmp_path / "m.onnx")
        assert (tmp_path / "m.onnx").read_bytes() == MODELS[name]()


def test_the_smallest_codec_is_never_larger_than_a_forced_one(tmp_path: Path) -> None:
    path = ROOT / "sample_models" / "resnet8" / "model.onnx"
    sizes = [pack(path, tmp_path / "m.onnxz", codec=codec).size for codec in (None, *Codec)]
    assert sizes[0] <= 1.002 * min(sizes)  # sizes are estimated before one is chosen


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for threads in (1, 2):
        pack_file(dense(), tmp_path / f"{threads}.onnxz", producer="a test", threads=threads)
    assert (tmp_path / "1.onnxz").read_bytes() == (tmp_path / "2.onnxz").read_bytes()


def test_the_graph_in_a_container_is_an_onnx_model_without_large_tensors(tmp_path: Path) -> None:
    pack(dense(), tmp_path / "m.onnxz")
    with storage.opened(tmp_path / "m.onnxz") as archive:
        proto = onnx.ModelProto.FromString(archive.graph)
        (group,) = archive.manifest.groups
    assert [node.op_type for node in proto.graph.node] == ["MatMul"]
    assert proto.graph.initializer[0].raw_data == b""
    assert group.members == (Member(64 * 40 * 4, ((0, 0),)),)


def test_equal_tensors_are_stored_once(tmp_path: Path) -> None:
    packed = pack(MODELS["branches, constants, one tensor twice"](), tmp_path / "m.onnxz")
    assert sorted(tensor.copies for tensor in packed.tensors) == [1, 2]


def test_shapes_and_types_are_told(tmp_path: Path) -> None:
    (tensor,) = pack(MODELS["int4"](), tmp_path / "m.onnxz").tensors
    assert (tensor.dtype, tensor.shape, tensor.size) == ("INT4", (30, 50), 750)
    assert {t.dtype for t in pack(MODELS["odd data"](), tmp_path / "m.onnxz").tensors} == {"BYTES"}


def test_lengths_with_too_many_bytes_give_an_equal_model(tmp_path: Path) -> None:
    model = dense()
    (graph,) = walk(model).parts
    first, second = model[graph.prefix : graph.start]  # its length gets a byte that it does not need
    long = model[: graph.prefix] + bytes([first, second | 128, 0]) + model[graph.start :]
    assert onnx.ModelProto.FromString(long) == onnx.ModelProto.FromString(model)
    packed = pack(long, tmp_path / "m.onnxz")
    assert not packed.exact
    unpack_file(tmp_path / "m.onnxz", tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == onnx.ModelProto.FromString(model)


def external(folder: Path, *, location: str = "w.bin", tensors: int = 3, gap: int = 64) -> Path:
    """Write a model with external data; between two tensors are some zeros, and one region has two users."""
    rng = np.random.default_rng(0)
    content, initializers = b"", []
    for index in range(tensors):
        array = rng.normal(size=(50, 10 + index)).astype(np.float32)
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(content)), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        content += array.tobytes() + bytes(gap if index + 1 < tensors else 0)
        initializers.append(tensor)
    twin = TensorProto.FromString(initializers[0].SerializeToString())
    twin.name = "twin"
    nodes = [helper.make_node("MatMul", ["x", tensor.name], [f"y{i}"]) for i, tensor in enumerate(initializers)]
    value = helper.make_tensor_value_info
    outputs = [value(f"y{i}", TensorProto.FLOAT, None) for i in range(tensors)]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [2, 50])], outputs, [*initializers, twin])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    (folder / location).parent.mkdir(exist_ok=True)
    (folder / location).write_bytes(content)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("location", ["w.bin", "data/w.bin"])
def test_external_data_comes_back_to_the_byte(location: str, tmp_path: Path) -> None:
    model = external(tmp_path / "a", location=location)
    packed = pack(model, tmp_path / "m.onnxz")
    assert packed.exact
    assert packed.original == model.stat().st_size + (tmp_path / "a" / location).stat().st_size
    (tmp_path / "b").mkdir()
    unpack_file(tmp_path / "m.onnxz", tmp_path / "b" / "m.onnx")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_overlapping_external_tensors(tmp_path: Path) -> None:
    model = external(tmp_path / "a", gap=0)
    proto = onnx.load(model, load_external_data=False)
    proto.graph.initializer[3].external_data[1].value = "1000"  # begins inside of the first one
    model.write_bytes(proto.SerializeToString())
    assert pack(model, tmp_path / "m.onnxz").exact
    (tmp_path / "b").mkdir()
    unpack_file(tmp_path / "m.onnxz", tmp_path / "b" / "m.onnx")
    assert (tmp_path / "b" / "w.bin").read_bytes() == (tmp_path / "a" / "w.bin").read_bytes()


def test_external_data_that_no_tensor_uses_is_not_kept(tmp_path: Path) -> None:
    model = external(tmp_path / "a")
    content = (tmp_path / "a" / "w.bin").read_bytes()
    (tmp_path / "a" / "w.bin").write_bytes(content + b"more")
    packed = pack(model, tmp_path / "m.onnxz")
    assert not packed.exact
    (tmp_path / "b").mkdir()
    unpack_file(tmp_path / "m.onnxz", tmp_path / "b" / "m.onnx")
    assert (tmp_path / "b" / "w.bin").read_bytes() == content


def test_external_data_in_memory(tmp_path: Path) -> None:
    model = external(tmp_path / "a")
    pack(model, tmp_path / "m.onnxz")
    with storage.in_memory(tmp_path / "m.onnxz") as content:
        assert content is not None
        found = onnx.ModelProto.FromString(content)
    expected = onnx.load(model)
    for a, b in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        assert (numpy_helper.to_array(a) == numpy_helper.to_array(b)).all()


def test_a_model_above_the_limit_of_protobuf_is_none_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(dense(), tmp_path / "m.onnxz")
    monkeypatch.setattr("onnxcomp.storage.unpacking._PROTOBUF_LIMIT", 1000)
    with storage.in_memory(tmp_path / "m.onnxz") as content:
        assert content is None


def test_existing_external_data_is_not_replaced_unasked(tmp_path: Path) -> None:
    model = external(tmp_path / "a")
    pack(model, tmp_path / "m.onnxz")
    with pytest.raises(OutputError, match=r"w\.bin exists"):
        unpack_file(tmp_path / "m.onnxz", tmp_path / "a" / "other.onnx", overwrite=False)
    assert files(tmp_path / "a") == ["m.onnx", "w.bin"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"text that is no model", "not an ONNX model"), (bytes(100), "not an ONNX model"),
     (b"\x08\x08", "no graph with an output")],
)  # fmt: skip
def test_what_is_no_model_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        pack(content, tmp_path / "m.onnxz")
    assert files(tmp_path) == []


def test_missing_and_outside_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        pack(tmp_path / "missing.onnx", tmp_path / "m.onnxz")
    model = external(tmp_path / "a", location="w.bin")
    (tmp_path / "a" / "w.bin").write_bytes(bytes(100))
    with pytest.raises(ModelError, match="cut short"):
        pack(model, tmp_path / "m.onnxz")
    (tmp_path / "a" / "w.bin").unlink()
    with pytest.raises(ModelError, match="is missing"):
        pack(model, tmp_path / "m.onnxz")
    with pytest.raises(ModelError, match="in another file"):
        pack(model.read_bytes(), tmp_path / "m.onnxz")


def test_every_cut_of_a_model_is_refused_or_packs(tmp_path: Path) -> None:
    model = dense()
    for size in range(1, len(model), 101):
        with pytest.raises((ModelError, WireError)):
            walk(model[:size])


def test_the_fields_on_the_way_to_tensors_are_those_of_onnx() -> None:
    from onnxcomp.storage import wire

    names = {"ModelProto": "Model", "GraphProto": "Graph", "NodeProto": "Node", "AttributeProto": "Attribute",
             "TensorProto": "Tensor", "SparseTensorProto": "Sparse", "FunctionProto": "Function",
             "TrainingInfoProto": "Training"}  # fmt: skip
    found: dict[str, dict[int, str]] = {}
    for message, name in names.items():
        fields = getattr(onnx, message).DESCRIPTOR.fields
        inner = {f.number: f.message_type.name for f in fields if f.message_type}
        found[name] = {number: names[kind] for number, kind in inner.items() if kind in names}
    assert found == wire._SCHEMA
    numbers = {f.number: f.name for f in onnx.TensorProto.DESCRIPTOR.fields}
    assert {number: numbers[number] for number in wire._DATA} == wire._DATA
