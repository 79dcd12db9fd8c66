from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcomp.claims import check_nodes, check_tensors
from onnxcomp.errors import ModelError

GRAPH = "g (float[3] x) => (float[3] y) { y = Add(x, w) }"
Parse = Callable[..., onnx.ModelProto]


@pytest.fixture
def proto(parse: Parse) -> onnx.ModelProto:
    return parse(GRAPH, {"w": np.float32([1, 2, 3])})


TENSORS: dict[str, tuple[TensorProto, str]] = {
    "petabytes": (TensorProto(name="t", data_type=1, dims=[2**40, 2**20], raw_data=b"1234"), r"needs \d+ bytes, and"),
    "negative": (TensorProto(name="t", data_type=1, dims=[-3], raw_data=bytes(12)), r"the dimensions \[-3\]"),
    "bytes missing": (TensorProto(name="t", data_type=1, dims=[3], raw_data=bytes(11)), "needs 12 bytes, and has 11"),
    "bytes too many": (TensorProto(name="t", data_type=1, dims=[3], raw_data=bytes(13)), "needs 12 bytes, and has 13"),
    "half a byte": (TensorProto(name="t", data_type=22, dims=[3], raw_data=bytes(1)), "needs 2 bytes, and has 1"),
    "values missing": (TensorProto(name="t", data_type=1, dims=[9], float_data=[1.0]), "holds too few values"),
    "nothing": (TensorProto(name="t", data_type=1, dims=[1]), "holds too few values"),
    "texts missing": (TensorProto(name="t", data_type=8, dims=[9], string_data=[b"a"]), "holds too few values"),
    "type": (TensorProto(name="t", data_type=99, dims=[1], raw_data=b"1"), "the data type 99, which is not known"),
    "no type": (TensorProto(name="t", dims=[1], raw_data=b"1"), "the data type 0, which is not known"),
}


def places(proto: onnx.ModelProto, tensor: TensorProto) -> list[onnx.ModelProto]:
    """Put a tensor into each place where a model can have one."""
    found = [onnx.ModelProto.FromString(proto.SerializeToString()) for _ in range(5)]
    found[0].graph.initializer.append(tensor)
    found[1].graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    body = helper.make_graph([], "body", [], [], initializer=[tensor])
    found[2].graph.node.append(helper.make_node("If", ["x"], [], then_branch=body))
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    found[3].functions.append(helper.make_function("own", "F", [], ["c"], [constant], []))
    sparse = onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    found[4].graph.sparse_initializer.append(sparse)
    return found


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_what_they_claim(proto: onnx.ModelProto, name: str) -> None:
    tensor, says = TENSORS[name]
    for model in places(proto, tensor):
        with pytest.raises(ModelError, match=says):
            check_tensors(model, "m.onnx", None)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.COMPLEX64, TensorProto.INT4, TensorProto.BFLOAT16,
                                  TensorProto.FLOAT8E4M3FN, TensorProto.BOOL, TensorProto.UINT64])  # fmt: skip
@pytest.mark.parametrize("values", [0, 1, 5])
def test_tensors_that_are(proto: onnx.ModelProto, kind: int, values: int) -> None:
    for tensor in (
        helper.make_tensor("t", kind, [values], [1] * values),
        numpy_helper.from_array(np.ones(values, helper.tensor_dtype_to_np_dtype(kind)), "t"),
        helper.make_tensor("t", TensorProto.STRING, [values], [b"a"] * values),
    ):
        for model in places(proto, tensor):
            assert check_tensors(model, "m.onnx", None) == {}


@pytest.mark.parametrize("length", ["8", "11"])
def test_external_data_shorter_than_its_tensor(proto: onnx.ModelProto, tmp_path: Path, length: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "length": length}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "w.bin").write_bytes(bytes(12))
    with pytest.raises(ModelError, match=f"tensor w needs 12 bytes, its external data has {length}"):
        check_tensors(proto, "m.onnx", tmp_path)
    tensor.external_data[1].value = "12"
    assert check_tensors(proto, "m.onnx", tmp_path) == {"w.bin": 12}


@pytest.mark.parametrize("location", ["\0", "a" * 5000, "ring"])
def test_external_data_at_impossible_places(proto: onnx.ModelProto, tmp_path: Path, location: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    with pytest.raises(ModelError, match=r"lies outside the model's folder|is missing"):
        check_tensors(proto, "m.onnx", tmp_path)


def test_references_outside_of_functions(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="value", ref_attr_name="outer", type=onnx.AttributeProto.TENSOR)
    function = helper.make_function("own", "F", [], ["c"], [node], [], attributes=["outer"])
    proto.functions.append(function)
    check_nodes(proto, "m.onnx")
    body = helper.make_graph([node], "body", [], [])
    proto.graph.node.append(helper.make_node("If", ["x"], [], then_branch=body))
    with pytest.raises(ModelError, match="node Constant takes value from a function, and is in none"):
        check_nodes(proto, "m.onnx")


def test_a_split_of_too_many(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Split", ["x"], ["a", "b"], num_outputs=2))
    check_nodes(proto, "m.onnx")
    proto.graph.node.append(helper.make_node("Split", ["x"], ["c"], num_outputs=2**40))
    with pytest.raises(ModelError, match="node Split claims 1099511627776 outputs, and has 1"):
        check_nodes(proto, "m.onnx")
