"""Random small networks of layers, movement and arithmetic, for property tests of pruning."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.passes.prune.builder import STYLES, Net

__all__ = ["networks"]

_LARGEST = 4000  # elements of a tensor


@dataclass
class Growing:
    """A network under construction.

    Attributes:
        draw: Of hypothesis.
        net: What is built.
        values: Tensors that a layer may read.
    """

    draw: st.DrawFn
    net: Net
    values: list[str]

    def choose(self, *options: int) -> int:
        return self.draw(st.sampled_from(options))

    def shape(self, x: str) -> tuple[int, ...]:
        return self.net.shape(x)

    def pick(self, want: Callable[[tuple[int, ...]], bool] = lambda _: True) -> str | None:
        """Draw a tensor, rather a late one."""
        found = [x for x in self.values if want(self.shape(x))][-3:]
        return self.draw(st.sampled_from(found)) if found else None

    def axis(self, x: str) -> int:
        """Draw an axis that is not the batch."""
        return self.draw(st.integers(1, len(self.shape(x)) - 1))

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.values)}"


def _layer(g: Growing, x: str) -> str:
    shape, net = g.shape(x), g.net
    out = g.choose(2, 3, 4, 6, 8)
    if len(shape) != 4:
        return net.linear(g.name("linear"), x, out, bias=g.draw(st.booleans()))
    group = g.choose(*(n for n in (1, 1, 2, shape[1]) if shape[1] % n == 0))
    out = shape[1] * g.choose(1, 1, 2) if group == shape[1] else 2 * out
    y = net.conv(g.name("conv"), x, out, g.choose(1, 3), group=group, bias=g.draw(st.booleans()))
    return net.batch_norm(g.name("norm"), y) if g.draw(st.booleans()) else y


def _arithmetic(g: Growing, x: str) -> str:
    other = g.pick(lambda s: s == g.shape(x))
    assert other is not None
    return g.net.op(g.draw(st.sampled_from(["Add", "Sub", "Mul", "Max"])), x, other)


def _constant(g: Growing, x: str) -> str:
    shape = [n if g.draw(st.booleans()) else 1 for n in (1, *g.shape(x)[1:])]
    array = np.random.default_rng(len(g.values)).uniform(0.5, 1.5, shape[g.draw(st.integers(0, len(shape) - 1)) :])
    operands = [x, g.net.const(array)]
    return g.net.op(g.draw(st.sampled_from(["Add", "Mul", "Div"])), *operands)


def _activation(g: Growing, x: str) -> str:
    return g.net.act(g.draw(st.sampled_from(["Relu", "Sigmoid", "Softplus", "Gelu", "Silu", "Tanh", "Relu6"])), x)


def _concat(g: Growing, x: str) -> str:
    axis, shape = g.axis(x), g.shape(x)
    rest = shape[:axis] + shape[axis + 1 :]
    other = g.pick(lambda s: len(s) == len(shape) and s[:axis] + s[axis + 1 :] == rest)
    assert other is not None
    return g.net.op("Concat", x, other, axis=axis)


def _split(g: Growing, x: str) -> str | None:
    axis = g.axis(x)
    size = g.shape(x)[axis]
    if size < 2:
        return None
    at = g.draw(st.integers(1, size - 1))
    parts = g.net.split(x, at, size - at, axis=axis)
    g.values.append(parts[0])
    return parts[1]


def _slice(g: Growing, x: str) -> str:
    axis = g.axis(x)
    start = g.draw(st.integers(0, g.shape(x)[axis] - 1))
    return g.net.slice(x, axis, start, 2**31, g.choose(1, 1, 2))


def _transpose(g: Growing, x: str) -> str:
    return g.net.transpose(x, 0, *g.draw(st.permutations(range(1, len(g.shape(x))))))


def _part(g: Growing, x: str) -> str | None:
    """Make two axes of one, and swap them now and then: a shuffle of channels."""
    axis, shape = g.axis(x), g.shape(x)
    if len(shape) > 4 or shape[axis] % 2:
        return None
    count = g.choose(*(n for n in (2, 3, 4, shape[axis] // 2) if shape[axis] % n == 0))
    y = g.net.reshape(x, 0, *shape[1:axis], count, shape[axis] // count, *shape[axis + 1 :])
    if g.draw(st.booleans()):
        perm = list(range(len(shape) + 1))
        perm[axis], perm[axis + 1] = axis + 1, axis
        y = g.net.transpose(y, *perm)
    return y


def _merge(g: Growing, x: str) -> str | None:
    """Make one axis of two."""
    shape = g.shape(x)
    if len(shape) < 3:
        return None
    axis = g.draw(st.integers(1, len(shape) - 2))
    return g.net.reshape(x, 0, *shape[1:axis], -1, *shape[axis + 2 :])


def _mean(g: Growing, x: str) -> str | None:
    return g.net.mean(x, g.axis(x), keep=g.choose(0, 1)) if len(g.shape(x)) > 2 else None


def _repeat(g: Growing, x: str) -> str:
    """Repeat along one axis: element by element, or all of it."""
    axis, shape = g.axis(x), g.shape(x)
    counts = [1] * len(shape)
    if g.draw(st.booleans()):
        counts[axis] = 2
        return g.net.op("Tile", x, g.net.const(np.array(counts)))
    y = g.net.op("Unsqueeze", x, g.net.const(np.array([axis + 1])))
    y = g.net.op("Expand", y, g.net.const(np.array([*counts[: axis + 1], 2, *counts[axis + 1 :]])))
    return g.net.reshape(y, 0, *shape[1:axis], -1, *shape[axis + 1 :])


def _pad(g: Growing, x: str) -> str:
    pads = np.zeros(2 * len(g.shape(x)), np.int64)
    pads[g.draw(st.integers(1, len(pads) // 2 - 1))] = 1
    return g.net.op("Pad", x, g.net.const(pads))


def _gather(g: Growing, x: str) -> str:
    axis = g.axis(x)
    order = g.draw(st.lists(st.integers(0, g.shape(x)[axis] - 1), min_size=1, max_size=8))
    return g.net.op("Gather", x, g.net.const(np.array(order)), axis=axis)


def _product(g: Growing, x: str) -> str | None:
    """Multiply activations: x and its transpose."""
    shape = g.shape(x)
    if len(shape) < 3:
        return None
    *front, i, j = range(len(shape))
    scale = g.net.const(np.float32(1 / shape[-1]))
    return g.net.op("Mul", g.net.op("MatMul", x, g.net.transpose(x, *front, j, i)), scale)


def _softmax(g: Growing, x: str) -> str:
    return g.net.op("Softmax", x, axis=g.axis(x))


def _norm(g: Growing, x: str) -> str:
    """Normalize over the last axis, over each of the second one, over groups of it, or over any of them."""
    shape, kind, name = g.shape(x), g.choose(0, 0, 1, 2, 3), g.name("norm")
    if kind == 1 and len(shape) == 4:
        return g.net.group_norm(name, x, g.choose(*(n for n in (1, 2, shape[1]) if shape[1] % n == 0)))
    if kind == 2 and len(shape) > 2:
        vectors = (g.net.norm_vector(f"{name}.{part}", shape[1], value) for part, value in (("w", 1.0), ("b", 0.0)))
        return g.net.op("InstanceNormalization", x, *vectors, epsilon=1e-3)
    if kind == 3:
        return g.net.op("LpNormalization", x, axis=g.axis(x), p=2)
    return g.net.layer_norm(name, x)


def _extreme(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if len(shape) < 3:
        return None
    return g.net.op(g.draw(st.sampled_from(["ReduceMax", "ReduceMin"])), x, axes=[g.axis(x)], keepdims=g.choose(0, 1))


def _pixels(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if len(shape) != 4 or shape[1] % 4:
        return None
    return g.net.op("DepthToSpace", x, blocksize=2, mode=g.draw(st.sampled_from(["CRD", "DCR"])))


_KINDS = [
    *[_layer] * 6, *[_arithmetic] * 3, *[_activation] * 3, *[_constant] * 2, *[_concat] * 2, *[_split] * 2, _slice,
    _transpose, _transpose, _part, _part, _merge, _merge, _mean, _repeat, _pad, _gather, _product, _softmax, _norm,
    _norm, _extreme, _pixels,
]  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a network of up to ten steps between two layers with weights."""
    net = Net(STYLES[draw(st.sampled_from(sorted(STYLES)))])
    shape = draw(st.sampled_from([(3, 4, 5), (5, 6), (6,)]))
    g = Growing(draw, net, [])
    g.values.append(_layer(g, net.input("x", *shape)))
    for kind in draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=10)):
        x = g.pick(lambda s: math.prod(s) <= _LARGEST)
        assert x is not None  # the first layer is small
        y = kind(g, x)
        if y is not None:
            g.values.append(y)
    last = net.linear("last", g.values[-1], 3)
    middle = draw(st.sampled_from([None, None, *g.values]))
    return net.model(last, *([middle] if middle else []))
