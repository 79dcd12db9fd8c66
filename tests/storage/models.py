"""Models with every kind of tensor and place, as bytes."""

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

__all__ = ["MODELS", "dense", "scan"]


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def _model(text: str, *tensors: TensorProto, **weights: np.ndarray) -> bytes:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    proto.graph.initializer.extend(tensors)
    return bytes(proto.SerializeToString())


def dense() -> bytes:
    return _model("g (float[N, 64] x) => (float[N, 40] y) { y = MatMul(x, w) }", w=_normal(64, 40))


def _typed(kind: int, shape: tuple[int, ...] = (30, 50)) -> bytes:
    """A model that holds a tensor of a type in its raw form."""
    array = numpy_helper.to_array(helper.make_tensor("w", kind, [2], [1, 0]))
    values = (np.random.default_rng(kind).normal(size=int(np.prod(shape))) * 3).astype(np.int64)
    wide = np.abs(values) if kind in (TensorProto.UINT8, TensorProto.UINT4, TensorProto.BOOL) else values
    tensor = numpy_helper.from_array(wide.astype(np.float32).astype(array.dtype).reshape(shape), "w")
    return _model("g (float[N] x) => (float[N] y) { y = Relu(x) }", tensor)


def _field(kind: int, values: list[float]) -> bytes:
    """A model whose tensor is in a typed field."""
    return _model(
        "g (float[N] x) => (float[N] y) { y = Relu(x) }", helper.make_tensor("w", kind, [len(values)], values)
    )


def _branches() -> bytes:
    text = """g (bool c, float[N, 40] x) => (float[N, 40] y) {
        k = Constant () y = If (c) <
            then_branch = t () => (float[N, 40] p) { p = MatMul(x, w) },
            else_branch = e () => (float[N, 40] q) { big = Constant () q = MatMul(x, big) }
        >
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for graph, value in ((proto.graph, _normal(99, 3)), (proto.graph.node[1].attribute[1].g, _normal(40, 40))):
        graph.node[0].attribute.append(helper.make_attribute("value", numpy_helper.from_array(value, "same name")))
    proto.graph.node[1].attribute[0].g.initializer.append(numpy_helper.from_array(_normal(40, 40), "w"))
    return bytes(proto.SerializeToString())


def _sparse() -> bytes:
    proto = onnx.ModelProto.FromString(dense())
    sparse = proto.graph.sparse_initializer.add(dims=[100, 100])
    sparse.values.CopyFrom(numpy_helper.from_array(_normal(700), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(700, dtype=np.int64) * 13, "i"))
    return bytes(proto.SerializeToString())


def _function() -> bytes:
    proto = onnx.ModelProto.FromString(dense())
    node = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(_normal(500), "v"))
    proto.functions.append(helper.make_function("own", "F", [], ["b"], [node], [helper.make_opsetid("", 21)]))
    proto.metadata_props.add(key="made by", value="a test")
    return bytes(proto.SerializeToString())


def _mostly_zero() -> bytes:
    weight = _normal(64, 40)
    weight[np.random.default_rng(0).random((64, 40)) < 0.9] = 0
    return _model("g (float[N, 64] x) => (float[N, 40] y) { y = MatMul(x, w) }", w=weight)


def _odd_data() -> bytes:
    """Tensors that contradict themselves, or say things twice: they are bytes to us."""
    wrong = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10], raw_data=bytes(range(256)) * 4)
    unknown = TensorProto(name="u", data_type=77, dims=[256], raw_data=bytes(range(256)) * 4)
    return _model("g (float[N] x) => (float[N] y) { y = Relu(x) }", wrong, unknown) + wrong_twice()


def wrong_twice() -> bytes:
    """A second graph field, which protobuf merges into the first; its tensor has its data twice."""
    tensor = TensorProto(name="t", data_type=1, dims=[200], raw_data=bytes(800)).SerializeToString()
    graph = b"\x2a" + _length(2 * len(tensor)) + 2 * tensor
    return b"\x3a" + _length(len(graph)) + graph


def _length(size: int) -> bytes:
    return bytes([size & 127 | 128, size >> 7])


_KINDS = ("FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL", "INT4", "UINT4",
          "FLOAT8E4M3FN", "COMPLEX64")  # fmt: skip
MODELS: dict[str, Callable[[], bytes]] = {
    "dense": dense,
    **{name.lower(): partial(_typed, getattr(TensorProto, name)) for name in _KINDS},
    "odd number of int4": lambda: _typed(TensorProto.INT4, (1501,)),
    "float_data": lambda: _field(TensorProto.FLOAT, _normal(700).tolist()),
    "double_data": lambda: _field(TensorProto.DOUBLE, _normal(700).tolist()),
    "int32_data": lambda: _field(TensorProto.INT8, [n % 9 - 4 for n in range(1000)]),
    "int64_data": lambda: _field(TensorProto.INT64, [n * n for n in range(1000)]),
    "strings": lambda: _model(
        "g (float[N] x) => (float[N] y) { y = Relu(x) }",
        helper.make_tensor("w", TensorProto.STRING, [300], [b"text"] * 300),
    ),
    "branches, constants, one tensor twice": _branches,
    "sparse initializer": _sparse,
    "function and metadata": _function,
    "mostly zero": _mostly_zero,
    "all zero": lambda: _model("g (float[N, 64] x) => (float[N, 40] y) { y = MatMul(x, w) }", w=_normal(64, 40) * 0),
    "NaN and negative zero": lambda: _model(
        "g (float[N] x) => (float[N] y) { y = Relu(x) }",
        w=np.tile(np.array([np.nan, -0.0, 0.0, np.inf], np.float32), 99),
    ),
    "no large tensor": lambda: _model("g (float[N] x) => (float[N] y) { y = Relu(x) }"),
    "odd data": _odd_data,
}


def scan() -> bytes:
    """A model whose body of a loop holds weights."""
    text = """g (float[4, 40] x) => (float[40] y, float[4, 40] s) {
        start = Constant <value = float[1] {0.0}> ()
        size = Constant <value = int64[1] {40}> ()
        initial = Expand(start, size)
        y, s = Scan <num_scan_inputs = 1, body = b (float[40] sum, float[40] row) => (float[40] next, float[40] out) {
            moved = MatMul(row, w) next = Add(sum, moved) out = Identity(next)
        }> (initial, x)
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    body = next(a.g for a in proto.graph.node[3].attribute if a.name == "body")
    body.initializer.append(numpy_helper.from_array(_normal(40, 40), "w"))
    return bytes(proto.SerializeToString())


MODELS["body of a loop"] = scan
