from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxcomp.errors import ModelError
from onnxcomp.model import load, open_session, save
from onnxcomp.protos import from_proto, to_proto

X = np.array([[1, 2], [3, 4]], np.float32)


def zipmap(**classes: list[object]) -> onnx.ModelProto:
    """Scores [N, 2] as one map per row."""
    key = onnx.TensorProto.STRING if "classlabels_strings" in classes else onnx.TensorProto.INT64
    number = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, number))
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("ZipMap", ["a"], ["y"], domain="ai.onnx.ml", **classes),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_value_info("y", maps)])
    graph.value_info.append(helper.make_value_info("y", maps))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("classes", "answer"),
    [
        ({"classlabels_int64s": [7, 9]}, [{7: 1, 9: 2}, {7: 3, 9: 4}]),
        ({"classlabels_strings": ["cat", "dog"]}, [{"cat": 1, "dog": 2}, {"cat": 3, "dog": 4}]),
    ],
)
def test_maps_keep_their_types(
    classes: dict[str, list[object]], answer: list[dict[object, float]], tmp_path: Path
) -> None:
    proto = zipmap(**classes)
    wanted = proto.graph.output[0].type
    model = load(proto.SerializeToString())
    assert to_proto(model.clone()).graph.output[0].type == wanted
    save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert open_session(load(tmp_path / "model.onnx")).run({"x": X})["y"] == answer


def test_an_input_that_is_a_map_is_refused() -> None:
    proto = zipmap(classlabels_int64s=[0, 1])
    maps = proto.graph.output[0].type.sequence_type.elem_type
    proto.graph.input.append(helper.make_value_info("m", maps))
    with pytest.raises(ModelError, match="the input m is a map"):
        load(proto.SerializeToString())


def test_other_messages_go_through_unchanged() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (seq(float[N]) y) { y = SequenceConstruct(x, x) }'
    proto = onnx.parser.parse_model(text)
    again = to_proto(from_proto(proto)).graph
    assert list(again.output) == list(proto.graph.output)
    assert list(again.input) == list(proto.graph.input)
