"""Random small networks for property tests of quantization: 1-D to 3-D images through layers of many kinds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Network", "networks"]

_CHANNELS = st.sampled_from([2, 4, 6])
_LARGEST_OPSET = 26


@dataclass
class Network:
    """A network under construction.

    Attributes:
        draw: Of hypothesis.
        opset: Of the model.
        rng: For weights.
        rank: Spatial dimensions of the images.
        values: Shape of each tensor that a layer may read.
    """

    draw: st.DrawFn
    opset: int
    rng: np.random.Generator
    rank: int
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[tuple[str, np.ndarray]] = field(default_factory=list)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def weight(self, array: Any, *, shareable: bool = False) -> str:
        """Add a constant as an initializer or a Constant node; one of that shape may serve again."""
        array = np.asarray(array)
        same = [name for name, old in self.weights if old.shape == array.shape and old.dtype == array.dtype]
        if shareable and same and self.draw(st.booleans()):
            return same[0]
        name = self.name("w")
        self.weights.append((name, array))
        return name

    def gaussian(self, *shape: int, fan_in: int) -> np.ndarray:
        return (self.rng.normal(size=shape) / math.sqrt(fan_in)).astype(np.float32)

    def add(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """Append a node with one output of that shape."""
        output = self.name("t")
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"n{output}", **attributes))
        self.values[output] = shape
        return output

    def pick(self, want: Callable[[tuple[int, ...]], bool] = lambda _: True) -> str:
        """Draw a tensor, rather a late one; the caller knows that there is one."""
        found = [name for name, shape in self.values.items() if want(shape)][-4:]
        return found[self.draw(st.integers(0, len(found) - 1))]

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """Return the model; some weights are Constant nodes."""
        initializers, constants = [], []
        for name, array in self.weights:
            tensor = numpy_helper.from_array(array, name)
            if self.draw(st.integers(0, 3)) == 0:
                constants.append(helper.make_node("Constant", [], [name], name=f"c{name}", value=tensor))
            else:
                initializers.append(tensor)
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            [*constants, *self.nodes],
            "random",
            [helper.make_tensor_value_info("x", kind, self.values["x"])],
            [helper.make_tensor_value_info(name, kind, self.values[name]) for name in outputs],
            initializers,
        )
        ir_version = min(10, 3 + max(0, self.opset - 7))
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, ir_version=max(4, ir_version), opset_imports=opsets)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) > 2


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:]


def _conv(net: Network) -> None:
    x = net.pick(_is_image)
    batch, channels, *sides = net.values[x]
    draw = net.draw
    group = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    out = channels if group == channels else draw(_CHANNELS)
    kernel = [draw(st.integers(1, min(3, side))) for side in sides]
    dilations = [draw(st.integers(1, 2)) if side > 4 and k > 1 else 1 for side, k in zip(sides, kernel, strict=True)]
    strides = [draw(st.integers(1, 2)) for _ in sides]
    pads = [draw(st.integers(0, 1)) for _ in sides * 2]
    weight = net.gaussian(out, channels // group, *kernel, fan_in=channels // group * math.prod(kernel))
    inputs = [x, net.weight(weight, shareable=True)]
    if draw(st.booleans()):
        inputs.append(net.weight(net.gaussian(out, fan_in=4)))
    rank = len(sides)
    result = [
        (side + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, side in enumerate(sides)
    ]
    attributes = {"group": group, "dilations": dilations, "strides": strides, "pads": pads, "kernel_shape": kernel}
    y = net.add("Conv", inputs, (batch, out, *result), **attributes)
    if draw(st.booleans()):
        _activation(net, y)


def _conv_transpose(net: Network) -> None:
    x = net.pick(_is_image)
    batch, channels, *sides = net.values[x]
    if math.prod(sides) > 64:
        return
    out = net.draw(_CHANNELS)
    weight = net.weight(net.gaussian(channels, out, *[2] * len(sides), fan_in=channels))
    net.add("ConvTranspose", [x, weight], (batch, out, *[side + 1 for side in sides]), kernel_shape=[2] * len(sides))


def _matmul(net: Network) -> None:
    x = net.pick()
    *front, inner = net.values[x]
    out = net.draw(st.integers(2, 6))
    net.add("MatMul", [x, net.weight(net.gaussian(inner, out, fan_in=inner), shareable=True)], (*front, out))


def _product_of_activations(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    other = net.add("Transpose", [x], tuple(shape[i] for i in order), perm=order)
    net.add("MatMul", [x, other], (*shape[:-1], shape[-2]))


def _gemm(net: Network) -> None:
    x = net.pick()
    shape = net.values[x]
    if len(shape) > 2:
        flat = (shape[0], math.prod(shape[1:]))
        x = net.add("Flatten", [x], flat)
    batch, inner = net.values[x]
    out = net.draw(st.integers(2, 6))
    transposed = net.draw(st.booleans())
    weight = net.gaussian(*((out, inner) if transposed else (inner, out)), fan_in=inner)
    bias = net.weight(net.gaussian(out, fan_in=4))
    net.add("Gemm", [x, net.weight(weight), bias], (batch, out), transB=int(transposed))


def _arithmetic(net: Network) -> None:
    x = net.pick()
    shape = net.values[x]
    op_type = net.draw(st.sampled_from(["Add", "Mul", "Sub"]))
    if net.draw(st.booleans()):
        other = net.pick(lambda s: s == shape)
    else:
        size = net.draw(st.sampled_from([(), (1,), (shape[-1],), (1, shape[1], *[1] * (len(shape) - 2))]))
        array = net.gaussian(*size, fan_in=1)
        other = net.weight(np.abs(array) if net.draw(st.booleans()) else array)
    operands = [x, other] if net.draw(st.booleans()) else [other, x]
    net.add(op_type, operands, shape)


def _concat(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    other = net.pick(lambda s: s[:1] + s[2:] == shape[:1] + shape[2:] and len(s) == len(shape))
    channels = shape[1] + net.values[other][1]
    if channels <= 12:
        net.add("Concat", [x, other], (shape[0], channels, *shape[2:]), axis=1)


def _pool(net: Network) -> None:
    x = net.pick(_is_image)
    batch, channels, *sides = net.values[x]
    op_type = net.draw(st.sampled_from(["MaxPool", "AveragePool", "GlobalAveragePool"]))
    if op_type == "GlobalAveragePool":
        net.add(op_type, [x], (batch, channels, *[1] * len(sides)))
        return
    kernel = [min(2, side) for side in sides]
    strides = [net.draw(st.integers(1, 2)) for _ in sides]
    pads = [net.draw(st.integers(0, 1)) if k > 1 else 0 for k in kernel * 2]
    rank = len(sides)
    result = [(side + pads[i] + pads[i + rank] - kernel[i]) // strides[i] + 1 for i, side in enumerate(sides)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op_type == "AveragePool":
        attributes["count_include_pad"] = net.draw(st.integers(0, 1))
    net.add(op_type, [x], (batch, channels, *result), **attributes)


def _activation(net: Network, x: str | None = None) -> None:
    x = x or net.pick()
    shape = net.values[x]
    kinds = ["Relu", "Sigmoid", "HardSigmoid", "LeakyRelu", "Tanh", "Elu", "PRelu", "Softmax", "SiLU", "Clip", "Min"]
    kinds += ["HardSwish"] * (net.opset >= 14) + ["Gelu"] * (net.opset >= 20)
    kind = net.draw(st.sampled_from(kinds))
    if kind == "SiLU":
        gate = net.add("Sigmoid", [x], shape)
        net.add("Mul", [x, gate], shape)
    elif kind == "PRelu":
        net.add("PRelu", [x, net.weight(np.abs(net.gaussian(1, fan_in=1)))], shape)
    elif kind == "Softmax":
        net.add("Softmax", [x], shape, axis=len(shape) - 1)
    elif kind == "Min":  # Relu6
        positive = net.add("Relu", [x], shape)
        net.add(
            "Min", [positive, net.weight(np.float32(6) if net.opset >= 8 else np.full(shape, 6, np.float32))], shape
        )
    elif kind == "Clip" and net.opset < 11:
        net.add("Clip", [x], shape, min=0.0, max=float(net.draw(st.sampled_from([1, 6]))))
    elif kind == "Clip":
        low = net.weight(np.float32(net.draw(st.sampled_from([0, -1]))))
        net.add("Clip", [x, low, net.weight(np.float32(net.draw(st.sampled_from([1, 6]))))], shape)
    else:
        net.add(kind, [x], shape)


def _reshape(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    flat = (shape[0], math.prod(shape[1:]))
    there = net.add("Reshape", [x, net.weight(np.array(flat))], flat)
    if net.draw(st.booleans()):
        net.add("Reshape", [there, net.weight(np.array(shape))], shape)


def _transpose(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    order = [0, 1, *net.draw(st.permutations(range(2, len(shape))))]
    net.add("Transpose", [x], tuple(shape[i] for i in order), perm=order)


def _slice(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    end = net.draw(st.integers(1, shape[1]))
    result = (shape[0], end, *shape[2:])
    if net.opset < 10:
        net.add("Slice", [x], result, starts=[0], ends=[end], axes=[1])
    else:
        net.add("Slice", [x, *(net.weight(np.array([number])) for number in (0, end, 1))], result)


def _split(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    if shape[1] % 2:
        return
    half = (shape[0], shape[1] // 2, *shape[2:])
    names = [net.name("t"), net.name("t")]
    attributes = {"num_outputs": 2} if net.opset >= 18 else {}
    net.nodes.append(helper.make_node("Split", [x], names, name=f"n{names[0]}", axis=1, **attributes))
    net.values |= dict.fromkeys(names, half)
    if net.draw(st.booleans()):
        net.add("Concat", names[::-1], shape, axis=1)


def _resize(net: Network) -> None:
    x = net.pick(_is_image)
    shape = net.values[x]
    if net.opset < 11 or math.prod(shape[2:]) > 32:
        return
    scales = np.array([1, 1, *[2] * (len(shape) - 2)], np.float32)
    mode = net.draw(st.sampled_from(["nearest", "linear"]))
    empty = "" if net.opset >= 13 else net.weight(np.array([], np.float32))
    net.add("Resize", [x, empty, net.weight(scales)], (*shape[:2], *[2 * side for side in shape[2:]]), mode=mode)


_LAYERS = [
    *[_conv] * 5, _conv_transpose, _matmul, _matmul, _product_of_activations, _gemm, _arithmetic, _arithmetic, _concat,
    _pool, _pool, _activation, _activation, _reshape, _transpose, _slice, _split, _resize,
]  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a network of up to eight layers with one to three outputs."""
    rank = draw(st.sampled_from([2, 2, 1, 3]))
    opset = draw(st.integers(7, _LARGEST_OPSET))
    net = Network(draw, opset, np.random.default_rng(draw(st.integers(0, 2**16))), rank)
    sides = [draw(st.integers(3, 6)) for _ in range(rank)]
    net.values["x"] = (draw(st.integers(1, 2)), draw(_CHANNELS), *sides)
    _conv(net)
    for layer in draw(st.lists(st.sampled_from(_LAYERS), min_size=0, max_size=7)):
        layer(net)
    made = [name for name in net.values if name != "x"]
    middle = draw(st.lists(st.sampled_from(made), max_size=2, unique=True))
    return net.model(list(dict.fromkeys([*middle, made[-1]])))
