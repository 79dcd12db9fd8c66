import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcomp import model as model_module
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.facts import opset
from onnxcomp.model import (
    infer_shapes,
    is_one_file,
    load,
    open_session,
    save,
    serialized,
    size,
    upgrade_opset,
)
from onnxcomp.runtime import Session, limits

Parse = Callable[..., onnx.ModelProto]
LINEAR = "g (float[N, 64] x) => (float[N, 32] y) { y = MatMul(x, w) }"
WEIGHT = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
FEED = {"x": np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)}


@pytest.fixture
def proto(parse: Parse) -> onnx.ModelProto:
    return parse(LINEAR, {"w": WEIGHT})


@pytest.fixture
def external(proto: onnx.ModelProto, tmp_path: Path) -> Path:
    """A model whose weight lies in ``w.bin`` beside it."""
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    onnx.save_model(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def relocate(path: Path, **entries: str) -> None:
    """Change what a model says about its external data."""
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())


def hashes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def output(model: ir.Model, feed: dict[str, np.ndarray] | None = None) -> np.ndarray:
    result = next(iter(open_session(model, optimize=False).run(FEED if feed is None else feed).values()))
    assert isinstance(result, np.ndarray)
    return result


class TestLoad:
    def test_every_kind_of_source(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        before = hashes(tmp_path)
        first = load(path)
        for source in (path, str(path), path.read_bytes(), first):
            np.testing.assert_allclose(output(load(source)), FEED["x"] @ WEIGHT, rtol=1e-4, atol=1e-5)
        assert hashes(tmp_path) == before

    def test_a_model_in_memory_is_copied(self, proto: onnx.ModelProto) -> None:
        first = ir.from_proto(proto)
        second = load(first)
        second.graph.node(0).name = "changed"
        assert first.graph.node(0).name != "changed"

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "is empty"),
            (b"this is no model at all", "not an ONNX model"),
            (numpy_helper.from_array(np.ones(4), "t").SerializeToString(), "not an ONNX model"),
            (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph with an output"),
            (bytes(4096), "not an ONNX model"),
        ],
        ids=["empty", "text", "a tensor", "no graph", "zeros"],
    )
    def test_what_is_no_model(self, content: bytes, match: str, tmp_path: Path) -> None:
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=match) as caught:
            load(path)
        assert "bad.onnx" in str(caught.value)
        with pytest.raises(ModelError, match=match):
            load(content)

    def test_paths_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"missing\.onnx: No such file"):
            load(tmp_path / "missing.onnx")
        with pytest.raises(UsageError, match="directory"):
            load(tmp_path)
        for name in ("n" * 300 + ".onnx", "a\0b"):
            with pytest.raises(UsageError, match="cannot read"):
                load(tmp_path / name)

    @pytest.mark.skipif(sys.platform == "win32", reason="makes a named pipe")
    def test_only_a_regular_file_is_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.onnx")
        with pytest.raises(UsageError, match="not a regular file"):
            load(tmp_path / "pipe.onnx")

    def test_nodes_in_any_order(self, parse: Parse) -> None:
        model = load(parse("g (float[2] x) => (float[2] y) { y = Neg(a) a = Relu(x) }").SerializeToString())
        assert [node.op_type for node in model.graph] == ["Relu", "Neg"]
        assert load(model.clone())

    def test_a_cycle(self, parse: Parse) -> None:
        with pytest.raises(ModelError, match="cycle"):
            load(parse("g (float[2] x) => (float[2] y) { y = Neg(a) a = Add(x, y) }").SerializeToString())

    def test_every_truncation(self, proto: onnx.ModelProto) -> None:
        content = proto.SerializeToString()
        for end in [*range(1, 200, 7), len(content) // 2, len(content) - 1]:
            with pytest.raises(ModelError):
                load(content[:end])

    def test_no_outputs(self, proto: onnx.ModelProto) -> None:
        del proto.graph.output[:]
        with pytest.raises(ModelError, match="no graph with an output"):
            load(proto.SerializeToString())

    def test_versions_newer_than_the_runtime(self, proto: onnx.ModelProto) -> None:
        proto.ir_version = limits().ir_version + 1
        assert load(proto.SerializeToString()).ir_version == limits().ir_version
        proto.opset_import[0].version = limits().opset + 1
        with pytest.raises(ModelError, match=f"opset {limits().opset + 1}") as caught:
            load(proto.SerializeToString())
        assert "upgrade onnxruntime" in str(caught.value.hint)

    def test_what_onnxruntime_refuses(self, parse: Parse) -> None:
        with pytest.raises(ModelError, match="NoSuchOp"):
            load(parse("g (float[1] x) => (float[1] y) { y = NoSuchOp(x) }").SerializeToString())


class TestExternalData:
    def test_present(self, external: Path) -> None:
        before = hashes(external.parent)
        model = load(external)
        np.testing.assert_allclose(output(model), FEED["x"] @ WEIGHT, rtol=1e-4, atol=1e-5)
        assert hashes(external.parent) == before
        assert not is_one_file(model)
        assert is_one_file(load(serialized(model)))

    def test_is_read_at_load(self, external: Path) -> None:
        model = load(external)
        (external.parent / "w.bin").unlink()
        assert serialized(model)

    def test_missing(self, external: Path) -> None:
        (external.parent / "w.bin").unlink()
        with pytest.raises(ModelError, match=r"w\.bin is missing"):
            load(external)

    def test_a_folder_in_its_place(self, external: Path) -> None:
        (external.parent / "w.bin").unlink()
        (external.parent / "w.bin").mkdir()
        with pytest.raises(ModelError, match="missing"):
            load(external)

    def test_cut_short(self, external: Path) -> None:
        data = external.parent / "w.bin"
        data.write_bytes(data.read_bytes()[:-1])
        with pytest.raises(ModelError, match="cut short"):
            load(external)
        relocate(external, length="4")
        with pytest.raises(ModelError, match="cut short"):
            load(external)

    @pytest.mark.parametrize("length", ["-4", "999999999999", "many"])
    def test_a_length_that_does_not_fit(self, external: Path, length: str) -> None:
        relocate(external, length=length)
        with pytest.raises(ModelError):
            load(external)

    @pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "", "."])
    def test_outside_the_folder(self, external: Path, location: str) -> None:
        (external.parent / "w.bin").rename(external.parents[1] / "w.bin")
        relocate(external, location=location)
        with pytest.raises(ModelError, match=r"outside|missing"):
            load(external)

    def test_absolute(self, external: Path) -> None:
        relocate(external, location=str(external.parent / "w.bin"))
        with pytest.raises(ModelError, match="outside"):
            load(external)

    def test_a_link_that_leads_outside(self, external: Path) -> None:
        data = external.parent / "w.bin"
        data.rename(external.parents[1] / "secret")
        data.symlink_to(external.parents[1] / "secret")
        with pytest.raises(ModelError, match="outside"):
            load(external)

    def test_bytes_cannot_have_any(self, external: Path) -> None:
        with pytest.raises(ModelError, match="another file") as caught:
            load(external.read_bytes())
        assert caught.value.hint == "give a path"


class TestSave:
    def test_round_trip(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        model = load(proto.SerializeToString())
        path = tmp_path / "m.onnx"
        path.write_bytes(b"old")
        save(model, path)
        assert path.stat().st_size == size(model)
        assert path.read_bytes() == serialized(model)
        np.testing.assert_array_equal(output(load(path)), output(model))
        assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


class TestTooLargeForProtobuf:
    @pytest.fixture(autouse=True)
    def small_limit(self, proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_module, "_PROTOBUF_LIMIT", 4000)

    def test_weights_go_beside_the_model(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        model = ir.from_proto(proto)
        path = tmp_path / "m.onnx"
        save(model, path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.1.data"]
        assert path.stat().st_size < 1000
        assert (tmp_path / "m.onnx.1.data").stat().st_size == WEIGHT.nbytes
        np.testing.assert_allclose(Session(path).run(FEED)["y"], FEED["x"] @ WEIGHT, rtol=1e-4, atol=1e-5)

    def test_loading_runs_it_from_disk(self, external: Path, tmp_path: Path) -> None:
        model = load(external)
        np.testing.assert_allclose(output(model), FEED["x"] @ WEIGHT, rtol=1e-4, atol=1e-5)
        assert abs(size(model) - sum(p.stat().st_size for p in external.parent.iterdir())) < 100
        save(model, tmp_path / "again.onnx")
        np.testing.assert_array_equal(output(load(tmp_path / "again.onnx")), output(model))

    def test_can_replace_itself(self, external: Path) -> None:
        model = load(external)
        expected = output(model)
        save(model, external)
        save(load(external), external)
        np.testing.assert_array_equal(output(load(external)), expected)

    def test_the_tensors_that_it_was_loaded_from_stay(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        save(ir.from_proto(proto), path)
        copy = path.rename(tmp_path / "copy.onnx")  # it still points to m.onnx.1.data
        model = load(copy)
        save(model.clone(), path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.onnx", "m.onnx", "m.onnx.1.data", "m.onnx.2.data"]
        np.testing.assert_array_equal(output(load(copy)), output(load(path)))

    def test_data_of_others_stays(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        others = ["m.onnx.data", "m.onnx.x.data", "mm.onnx.1.data", "m.onnx.1.data.old"]
        for name in others:
            (tmp_path / name).write_bytes(b"precious")
        save(ir.from_proto(proto), tmp_path / "m.onnx")
        save(ir.from_proto(proto), tmp_path / "m.onnx")
        assert all((tmp_path / name).read_bytes() == b"precious" for name in others)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "m.onnx", "m.onnx.2.data"])

    def test_cannot_be_one_message(self, proto: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match="too large"):
            serialized(ir.from_proto(proto))

    def test_shapes_stay_as_they_were(self, proto: onnx.ModelProto) -> None:
        infer_shapes(ir.from_proto(proto))  # must not raise


def rng_feed(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).normal(size=shape).astype(np.float32)}


OLD_MODELS = {
    # name: (opset, text, shape); operators whose attributes became inputs, or whose meaning changed
    "squeeze": (11, "g (float[2, 1, 3] x) => (float[2, 3] y) { y = Squeeze <axes = [1]> (x) }", (2, 1, 3)),
    "unsqueeze": (7, "g (float[2, 3] x) => (float[2, 1, 3] y) { y = Unsqueeze <axes = [1]> (x) }", (2, 3)),
    "softmax": (11, "g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }", (2, 3, 4)),
    "reduce sum": (9, "g (float[2, 3] x) => (float[2] y) { y = ReduceSum <axes = [1], keepdims = 0> (x) }", (2, 3)),
    "clip": (9, "g (float[2, 3] x) => (float[2, 3] y) { y = Clip <min = -0.5, max = 0.5> (x) }", (2, 3)),
    "slice": (9, "g (float[5, 3] x) => (float[2, 3] y) { y = Slice <starts = [1], ends = [3]> (x) }", (5, 3)),
    "dropout": (7, "g (float[2, 3] x) => (float[2, 3] y) { d = Dropout <ratio = 0.4> (x) y = Neg(d) }", (2, 3)),
    "split": (
        11,
        "g (float[2, 5] x) => (float[2, 3] y) { y, z = Split <axis = 1, split = [3, 2]> (x) }",
        (2, 5),
    ),
}  # fmt: skip


class TestUpgradeOpset:
    @pytest.mark.parametrize("name", OLD_MODELS)
    def test_the_answers_stay(self, parse: Parse, name: str) -> None:
        version, text, shape = OLD_MODELS[name]
        model = load(parse(text, opset=version).SerializeToString())
        expected = output(model, rng_feed(shape))
        assert upgrade_opset(model, 13) is True
        assert opset(model) == 13
        model = load(serialized(model))
        np.testing.assert_allclose(output(model, rng_feed(shape)), expected, rtol=1e-6)

    def test_weights_and_metadata_stay(self, parse: Parse) -> None:
        proto = parse(LINEAR, {"w": WEIGHT}, opset=9)
        proto.metadata_props.add(key="note", value="kept")
        model = load(proto.SerializeToString())
        assert upgrade_opset(model, 13)
        assert model.metadata_props["note"] == "kept"
        np.testing.assert_allclose(output(model), FEED["x"] @ WEIGHT, rtol=1e-4, atol=1e-5)

    def test_new_enough_is_left_alone(self, proto: onnx.ModelProto) -> None:
        model = load(proto.SerializeToString())
        before = serialized(model)
        assert upgrade_opset(model, 13) is False
        assert upgrade_opset(model, 17) is False
        assert serialized(model) == before

    def test_a_version_without_a_way_there(self, proto: onnx.ModelProto) -> None:
        model = load(proto.SerializeToString())
        before = serialized(model)
        with pytest.raises(ModelError, match="cannot convert opset 17 to 999"):
            upgrade_opset(model, 999)
        assert serialized(model) == before

    def test_functions_are_not_converted(self, proto: onnx.ModelProto) -> None:
        imports = [helper.make_opsetid("", 9)]
        body = [helper.make_node("Neg", ["a"], ["b"])]
        proto.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, imports))
        proto.opset_import[0].version = 9
        model = ir.from_proto(proto)
        before = serialized(model)
        with pytest.raises(ModelError, match="functions"):
            upgrade_opset(model, 13)
        assert serialized(model) == before


class TestInferShapes:
    def test_fills_in_what_is_missing(self, parse: Parse) -> None:
        text = "g (float[2, 64] x) => (float[2, 4, 8] y) { a = MatMul(x, w) b = Relu(a) y = Reshape(b, s) }"
        model = load(parse(text, {"w": WEIGHT, "s": np.array([2, 4, 8])}).SerializeToString())
        infer_shapes(model)
        for node in model.graph:
            assert node.outputs[0].dtype == ir.DataType.FLOAT
        assert model.graph.node(0).outputs[0].shape == (2, 32)

    def test_inside_branches(self, parse: Parse) -> None:
        """Branches may use the same names for tensors of other types."""
        text = """g (bool c, float[3] x) => (float[3] y) {
            y = If (c) <
                then_branch = t () => (float[3] p) { a = Cast <to = 7> (x) p = Cast <to = 1> (a) },
                else_branch = e () => (float[3] q) { a = Relu(x) q = Neg(a) }
            >
        }"""
        model = load(parse(text).SerializeToString())
        infer_shapes(model)
        types = [node.outputs[0].dtype for node in model.graph.all_nodes() if node.outputs[0].name == "a"]
        assert types == [ir.DataType.INT64, ir.DataType.FLOAT]
        load(serialized(model))

    def test_claims_about_values_in_between_may_be_wrong(self, parse: Parse) -> None:
        """The inputs take any batch, and what an earlier export with a batch of one noted is still there."""
        proto = parse("g (float[n, 4] x) => (float[n, 4] y) { a = Relu(x) b = com.microsoft.Gelu(a) y = Neg(b) }")
        for name in ("a", "b"):
            proto.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]))
        model = load(proto.SerializeToString())
        infer_shapes(model)
        first, custom, _ = (node.outputs[0] for node in model.graph)
        assert str(first.shape) == "[n,4]"
        assert custom.shape == (1, 4)  # nothing else is known of it

    def test_operators_of_other_domains(self, parse: Parse) -> None:
        text = "g (float[2] x) => (float[2] y) { a = com.microsoft.Gelu(x) y = Neg(a) }"
        model = load(parse(text).SerializeToString())
        infer_shapes(model)
        assert load(serialized(model))


@pytest.mark.parametrize("source", [3, None, bytearray(b"x"), onnx.ModelProto()])
def test_sources_of_another_type(source: object) -> None:
    with pytest.raises(UsageError, match=type(source).__name__) as caught:
        load(source)  # type: ignore[arg-type]
    assert "SerializeToString" in str(caught.value.hint)
