"""Between ONNX's messages and ``ir.Model``, which has no map types: what ZipMap makes goes through without its type."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxcomp.errors import ModelError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["from_proto", "to_proto"]


def from_proto(proto: "onnx.ModelProto") -> "ir.Model":
    """Read a message; values that are maps, or sequences of maps, get no type.

    Raises:
        ModelError: An input is a map.
    """
    import onnx_ir as ir

    for value in proto.graph.input:
        if _is_map(value.type):
            raise ModelError(
                f"the input {value.name} is a map, which is not supported",
                hint="export the model without DictVectorizer, so that it takes a tensor",
            )
    for value in _typed_as_maps(proto):
        value.ClearField("type")
    model: ir.Model = ir.from_proto(proto)
    return model


def to_proto(model: "ir.Model") -> "onnx.ModelProto":
    """Write a message; the outputs of ZipMap get their types back."""
    import onnx
    import onnx_ir as ir

    proto: onnx.ModelProto = ir.to_proto(model)
    for output, value in zip(proto.graph.output, model.graph.outputs, strict=True):
        node = value.producer()
        if value.type is None and node is not None and node.op_type == "ZipMap":
            key = onnx.TensorProto.STRING if "classlabels_strings" in node.attributes else onnx.TensorProto.INT64
            number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
            maps = onnx.helper.make_map_type_proto(key, number)
            output.type.CopyFrom(onnx.helper.make_sequence_type_proto(maps))
    return proto


def _typed_as_maps(proto: "onnx.ModelProto") -> "Iterator[onnx.ValueInfoProto]":
    for value in (*proto.graph.output, *proto.graph.value_info):
        if _is_map(value.type):
            yield value


def _is_map(kind: "onnx.TypeProto") -> bool:
    while kind.HasField("sequence_type") or kind.HasField("optional_type"):
        kind = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind.optional_type.elem_type
    return bool(kind.HasField("map_type"))
