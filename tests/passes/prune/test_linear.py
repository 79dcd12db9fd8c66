"""Linear layers as ``y = W x + b``: what is read from a node, and what is written to it, holds in onnxruntime."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import load, open_session
from onnxcomp.passes.cleanup._graph import Names
from onnxcomp.passes.prune.linear import Layer, layer_of

Parse = Callable[..., onnx.ModelProto]

# name: (call, shape of x, shape of w)
LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "conv": ("Conv <pads = [1, 0, 2, 1], strides = [2, 1]> (x, w, b4)", (2, 3, 6, 7), (4, 3, 3, 3)),
    "conv without bias": ("Conv <dilations = [2, 1]> (x, w)", (2, 3, 7, 6), (4, 3, 3, 3)),
    "grouped": ("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b4)", (2, 6, 5, 5), (4, 3, 3, 3)),
    "depthwise": ("Conv <group = 4, pads = [1, 1, 1, 1]> (x, w, b4)", (2, 4, 5, 5), (4, 1, 3, 3)),
    "same": ('Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w, b4)', (2, 3, 6, 7), (4, 3, 3, 3)),
    "1-D": ("Conv <pads = [1, 2]> (x, w, b4)", (2, 3, 9), (4, 3, 3)),
    "transposed": ("ConvTranspose (x, w, b4)", (2, 3, 4, 5), (3, 4, 3, 2)),
    "transposed, strided": (
        "ConvTranspose <strides = [2, 3], pads = [1, 0, 1, 1], output_padding = [1, 0]> (x, w, b4)",
        (2, 3, 4, 5),
        (3, 4, 4, 3),
    ),
    "transposed, grouped": ("ConvTranspose <group = 2, strides = [2, 2]> (x, w, b4)", (2, 6, 3, 3), (6, 2, 2, 2)),
    "transposed, dilated": ("ConvTranspose <dilations = [2, 2], strides = [2, 1]> (x, w)", (1, 3, 4, 4), (3, 4, 2, 3)),
    "gemm": ("Gemm(x, w, b4)", (5, 6), (6, 4)),
    "gemm, row": ("Gemm(x, w, row)", (5, 6), (6, 4)),
    "gemm, one number": ("Gemm(x, w, one)", (5, 6), (6, 4)),
    "gemm, turned": ("Gemm <transA = 1, transB = 1> (x, w)", (6, 5), (4, 6)),
    "matmul": ("MatMul(x, w)", (2, 3, 6), (6, 4)),
    "matmul and add": ("Add(b4, a) ", (2, 3, 6), (6, 4)),
}
BIASES = {"b4": (4,), "row": (1, 4), "one": (1,)}


def build(parse: Parse, name: str) -> ir.Model:
    call, shape, weight = LAYERS[name]
    rng = np.random.default_rng(0)
    before = "a = MatMul(x, w)" if name == "matmul and add" else ""
    weights = {"w": rng.normal(size=weight)} | {n: rng.normal(size=s) for n, s in BIASES.items() if n in call}
    text = f"g (float[{', '.join(map(str, shape))}] x) => (float y) {{ {before} y = {call} }}"
    proto = parse(text, weights)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return load(proto.SerializeToString())


def found_in(model: ir.Model) -> Layer:
    layer = layer_of(next(iter(model.graph)))
    assert isinstance(layer, Layer)
    return layer


def computed(layer: Layer, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return y of a shape, by ``W x + b``."""
    source = layer.prepared(x)
    places = np.arange(layer.columns.count(source))
    values = layer.columns.at(source, places) @ layer.weight().transpose(0, 2, 1)
    if (bias := layer.bias()) is not None:
        values = values + bias[:, None, :]
    rows = values.transpose(1, 0, 2).reshape(len(places), -1)
    moved = list(shape)
    moved.append(moved.pop(layer.axis % len(shape)))
    return np.moveaxis(rows.reshape(moved), -1, layer.axis)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_matrix_and_becomes_another_one(parse: Parse, name: str) -> None:
    model = build(parse, name)
    layer = found_in(model)
    x = np.random.default_rng(1).normal(size=LAYERS[name][1]).astype(np.float32)
    y = np.asarray(open_session(model).run({"x": x})["y"])
    np.testing.assert_allclose(computed(layer, x, y.shape), y, rtol=1e-4, atol=1e-5)
    places = np.array([0, 3, 4])
    at = layer.outputs(y, places)
    everywhere = layer.outputs(y, np.arange(layer.columns.count(layer.prepared(x))))
    np.testing.assert_array_equal(at, everywhere[:, places])

    rng = np.random.default_rng(2)
    weight = rng.normal(size=layer.weight().shape)
    bias = layer.bias()
    shift = None if bias is None else rng.normal(size=bias.shape)
    layer.write(weight, shift, Names(model))
    np.testing.assert_allclose(layer.weight(), weight, rtol=1e-6)
    y = np.asarray(open_session(model).run({"x": x})["y"])
    np.testing.assert_allclose(computed(layer, x, y.shape), y, rtol=1e-4, atol=1e-5)
    assert (bias is None) == (name == "matmul")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = MatMul(x, w) y = MatMul(a, w)", "used elsewhere"),
        ("y = Gemm <alpha = 2.0> (x, w)", "alpha"),
        ("y = Gemm(x, w, x)", "bias is computed"),
        ("y = Gemm(x, w, square)", "no vector"),
        ("y = MatMul(x, broken)", "NaN"),
        ("y = MatMul(x, cube)", "no matrix"),
    ],
)
def test_it_says_why_a_layer_is_none(parse: Parse, text: str, reason: str) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 4)),
        "square": rng.normal(size=(4, 4)),
        "broken": np.full((4, 4), np.nan),
        "cube": rng.normal(size=(2, 4, 4)),
    }
    proto = parse(f"g (float[4, 4] x) => (float y) {{ {text} }}", {k: v for k, v in weights.items() if k in text})
    node = next(iter(load(proto.SerializeToString()).graph))
    found = layer_of(node)
    assert isinstance(found, str)
    assert reason in found
