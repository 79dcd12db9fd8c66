"""A small builder of networks, written down in the ways that exporters write them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

__all__ = ["BATCH", "STYLES", "Net", "Style"]

BATCH = 2
Dim = int | tuple[int, int]  # a size, 0 and -1 as Reshape has them, or (axis, n): an n-th of the size of an axis


@dataclass(frozen=True)
class Style:
    """How a network is written down.

    Attributes:
        folded: A BatchNormalization behind a convolution is part of it.
        constants: Weights are in Constant nodes.
        deduplicated: Equal constants are one initializer; norms are as fresh as before training, hence equal.
        dynamic: The batch size is a symbol, and Reshape has 0 and -1.
        chains: Sizes are computed: Shape, Gather, Div, Unsqueeze, Concat; norms are spelled out.
    """

    folded: bool = False
    constants: bool = False
    deduplicated: bool = False
    dynamic: bool = False
    chains: bool = False


STYLES = {
    "plain": Style(),
    "folded": Style(folded=True),
    "constants": Style(constants=True),
    "deduplicated": Style(deduplicated=True),
    "dynamic": Style(dynamic=True),
    "chains": Style(dynamic=True, chains=True),
}


class Net:
    """A network under construction; values are names of tensors.

    Args:
        style: How it is written down.
        share: Of each prunable width, see `wide`.
        scale: By which all widths are multiplied, those of images and classes apart.
    """

    def __init__(self, style: Style = STYLES["plain"], *, share: float = 1.0, scale: int = 1) -> None:
        self.style = style
        self.opset = 13 if style.chains else 17
        self._share, self._scale = share, scale
        self._rng = np.random.default_rng(0)
        self._types: dict[str, onnx.TypeProto] = {}
        self._data: dict[str, onnx.TensorProto] = {}
        self._same: dict[bytes, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[str] = []

    def wide(self, width: int) -> int:
        """Return the share of a width that pruning would leave."""
        return int(width * self._scale * self._share)

    def fixed(self, width: int) -> int:
        """Return a width that pruning must leave alone."""
        return width * self._scale

    def shape(self, x: str) -> tuple[int, ...]:
        return tuple(d.dim_value for d in self._types[x].tensor_type.shape.dim)

    def input(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        """Add an input; the batch size comes in front of the shape."""
        self._types[name] = helper.make_tensor_type_proto(kind, (BATCH, *shape))
        self._inputs.append(name)
        return name

    def const(self, array: Any, name: str = "") -> str:
        """Add a constant; float64 becomes float32."""
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        key = repr((array.shape, array.dtype)).encode() + array.tobytes()
        if self.style.deduplicated and key in self._same:
            return self._same[key]
        name = self._same[key] = name or f"c{len(self._data)}"
        self._data[name] = numpy_helper.from_array(array, name)
        self._types[name] = helper.make_tensor_type_proto(self._data[name].data_type, array.shape)
        if self.style.constants:
            node = helper.make_node("Constant", [], [name], name=f"constant {name}", value=self._data[name])
            self._nodes.append(node)
        return name

    def normal(self, name: str, *shape: int, fan_in: int = 1, gain: float = 1.0, mean: float = 0.0) -> str:
        """Add a random weight."""
        return self.const(mean + self._rng.normal(size=shape) * gain / math.sqrt(fan_in), name)

    def norm_vector(self, name: str, width: int, fresh: float) -> str:
        """Add a vector of a norm: scattered around its value before training, and that value itself in one style."""
        spread = 0.0 if self.style.deduplicated else 0.2
        return self.const(fresh + spread * self._rng.uniform(-1, 1, width), name)

    def outs(
        self, kind: str, *inputs: str, count: int, name: str = "", shape: Any = None, **attributes: Any
    ) -> list[str]:
        """Append a node with several outputs; ``shape`` where it cannot be inferred from constants."""
        name = name or f"{kind.lower()}{len(self._nodes)}"
        outputs = [name if count == 1 else f"{name}.{i}" for i in range(count)]
        node = helper.make_node(kind, inputs, outputs, name=name, **attributes)
        self._nodes.append(node)
        if shape is not None:
            made = TensorProto.FLOAT if kind == "ConstantOfShape" else self._types[inputs[0]].tensor_type.elem_type
            self._types[outputs[0]] = helper.make_tensor_type_proto(made, shape)
            return outputs
        types = {x: self._types[x] for x in inputs if x}
        data = {x: self._data[x] for x in inputs if x in self._data}
        schema = onnx.defs.get_schema(kind, self.opset)
        opsets = [helper.make_opsetid("", self.opset)]
        self._types |= infer_node_outputs(schema, node, types, data, opset_imports=opsets)
        return outputs

    def op(self, kind: str, *inputs: str, name: str = "", shape: Any = None, **attributes: Any) -> str:
        """Append a node with one output, which has the name of the node."""
        return self.outs(kind, *inputs, count=1, name=name, shape=shape, **attributes)[0]

    # --- sizes

    def size(self, x: str, axis: int, over: int = 1) -> str:
        """Append what computes the size of an axis: [1]."""
        shape = self.op("Shape", x)
        size = self.op("Gather", shape, self.const(np.int64(axis)))
        size = self.op("Div", size, self.const(np.int64(over))) if over > 1 else size
        return self.op("Unsqueeze", size, self.const(np.array([0])))

    def sizes(self, x: str, dims: Sequence[Dim]) -> tuple[str, tuple[int, ...]]:
        """Return the value that holds the sizes, and what they are; see `Dim`."""
        shape = self.shape(x)
        real = [shape[i] if d == 0 else shape[d[0]] // d[1] if isinstance(d, tuple) else d for i, d in enumerate(dims)]
        if -1 in real:
            real[real.index(-1)] = math.prod(shape) // -math.prod(real)
        if self.style.chains:
            parts = []
            for i, d in enumerate(dims):
                over = (i, 1) if d == 0 else d
                parts.append(self.size(x, *over) if isinstance(over, tuple) else self.const(np.array([d])))
            return self.op("Concat", *parts, axis=0), tuple(real)
        written = [d if d in (0, -1) else n for d, n in zip(dims, real, strict=True)] if self.style.dynamic else real
        return self.const(np.array(written)), tuple(real)

    def reshape(self, x: str, *dims: Dim) -> str:
        sizes, real = self.sizes(x, dims)
        return self.op("Reshape", x, sizes, shape=real)

    def reshape_like(self, x: str, model: str) -> str:
        """Reshape to the shape of another tensor."""
        shape = self.shape(model)
        if self.style.chains:
            return self.op("Reshape", x, self.op("Shape", model), shape=shape)
        return self.reshape(x, *([0, *shape[1:]] if self.style.dynamic else shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        return self.op("Slice", x, *(self.const(np.array([n])) for n in (start, end, axis, step)))

    def split(self, x: str, *sizes: int, axis: int) -> list[str]:
        return self.outs("Split", x, self.const(np.array(sizes)), count=len(sizes), axis=axis)

    # --- layers

    def conv(
        self, name: str, x: str, out: int, k: int = 3, *, bias: bool = True, stride: int = 1, group: int = 1
    ) -> str:
        into = self.shape(x)[1] // group
        weight = self.normal(f"{name}.weight", out, into, k, k, fan_in=into * k * k, gain=1.4)
        inputs = [x, weight, *([self.normal(f"{name}.bias", out, gain=0.1)] if bias else [])]
        pads = [k // 2 if k % 2 else 0] * 4
        return self.op("Conv", *inputs, name=name, kernel_shape=[k, k], strides=[stride] * 2, pads=pads, group=group)

    def batch_norm(self, name: str, x: str) -> str:
        width = self.shape(x)[1]
        vectors = {"weight": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
        return self.op(
            "BatchNormalization", x, *(self.norm_vector(f"{name}.{k}", width, v) for k, v in vectors.items()), name=name
        )

    def conv_bn(self, name: str, x: str, out: int, k: int = 3, *, act: str = "Relu", **options: Any) -> str:
        """Convolution, BatchNormalization and activation ("" for none)."""
        y = self.conv(name, x, out, k, bias=self.style.folded, **options)
        y = y if self.style.folded else self.batch_norm(f"{name}.bn", y)
        return self.act(act, y)

    def depthwise(self, name: str, x: str, k: int = 3, *, stride: int = 1, act: str = "Relu") -> str:
        width = self.shape(x)[1]
        return self.conv_bn(name, x, width, k, stride=stride, group=width, act=act)

    def act(self, kind: str, x: str) -> str:
        if kind == "Relu6":
            return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))
        if kind == "Silu":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "Gelu":
            erf = self.op("Erf", self.op("Div", x, self.const(np.float32(math.sqrt(2)))))
            twice = self.op("Mul", x, self.op("Add", erf, self.const(np.float32(1))))
            return self.op("Mul", twice, self.const(np.float32(0.5)))
        return self.op(kind, x) if kind else x

    def linear(self, name: str, x: str, out: int, *, bias: bool = True) -> str:
        """Gemm on rows, MatMul and Add on what has more axes."""
        *_, into = shape = self.shape(x)
        vector = self.normal(f"{name}.bias", out, gain=0.1) if bias else ""
        if len(shape) == 2:
            weight = self.normal(f"{name}.weight", out, into, fan_in=into, gain=1.2)
            return self.op("Gemm", x, weight, *filter(None, [vector]), name=name, transB=1)
        y = self.op("MatMul", x, self.normal(f"{name}.weight", into, out, fan_in=into, gain=1.2), name=name)
        return self.op("Add", vector, y, name=f"{name}.add") if bias else y

    def mean(self, x: str, *axes: int, keep: int = 1) -> str:
        return self.op("ReduceMean", x, axes=axes, keepdims=keep)

    def layer_norm(self, name: str, x: str) -> str:
        """LayerNormalization over the last axis; spelled out before opset 17."""
        width = self.shape(x)[-1]
        weight, bias = self.norm_vector(f"{name}.weight", width, 1.0), self.norm_vector(f"{name}.bias", width, 0.0)
        if self.opset >= 17:
            return self.op("LayerNormalization", x, weight, bias, name=name, axis=-1, epsilon=1e-5)
        centred = self.op("Sub", x, self.mean(x, -1))
        variance = self.mean(self.op("Pow", centred, self.const(np.float32(2))), -1)
        deviation = self.op("Sqrt", self.op("Add", variance, self.const(np.float32(1e-5))))
        return self.op("Add", self.op("Mul", self.op("Div", centred, deviation), weight), bias, name=name)

    def rms_norm(self, name: str, x: str) -> str:
        """Root mean square norm over the last axis, spelled out."""
        square = self.mean(self.op("Pow", x, self.const(np.float32(2))), -1)
        root = self.op("Sqrt", self.op("Add", square, self.const(np.float32(1e-6))))
        weight = self.norm_vector(f"{name}.weight", self.shape(x)[-1], 1.0)
        return self.op("Mul", weight, self.op("Mul", x, self.op("Reciprocal", root)), name=name)

    def group_norm(self, name: str, x: str, groups: int) -> str:
        """Group norm by InstanceNormalization of reshaped channels."""
        width = self.shape(x)[1]
        rows = self.reshape(x, 0, groups, -1)
        ones, zeros = (self.const(np.full(groups, v), f"{name}.{v}") for v in (1.0, 0.0))
        y = self.reshape_like(self.op("InstanceNormalization", rows, ones, zeros, epsilon=1e-5), x)
        weight, bias = (
            self.const(np.reshape(fresh + 0.2 * self._rng.uniform(-1, 1, width), (width, 1, 1)), f"{name}.{kind}")
            for kind, fresh in (("weight", 1.0), ("bias", 0.0))
        )
        return self.op("Add", self.op("Mul", y, weight), bias, name=name)

    def attention(self, name: str, q: str, k: str, v: str, *, bias: str = "") -> str:
        """Attend: q, k, v [B, heads, N, d] to [B, N, heads * d]; ``bias`` is added to the scores."""
        scores = self.op("MatMul", q, self.transpose(k, 0, 1, 3, 2), name=f"{name}.scores")
        if self.style.chains:  # the scale is computed: a size that is used as a value
            size = self.op(
                "Cast", self.op("Gather", self.op("Shape", q), self.const(np.int64(3))), to=TensorProto.FLOAT
            )
            scores = self.op("Div", scores, self.op("Sqrt", size))
        else:
            scores = self.op("Mul", scores, self.const(np.float32(self.shape(q)[3] ** -0.5)))
        scores = self.op("Add", scores, bias) if bias else scores
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v, name=f"{name}.mixed")
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), 0, 0, -1)

    def flat(self, x: str) -> str:
        return self.reshape(x, 0, -1) if self.style.chains else self.op("Flatten", x, axis=1)

    def classify(self, name: str, x: str, classes: int = 10) -> onnx.ModelProto:
        """Average an image and classify it."""
        return self.model(self.linear(name, self.flat(self.op("GlobalAveragePool", x)), classes))

    def model(self, *outputs: str) -> onnx.ModelProto:
        def info(name: str) -> onnx.ValueInfoProto:
            kind = self._types[name].tensor_type.elem_type
            shape: list[int | str] = list(self.shape(name))
            if self.style.dynamic:
                shape[shape.index(BATCH)] = "batch"
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            self._nodes,
            "net",
            [info(name) for name in self._inputs],
            [info(name) for name in outputs],
            [] if self.style.constants else list(self._data.values()),
        )
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", self.opset)])
