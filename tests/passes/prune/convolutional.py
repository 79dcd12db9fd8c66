"""Architectures that classify images with convolutions."""

import onnx

from tests.passes.prune.architecture import OUTPUT, Architecture
from tests.passes.prune.builder import Net

__all__ = ["CONVOLUTIONAL"]


def lenet5(net: Net) -> onnx.ModelProto:
    x = net.act("Relu", net.conv("conv1", net.input("x", 1, 16, 16), net.wide(6), 5))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.act("Relu", net.conv("conv2", x, net.wide(16), 5))
    x = net.flat(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = net.act("Relu", net.linear("fc1", x, net.wide(60)))
    x = net.act("Relu", net.linear("fc2", x, net.wide(42)))
    return net.model(net.linear("fc3", x, 10))


def _basic(net: Net, name: str, x: str, width: int, stride: int) -> str:
    y = net.conv_bn(f"{name}.conv1", x, width, stride=stride)
    y = net.conv_bn(f"{name}.conv2", y, width, act="")
    x = net.conv_bn(f"{name}.down", x, width, 1, stride=stride, act="") if stride > 1 else x
    return net.act("Relu", net.op("Add", y, x))


def resnet_basic(net: Net) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(16), stride=2)
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    x = _basic(net, "1a", x, net.wide(16), 1)
    x = _basic(net, "1b", x, net.wide(16), 1)
    x = _basic(net, "2a", x, net.wide(32), 2)
    return net.classify("fc", _basic(net, "2b", x, net.wide(32), 1))


def _bottleneck(net: Net, name: str, x: str, inner: int, outer: int, *, group: int = 1, down: int = 0) -> str:
    y = net.conv_bn(f"{name}.conv1", x, inner, 1)
    y = net.conv_bn(f"{name}.conv2", y, inner, group=group, stride=down or 1)
    y = net.conv_bn(f"{name}.conv3", y, outer, 1, act="")
    x = net.conv_bn(f"{name}.down", x, outer, 1, stride=down, act="") if down else x
    return net.act("Relu", net.op("Add", y, x))


def _bottlenecks(net: Net, inner: int, group: int) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 12, 12), net.wide(8))
    x = _bottleneck(net, "1a", x, net.wide(inner), net.wide(32), group=group, down=1)
    x = _bottleneck(net, "1b", x, net.wide(inner), net.wide(32), group=group)
    return net.classify("fc", _bottleneck(net, "2a", x, net.wide(2 * inner), net.wide(64), group=group, down=2))


def resnet_bottleneck(net: Net) -> onnx.ModelProto:
    return _bottlenecks(net, 8, 1)


def resnext(net: Net) -> onnx.ModelProto:
    return _bottlenecks(net, 16, 4)


def _inverted(net: Net, name: str, x: str, inner: int, out: int, *, stride: int = 1, se: int = 0, act: str) -> str:
    y = net.conv_bn(f"{name}.expand", x, inner, 1, act=act)
    y = net.depthwise(f"{name}.dw", y, stride=stride, act=act)
    if se:
        gate = net.act(act, net.conv(f"{name}.reduce", net.op("GlobalAveragePool", y), se, 1))
        y = net.op("Mul", net.op("Sigmoid", net.conv(f"{name}.excite", gate, inner, 1)), y)
    y = net.conv_bn(f"{name}.project", y, out, 1, act="")
    return net.op("Add", x, y) if net.shape(x) == net.shape(y) else y


def mobilenet_v2(net: Net) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2, act="Relu6")
    x = net.depthwise("first.dw", x, act="Relu6")
    x = net.conv_bn("first.project", x, net.wide(4), 1, act="")
    x = _inverted(net, "1a", x, net.wide(24), net.wide(8), stride=2, act="Relu6")
    x = _inverted(net, "1b", x, net.wide(48), net.wide(8), act="Relu6")
    return net.classify("fc", net.conv_bn("last", x, net.wide(64), 1, act="Relu6"))


def efficientnet(net: Net) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2, act="Silu")
    x = _inverted(net, "1a", x, net.wide(16), net.wide(12), stride=2, se=net.wide(4), act="Silu")
    x = _inverted(net, "1b", x, net.wide(24), net.wide(12), se=net.wide(6), act="Silu")
    return net.classify("fc", net.conv_bn("last", x, net.wide(48), 1, act="Silu"))


def densenet(net: Net) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2)
    for block in ("1", "2"):
        for layer in ("a", "b", "c"):
            name = f"{block}{layer}"
            y = net.act("Relu", net.batch_norm(f"{name}.bn1", x))
            y = net.act(
                "Relu", net.batch_norm(f"{name}.bn2", net.conv(f"{name}.conv1", y, net.wide(16), 1, bias=False))
            )
            x = net.op("Concat", x, net.conv(f"{name}.conv2", y, net.wide(4), bias=False), axis=1)
        x = net.act("Relu", net.batch_norm(f"{block}.bn", x))
        if block == "1":
            x = net.conv("transition", x, net.wide(10), 1, bias=False)
            x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.classify("fc", x)


def _inception(net: Net, name: str, x: str) -> str:
    one = net.conv_bn(f"{name}.one", x, net.wide(8), 1)
    three = net.conv_bn(f"{name}.three", net.conv_bn(f"{name}.to3", x, net.wide(6), 1), net.wide(12))
    five = net.conv_bn(f"{name}.five", net.conv_bn(f"{name}.to5", x, net.wide(2), 1), net.wide(4), 5)
    pool = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    return net.op("Concat", one, three, five, net.conv_bn(f"{name}.pool", pool, net.wide(4), 1), axis=1)


def googlenet(net: Net) -> onnx.ModelProto:
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2)
    x = net.op("MaxPool", _inception(net, "1", x), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return net.classify("fc", _inception(net, "2", x))


def _shuffle(net: Net, x: str) -> str:
    _, _, height, width = net.shape(x)
    rows = net.reshape(x, 0, 2, (1, 2), height, width)
    return net.reshape(net.transpose(rows, 0, 2, 1, 3, 4), 0, -1, height, width)


def shufflenet_v2(net: Net) -> onnx.ModelProto:
    half = net.wide(16)
    x = net.conv_bn("stem", net.input("x", 3, 16, 16), net.wide(8), stride=2)
    left = net.conv_bn("a.left", net.depthwise("a.left.dw", x, stride=2, act=""), half, 1)
    right = net.depthwise("a.dw", net.conv_bn("a.conv1", x, half, 1), stride=2, act="")
    x = _shuffle(net, net.op("Concat", left, net.conv_bn("a.conv2", right, half, 1), axis=1))
    for name in ("b", "c"):
        left, right = net.split(x, half, half, axis=1)
        right = net.depthwise(f"{name}.dw", net.conv_bn(f"{name}.conv1", right, half, 1), act="")
        x = _shuffle(net, net.op("Concat", left, net.conv_bn(f"{name}.conv2", right, half, 1), axis=1))
    return net.classify("fc", net.conv_bn("last", x, net.wide(32), 1))


def convnext(net: Net) -> onnx.ModelProto:
    def norm(name: str, image: str) -> str:
        return net.layer_norm(name, net.transpose(image, 0, 2, 3, 1))

    x = net.conv("stem", net.input("x", 3, 16, 16), net.wide(12), 2, stride=2)
    x = net.transpose(norm("stem.norm", x), 0, 3, 1, 2)
    for name, size in (("1a", 12), ("1b", 12), ("2a", 16), ("2b", 16), ("2c", 16)):
        width = net.wide(size)
        if net.shape(x)[1] != width:
            x = net.conv("down", net.transpose(norm("down.norm", x), 0, 3, 1, 2), width, 2, stride=2)
        y = norm(f"{name}.norm", net.conv(f"{name}.dw", x, width, 7, group=width))
        y = net.linear(f"{name}.up", y, net.wide(4 * size))
        y = net.linear(f"{name}.out", net.act("Gelu", y), width)
        y = net.op("Mul", net.normal(f"{name}.gamma", width, gain=0.1, mean=0.5), y)
        x = net.op("Add", x, net.transpose(y, 0, 3, 1, 2))
    x = net.flat(net.op("GlobalAveragePool", x))
    return net.model(net.linear("fc", net.layer_norm("norm", x), 10))


def group_norm(net: Net) -> onnx.ModelProto:
    x = net.conv("conv1", net.input("x", 3, 12, 12), net.wide(16))
    x = net.act("Relu", net.group_norm("norm1", x, net.wide(4)))
    y = net.conv("conv2", x, net.wide(32))
    y = net.act("Silu", net.group_norm("norm2", y, net.wide(8)))
    y = net.group_norm("norm3", net.conv("conv3", y, net.wide(16)), net.wide(4))
    return net.classify("fc", net.act("Relu", net.op("Add", x, y)))


_BOTTLENECKS = {
    "stem": 8, "1a.conv3 1a.down 1b.conv3": 32, "2a.conv3 2a.down": 64
}  # fmt: skip

CONVOLUTIONAL = {
    "lenet-5": Architecture(
        lenet5, {"conv1": 6, "conv2": 16, "fc1": 60, "fc2": 42}, {"fc3": OUTPUT}, (0.50, 0.25)
    ),
    "resnet-basic": Architecture(
        resnet_basic,
        {
            "stem 1a.conv2 1b.conv2": 16, "1a.conv1": 16, "1b.conv1": 16,
            "2a.conv1": 32, "2a.conv2 2a.down 2b.conv2": 32, "2b.conv1": 32,
        },
        {"fc": OUTPUT},
        (0.53, 0.26),
    ),
    "resnet-bottleneck": Architecture(
        resnet_bottleneck,
        _BOTTLENECKS | {f"{b}.conv{i}": 16 if b == "2a" else 8 for b in ("1a", "1b", "2a") for i in (1, 2)},
        {"fc": OUTPUT},
        (0.48, 0.27),
    ),
    # a unit of what a grouped convolution reads or makes is one channel of each of its groups
    "resnext": Architecture(
        resnext,
        _BOTTLENECKS | {f"{b}.conv{i}": 8 if b == "2a" else 4 for b in ("1a", "1b", "2a") for i in (1, 2)},
        {"fc": OUTPUT},
        (0.58, 0.27),
    ),
    "mobilenet-v2": Architecture(
        mobilenet_v2,
        {
            "stem first.dw": 8, "first.project": 4, "1a.expand 1a.dw": 24, "1a.project 1b.project": 8,
            "1b.expand 1b.dw": 48, "last": 64,
        },
        {"fc": OUTPUT},
        (0.35, 0.35),
    ),
    "efficientnet": Architecture(
        efficientnet,
        {
            "stem": 8, "1a.expand 1a.dw 1a.excite": 16, "1a.reduce": 4, "1a.project 1b.project": 12,
            "1b.expand 1b.dw 1b.excite": 24, "1b.reduce": 6, "last": 48,
        },
        {"fc": OUTPUT},
        (0.50, 0.32),
    ),
    "densenet": Architecture(
        densenet,
        {"stem": 8, "transition": 10}
        | {f"{b}{layer}.conv{i}": 16 if i == 1 else 4 for b in "12" for layer in "abc" for i in (1, 2)},
        {"fc": OUTPUT},
        (0.62, 0.29),
    ),
    "googlenet": Architecture(
        googlenet,
        {"stem": 8}
        | {f"{b}.{k}": n for b in "12" for k, n in
           {"one": 8, "to3": 6, "three": 12, "to5": 2, "five": 4, "pool": 4}.items()},
        {"fc": OUTPUT},
        (0.69, 0.29),
    ),
    # The shuffle ties channel i of one half to channel i of the other. What block b passes on untouched (the lower half
    # of both) joins its conv2 in twos, what c passes on joins that of c in fours; the rest goes into conv1 alone.
    "shufflenet-v2": Architecture(
        shufflenet_v2,
        {
            "stem a.left.dw": 8, "a.conv1 a.dw": 16, "b.conv1 b.dw": 16, "c.conv1 c.dw": 16,
            "a.left a.conv2": 8, "a.left a.conv2 b.conv2": 4, "a.left a.conv2 b.conv2 c.conv2": 4, "last": 32,
        },
        {"fc": OUTPUT},
        (0.85, None),
    ),
    "convnext": Architecture(
        convnext,
        {
            "1a.up": 48, "1b.up": 48, "2a.up": 64, "2b.up": 64, "2c.up": 64,
            "stem 1a.dw 1a.out 1b.dw 1b.out": 12, "down 2a.dw 2a.out 2b.dw 2b.out 2c.dw 2c.out": 16,
        },
        {"fc": OUTPUT},
        (0.55, 0.26),
    ),
    # a unit is a group of a norm: four channels
    "group-norm": Architecture(
        group_norm, {"conv1 conv3": 4, "conv2": 8}, {"fc": OUTPUT}, (1.00, 0.26)
    ),
}  # fmt: skip
