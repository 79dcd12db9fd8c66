"""Architectures that are recurrent, or whose output is an image or boxes."""

import numpy as np
import onnx

from tests.passes.prune.architecture import OUTPUT, Architecture
from tests.passes.prune.builder import BATCH, Net

__all__ = ["OTHERS"]

STEPS = 7


def _double(net: Net, name: str, x: str, width: int) -> str:
    return net.conv_bn(f"{name}.b", net.conv_bn(f"{name}.a", x, width), width)


def _up(net: Net, name: str, x: str, width: int) -> str:
    weight = net.normal(f"{name}.weight", net.shape(x)[1], width, 2, 2, fan_in=net.shape(x)[1])
    bias = net.normal(f"{name}.bias", width, gain=0.1)
    return net.op("ConvTranspose", x, weight, bias, name=name, kernel_shape=[2, 2], strides=[2, 2])


def unet(net: Net) -> onnx.ModelProto:
    x = net.input("x", 3, 16, 16)
    skips = []
    for level, width in enumerate((8, 16)):
        skips.append(_double(net, f"down{level}", x, net.wide(width)))
        x = net.op("MaxPool", skips[-1], kernel_shape=[2, 2], strides=[2, 2])
    x = _double(net, "middle", x, net.wide(32))
    for level, width in ((1, 16), (0, 8)):
        x = net.op("Concat", skips[level], _up(net, f"up{level}.t", x, net.wide(width)), axis=1)
        x = _double(net, f"up{level}", x, net.wide(width))
    return net.model(net.op("Sigmoid", net.conv("last", x, 2, 1)))


def pixel_shuffle(net: Net) -> onnx.ModelProto:
    """Super-resolution: DepthToSpace once as an operator, once as Reshape and Transpose, and at the output."""
    x = net.act("Relu", net.conv("conv1", net.input("x", 1, 6, 6), net.wide(16), 5))
    x = net.conv("conv2", x, 4 * net.wide(8))
    x = net.op("PRelu", net.op("DepthToSpace", x, blocksize=2, mode="CRD"), net.normal("slope", net.wide(8), 1, 1))
    x = net.conv("conv3", x, 4 * net.wide(8))
    _, _, height, width = net.shape(x)
    x = net.transpose(net.reshape(x, 0, (1, 4), 2, 2, height, width), 0, 1, 4, 2, 5, 3)
    x = net.act("Relu", net.reshape(x, 0, -1, 2 * height, 2 * width))
    return net.model(net.op("DepthToSpace", net.conv("last", x, 4), blocksize=2, mode="CRD"))


def detector(net: Net) -> onnx.ModelProto:
    """Two levels joined by Resize and Concat; boxes and scores of both in one output."""

    def split_block(name: str, image: str, width: int) -> str:
        low, high = net.split(net.conv_bn(f"{name}.in", image, 2 * width, 1, act="Silu"), width, width, axis=1)
        inner = net.conv_bn(f"{name}.b", net.conv_bn(f"{name}.a", high, width, act="Silu"), width, act="Silu")
        joined = net.op("Concat", low, high, net.op("Add", high, inner), axis=1)
        return net.conv_bn(f"{name}.out", joined, 2 * width, 1, act="Silu")

    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2, act="Silu")
    fine = split_block("p3", x, net.wide(8))
    coarse = split_block("p4", net.conv_bn("down", fine, net.wide(24), stride=2, act="Silu"), net.wide(12))
    target = net.shape(coarse)[:2] + net.shape(fine)[2:]
    if net.style.chains:
        shape = net.op("Shape", coarse)
        shape = net.op("Concat", net.slice(shape, 0, 0, 2), net.slice(net.op("Shape", fine), 0, 2, 4), axis=0)
        wide = net.op("Resize", coarse, "", "", shape, shape=target, mode="nearest")
    else:
        scales = net.const(np.array([1, 1, 2, 2], np.float32))
        wide = net.op("Resize", coarse, "", scales, shape=target, mode="nearest")
    fine = net.conv_bn("merge", net.op("Concat", wide, fine, axis=1), net.wide(16), act="Silu")
    levels = []
    for name, image in (("p3", fine), ("p4", coarse)):
        boxes = net.conv(f"{name}.boxes", net.conv_bn(f"{name}.box", image, net.wide(8), act="Silu"), 4, 1)
        scores = net.conv(f"{name}.scores", net.conv_bn(f"{name}.score", image, net.wide(10), act="Silu"), 3, 1)
        levels.append(net.reshape(net.op("Concat", boxes, scores, axis=1), 0, 7, -1))
    boxes, scores = net.split(net.op("Concat", *levels, axis=2), 4, 3, axis=1)
    boxes = net.op("Mul", boxes, net.const(np.linspace(1, 2, net.shape(boxes)[2])))
    return net.model(net.op("Concat", boxes, net.op("Sigmoid", scores), axis=1))


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _recurrent(net: Net, kind: str, name: str, x: str, hidden: int, *, both: bool = False) -> str:
    """Run over [T, B, width], to [T, B, directions * hidden]."""
    ways, rows, width = 1 + both, GATES[kind] * hidden, net.shape(x)[2]
    weights = [
        net.normal(f"{name}.w", ways, rows, width, fan_in=width, gain=1.5),
        net.normal(f"{name}.r", ways, rows, hidden, fan_in=hidden),
        net.normal(f"{name}.b", ways, 2 * rows, gain=0.2),
    ]
    states = [""]
    if net.style.chains:  # states of zeros, as large as the batch
        sizes = net.op("Concat", *(net.const(np.array([ways])), net.size(x, 1), net.const(np.array([hidden]))), axis=0)
        if kind == "LSTM":
            start = net.op("ConstantOfShape", sizes, shape=(ways, BATCH, hidden))
        else:
            start = net.op("Expand", net.const(np.zeros((ways, 1, hidden))), sizes, shape=(ways, BATCH, hidden))
        states = ["", *[start] * (1 + (kind == "LSTM"))]
    elif not net.style.dynamic:
        shape, kinds = (ways, BATCH, hidden), "hc" if kind == "LSTM" else "h"
        states = ["", *(net.normal(f"{name}.{state}0", *shape, gain=0.1) for state in kinds)]
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if both else "forward"
    y = net.outs(kind, x, *weights, *states, count=2, name=name, hidden_size=hidden, direction=direction, **options)[0]
    if both:
        return net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    return net.op("Squeeze", y, net.const(np.array([1])))


def _sequence(net: Net) -> str:
    return net.act("Relu", net.linear("in", net.transpose(net.input("x", STEPS, 5), 1, 0, 2), net.wide(12)))


def _last(net: Net, x: str) -> onnx.ModelProto:
    return net.model(net.linear("fc", net.op("Gather", x, net.const(np.int64(-1)), axis=0), 4))


def lstm(net: Net) -> onnx.ModelProto:
    x = _recurrent(net, "LSTM", "lstm1", _sequence(net), net.wide(16))
    return _last(net, _recurrent(net, "LSTM", "lstm2", x, net.wide(8)))


def gru(net: Net) -> onnx.ModelProto:
    x = _recurrent(net, "GRU", "gru1", _sequence(net), net.wide(16))
    return _last(net, _recurrent(net, "GRU", "gru2", x, net.wide(8)))


def text_recognizer(net: Net) -> onnx.ModelProto:
    """Convolutions whose columns are the steps of two bidirectional LSTMs."""
    x = net.conv_bn("conv1", net.input("x", 1, 8, 14), net.wide(8))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv_bn("conv2", x, net.wide(12))
    _, _, height, steps = net.shape(x)
    x = net.reshape(x, 0, -1 if net.style.dynamic else net.wide(12) * height, steps)
    x = net.transpose(x, 2, 0, 1)
    x = _recurrent(net, "LSTM", "lstm1", x, net.wide(16), both=True)
    x = _recurrent(net, "LSTM", "lstm2", net.linear("middle", x, net.wide(10)), net.wide(8), both=True)
    return net.model(net.op("Softmax", net.linear("fc", x, 6), axis=-1))


def _detector_groups() -> dict[str, int]:
    groups = {"stem": 8, "down": 24, "merge": 16}
    for name, width in (("p3", 8), ("p4", 12)):
        groups |= {f"{name}.in {name}.b": width, f"{name}.in": width, f"{name}.a": width, f"{name}.out": 2 * width}
    return groups | {f"{name}.{kind}": n for name in ("p3", "p4") for kind, n in (("box", 8), ("score", 10))}


OTHERS = {
    "unet": Architecture(
        unet,
        {f"{name}.{part}": width for name, width in
         {"down0": 8, "down1": 16, "middle": 32, "up1": 16, "up0": 8}.items() for part in "ab"}
        | {"up1.t": 16, "up0.t": 8},
        {"last": OUTPUT},
        (0.39, 0.25),
    ),
    # a unit of conv2 and of conv3 is the four channels that become the pixels of one
    "pixel-shuffle": Architecture(
        pixel_shuffle, {"conv1": 16, "conv2": 8, "conv3": 8}, {"last": OUTPUT}
    ),
    "detector": Architecture(
        detector,
        _detector_groups(),
        {f"{name}.{kind}": OUTPUT for name in ("p3", "p4") for kind in ("boxes", "scores")},
    ),
    "lstm": Architecture(lstm, {"in": 12, "lstm1": 16, "lstm2": 8}, {"fc": OUTPUT}, (1.00, None)),
    "gru": Architecture(gru, {"in": 12, "gru1": 16, "gru2": 8}, {"fc": OUTPUT}, (1.00, 1.00)),
    # a unit of an LSTM is one of each direction
    "text-recognizer": Architecture(
        text_recognizer,
        {"conv1": 8, "conv2": 12, "lstm1": 16, "middle": 10, "lstm2": 8},
        {"fc": OUTPUT},
    ),
}  # fmt: skip
