"""Architectures with attention or gated layers."""

import numpy as np
import onnx
from onnx import TensorProto

from tests.passes.prune.architecture import OUTPUT, Architecture
from tests.passes.prune.builder import BATCH, Net

__all__ = ["ATTENTIVE"]

HEADS, SIZE = 4, 6  # of attention
WIDTH, HIDDEN = 24, 96  # of the residual stream, of the layers beside it
LENGTH, WORDS = 7, 11


def _embedding(net: Net, width: int) -> str:
    ids = net.input("ids", LENGTH, kind=TensorProto.INT64)
    return net.op("Gather", net.normal("embedding.weight", WORDS, width), ids, name="embedding")


def _heads(net: Net, x: str, heads: int) -> str:
    return net.transpose(net.reshape(x, 0, 0, heads, -1 if net.style.dynamic else SIZE), 0, 2, 1, 3)


def _feed_forward(net: Net, name: str, x: str, hidden: int) -> str:
    width = net.shape(x)[-1]
    return net.linear(f"{name}.down", net.act("Gelu", net.linear(f"{name}.up", x, net.wide(hidden))), width)


def vit(net: Net) -> onnx.ModelProto:
    heads, width = net.wide(HEADS), net.wide(WIDTH)
    x = net.conv("patches", net.input("x", 3, 12, 12), width, 4, stride=4)
    x = net.transpose(net.reshape(x, 0, width, -1), 0, 2, 1)
    if net.style.dynamic:
        sizes = net.op("Concat", net.size(x, 0), net.const(np.array([1])), net.const(np.array([width])), axis=0)
        first = net.op("Expand", net.normal("class", 1, 1, width), sizes, shape=(BATCH, 1, width))
    else:  # as folded for one batch size
        first = net.const(np.repeat(np.linspace(-1, 1, width)[None, None], BATCH, 0), "class")
    x = net.op("Concat", first, x, axis=1)
    x = net.op("Add", x, net.normal("position", 1, net.shape(x)[1], width))
    for name in ("1", "2"):
        y = net.layer_norm(f"{name}.norm1", x)
        q, k, v = (_heads(net, net.linear(f"{name}.{kind}", y, heads * SIZE), heads) for kind in "qkv")
        x = net.op("Add", net.linear(f"{name}.o", net.attention(name, q, k, v), width), x)
        x = net.op("Add", x, _feed_forward(net, name, net.layer_norm(f"{name}.norm2", x), HIDDEN))
    x = net.op("Gather", net.layer_norm("norm", x), net.const(np.int64(0)), axis=1)
    return net.model(net.linear("fc", x, 10))


SIDE, WINDOW = 6, 3


def _roll(net: Net, x: str, by: int) -> str:
    for axis in (1, 2):
        x = net.op("Concat", net.slice(x, axis, by, 2**31), net.slice(x, axis, 0, by), axis=axis)
    return x


def _window_attention(net: Net, name: str, x: str, width: int, heads: int, *, shift: int) -> str:
    """Attend within windows of an image [B, side, side, width]; q, k and v are one layer, taken apart by Gather."""
    _, side, _, _ = net.shape(x)
    count, rows = side // WINDOW, WINDOW**2
    x = _roll(net, x, shift) if shift else x
    x = net.transpose(net.reshape(x, 0, count, WINDOW, count, WINDOW, width), 0, 1, 3, 2, 4, 5)
    x = net.reshape(x, -1, rows, width)
    packed = net.linear(f"{name}.qkv", x, 3 * heads * SIZE)
    packed = net.transpose(net.reshape(packed, 0, rows, 3, heads, SIZE), 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", packed, net.const(np.int64(i)), axis=0) for i in range(3))
    x = net.attention(name, q, k, v, bias=net.normal(f"{name}.position", 1, heads, rows, rows))
    x = net.reshape(net.linear(f"{name}.o", x, width), -1, count, count, WINDOW, WINDOW, width)
    x = net.reshape(net.transpose(x, 0, 1, 3, 2, 4, 5), -1, side, side, width)
    return _roll(net, x, -shift) if shift else x


def swin(net: Net) -> onnx.ModelProto:
    x = net.transpose(net.conv("patches", net.input("x", 3, 12, 12), net.wide(12), 2, stride=2), 0, 2, 3, 1)
    for name, size in (("1", 12), ("2", 12), ("3", 24)):
        width = net.wide(size)
        if name == "3":  # four pixels become one
            halves = [net.slice(x, 1, i, 2**31, 2) for i in (0, 1)]
            x = net.op("Concat", *(net.slice(half, 2, i, 2**31, 2) for i in (0, 1) for half in halves), axis=3)
            x = net.linear("merge", net.layer_norm("merge.norm", x), width, bias=False)
        y = net.layer_norm(f"{name}.norm1", x)
        y = _window_attention(net, name, y, width, net.wide(size // SIZE), shift=int(name == "2"))
        x = net.op("Add", x, y)
        x = net.op("Add", x, _feed_forward(net, name, net.layer_norm(f"{name}.norm2", x), 4 * size))
    return net.model(net.linear("fc", net.mean(net.layer_norm("norm", x), 1, 2, keep=0), 10))


def packed_encoder(net: Net) -> onnx.ModelProto:
    """Norms behind the layers, as in BERT; q, k and v are one layer, taken apart by Split."""
    heads, width = net.wide(HEADS), net.wide(WIDTH)
    x = net.layer_norm("norm", net.op("Add", _embedding(net, width), net.normal("position", LENGTH, width)))
    for name in ("1", "2"):
        packed = net.linear(f"{name}.qkv", x, 3 * heads * SIZE)
        q, k, v = (_heads(net, part, heads) for part in net.split(packed, *[heads * SIZE] * 3, axis=2))
        y = net.linear(f"{name}.o", net.attention(name, q, k, v), width)
        x = net.layer_norm(f"{name}.norm1", net.op("Add", y, x))
        x = net.layer_norm(f"{name}.norm2", net.op("Add", _feed_forward(net, name, x, HIDDEN), x))
    return net.model(net.linear("fc", net.op("Tanh", net.mean(x, 1, keep=0)), 5))


KEYS, QUERIES = 2, 3  # heads of keys, heads of queries for each


def _rotate(net: Net, x: str) -> str:
    """Rotary positions: x cos + rotated halves of x sin."""
    angles = np.arange(LENGTH)[:, None] * np.tile(0.5 ** np.arange(SIZE // 2), 2)
    other = net.op("Neg", net.slice(x, 3, SIZE // 2, 2**31))
    halves = net.op("Concat", other, net.slice(x, 3, 0, SIZE // 2), axis=3)
    return net.op("Add", net.op("Mul", x, net.const(np.cos(angles))), net.op("Mul", halves, net.const(np.sin(angles))))


def _repeat(net: Net, x: str) -> str:
    """Give each head of keys or values to several heads of queries."""
    _, keys, length, size = net.shape(x)
    x = net.op("Unsqueeze", x, net.const(np.array([2])))
    real = (BATCH, keys, QUERIES, length, size)
    if net.style.chains:
        ends = [net.size(x, 0), net.size(x, 1), net.const(np.array([QUERIES])), net.size(x, 3), net.size(x, 4)]
        sizes = net.op("Concat", *ends, axis=0)
    else:
        sizes = net.const(np.array([1, 1, QUERIES, 1, 1] if net.style.dynamic else real))
    x = net.op("Expand", x, sizes, shape=real)
    return net.reshape(x, 0, -1 if net.style.dynamic else keys * QUERIES, length, size)


def grouped_query_decoder(net: Net) -> onnx.ModelProto:
    """A decoder of the kind of Llama: RMS norms, rotary positions, grouped queries, a gated feed-forward layer."""
    keys, width = net.wide(KEYS), net.wide(WIDTH)
    mask = net.const(np.triu(np.full((LENGTH, LENGTH), -1e4), 1))
    x = _embedding(net, width)
    for name in ("1", "2"):
        y = net.rms_norm(f"{name}.norm1", x)
        q = _rotate(net, _heads(net, net.linear(f"{name}.q", y, keys * QUERIES * SIZE, bias=False), keys * QUERIES))
        k, v = (_heads(net, net.linear(f"{name}.{kind}", y, keys * SIZE, bias=False), keys) for kind in "kv")
        y = net.attention(name, q, _repeat(net, _rotate(net, k)), _repeat(net, v), bias=mask)
        x = net.op("Add", x, net.linear(f"{name}.o", y, width, bias=False))
        y = net.rms_norm(f"{name}.norm2", x)
        gate = net.act("Silu", net.linear(f"{name}.gate", y, net.wide(HIDDEN), bias=False))
        y = net.op("Mul", gate, net.linear(f"{name}.up", y, net.wide(HIDDEN), bias=False))
        x = net.op("Add", x, net.linear(f"{name}.down", y, width, bias=False))
    return net.model(net.linear("fc", net.rms_norm("norm", x), WORDS, bias=False))


def geglu(net: Net) -> onnx.ModelProto:
    """Feed-forward layers whose halves gate each other."""
    width, hidden = net.wide(WIDTH), net.wide(HIDDEN)
    x = net.linear("in", net.input("x", LENGTH, 5), width)
    for name in ("1", "2"):
        packed = net.linear(f"{name}.up", net.layer_norm(f"{name}.norm", x), 2 * hidden)
        value, gate = net.split(packed, hidden, hidden, axis=2)
        x = net.op("Add", x, net.linear(f"{name}.down", net.op("Mul", value, net.act("Gelu", gate)), width))
    return net.model(net.linear("fc", x, 5))


def _stream(*layers: str, blocks: str = "12") -> str:
    """Name the layers that add to a residual stream."""
    return " ".join((*layers, *(f"{block}.{layer}" for block in blocks for layer in ("o", "down"))))


# a unit of attention is a head: of the layers of queries, keys and values
ATTENTIVE = {
    "vit": Architecture(
        vit,
        {f"{b}.q {b}.k {b}.v": HEADS for b in "12"} | {f"{b}.up": HIDDEN for b in "12"} | {_stream("patches"): WIDTH},
        {"fc": OUTPUT},
        (0.67, 0.67),
    ),
    "swin": Architecture(
        swin,
        {"1.qkv": 2, "2.qkv": 2, "3.qkv": 4, "1.up": 48, "2.up": 48, "3.up": 96}
        | {_stream("patches"): 12, _stream("merge", blocks="3"): 24},
        {"fc": OUTPUT},
        (0.70, None),
    ),
    "packed-encoder": Architecture(
        packed_encoder,
        {f"{b}.qkv": HEADS for b in "12"} | {f"{b}.up": HIDDEN for b in "12"} | {_stream("embedding"): WIDTH},
        {"fc": OUTPUT},
        (0.67, None),
    ),
    # a unit is a head of keys and values with the heads of queries that it serves; RMS norms take fewer channels
    "grouped-query-decoder": Architecture(
        grouped_query_decoder,
        {f"{b}.q {b}.k {b}.v": KEYS for b in "12"}
        | {f"{b}.gate {b}.up": HIDDEN for b in "12"}
        | {_stream("embedding"): WIDTH},
        {"fc": OUTPUT},
    ),
    "geglu": Architecture(
        geglu,
        {f"{b}.up": HIDDEN for b in "12"} | {"in 1.down 2.down": WIDTH},
        {"fc": OUTPUT},
        (1.00, None),
    ),
}
