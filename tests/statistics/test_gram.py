import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import DataError, ModelError
from onnxcomp.model import load, open_session
from onnxcomp.statistics import Columns, Gram, GramStore, collect_grams, columns_of, recurrent_columns

Parse = Callable[..., onnx.ModelProto]

# name: (attributes, input, weight)
CONVS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "plain": ("", (2, 3, 6, 7), (4, 3, 3, 2)),
    "pointwise": ("", (2, 3, 6, 7), (4, 3, 1, 1)),
    "padded": ("pads = [1, 0, 2, 1]", (2, 3, 6, 7), (4, 3, 3, 3)),
    "strided": ("strides = [2, 3], pads = [1, 1, 1, 1]", (2, 3, 7, 8), (4, 3, 3, 3)),
    "dilated": ("dilations = [2, 1], pads = [2, 1, 2, 1]", (2, 3, 7, 6), (4, 3, 3, 3)),
    "grouped": ("group = 2, pads = [1, 1, 1, 1]", (2, 6, 5, 5), (4, 3, 3, 3)),
    "depthwise": ("group = 3, pads = [1, 1, 1, 1], strides = [2, 2]", (2, 3, 6, 6), (6, 1, 3, 3)),
    "same upper": ('auto_pad = "SAME_UPPER", strides = [2, 2]', (2, 3, 6, 7), (4, 3, 3, 3)),
    "same lower": ('auto_pad = "SAME_LOWER", strides = [1, 2]', (2, 3, 6, 7), (4, 3, 2, 4)),
    "valid": ('auto_pad = "VALID", strides = [2, 1]', (2, 3, 6, 7), (4, 3, 3, 2)),
    "1-D": ("strides = [2], pads = [1, 2]", (2, 3, 9), (4, 3, 3)),
    "3-D": ("strides = [1, 2, 1], pads = [1, 0, 1, 1, 0, 1]", (2, 3, 4, 5, 4), (4, 3, 3, 2, 3)),
}


def build(parse: Parse, call: str, x: tuple[int | str, ...], **weights: np.ndarray) -> ir.Model:
    text = f"g (float[{', '.join(map(str, x))}] x) => (float y) {{ y = {call} }}"
    proto = parse(text, weights)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return load(proto.SerializeToString())


def layers(model: ir.Model) -> dict[str, Columns]:
    found = {node.outputs[0].name: columns_of(node) for node in model.graph}
    return {str(name): columns for name, columns in found.items() if columns is not None}


def collect(model: ir.Model, samples: Any, feeds: list[np.ndarray], **options: Any) -> dict[str, Gram]:
    return dict(collect_grams(model, samples([{"x": x} for x in feeds]), layers(model), **options))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def patches(x: np.ndarray, columns: Columns) -> np.ndarray:
    """Im2col by plain loops in float64: [groups, positions, K]."""
    window = columns.window
    assert window is not None
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *window.padding(x.shape[2:])])
    sizes = padded.shape[2:]
    found: list[list[list[float]]] = [[] for _ in range(window.groups)]
    share = x.shape[1] // window.groups
    counts = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(sizes, window.kernel, window.strides, window.dilations, strict=True)
    ]
    for image, group in itertools.product(range(len(x)), range(window.groups)):
        for position in itertools.product(*map(range, counts)):
            vector = []
            for channel in range(group * share, (group + 1) * share):
                for tap in itertools.product(*map(range, window.kernel)):
                    where = [
                        p * s + t * d
                        for p, s, t, d in zip(position, window.strides, tap, window.dilations, strict=True)
                    ]
                    vector.append(padded[(image, channel, *where)])
            found[group].append(vector)
    return np.array(found)


@pytest.mark.parametrize("kind", CONVS)
def test_a_convolution_is_a_product_of_its_weight_and_what_it_reads(parse: Parse, samples: Any, kind: str) -> None:
    attributes, shape, kernel = CONVS[kind]
    weight = normal(*kernel)
    model = build(parse, f"Conv{f'<{attributes}>' if attributes else ''}(x, w)", shape, w=weight)
    columns = layers(model)["y"]
    feeds = [normal(*shape, seed=seed) for seed in range(3)]
    explicit = np.concatenate([patches(x, columns) for x in feeds], axis=1)
    gram = collect(model, samples, feeds)["y"]
    assert gram.count == explicit.shape[1]
    np.testing.assert_allclose(gram.products, explicit.transpose(0, 2, 1) @ explicit, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gram.sums, explicit.sum(axis=1), rtol=1e-5, atol=1e-4)
    # What onnxruntime computes of it: y = W x at every position
    y = open_session(model).run({"x": feeds[0]})["y"]
    taken = columns.take(feeds[0], 10**6, np.random.default_rng(0))
    product = np.einsum("grk,gpk->grp", columns.rows(weight), taken).reshape(kernel[0], len(y), -1)
    np.testing.assert_allclose(product.transpose(1, 0, 2).reshape(y.shape), y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(columns.weight(columns.rows(weight), weight.shape), weight)


@pytest.mark.parametrize(
    ("call", "shape", "weight"),
    [
        ("MatMul(x, w)", (2, 3, 5), (5, 4)),
        ("MatMul(x, w)", (5,), (5, 4)),
        ("Gemm(x, w)", (3, 5), (5, 4)),
        ("Gemm<transB = 1>(x, w)", (3, 5), (4, 5)),
        ("Gemm<transA = 1>(x, w)", (5, 3), (5, 4)),
    ],
)
def test_products(parse: Parse, samples: Any, call: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    w = normal(*weight)
    model = build(parse, call, shape, w=w)
    columns = layers(model)["y"]
    x = normal(*shape, seed=1)
    rows = (x.T if "transA" in call else x).reshape(-1, 5).astype(np.float64)
    gram = collect(model, samples, [x, 2 * x])["y"]
    np.testing.assert_allclose(gram.products[0], 5 * rows.T @ rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gram.mean[0], 1.5 * rows.mean(axis=0), rtol=1e-5, atol=1e-5)
    both = np.concatenate([rows, 2 * rows])
    np.testing.assert_allclose(gram.moment[0], both.T @ both / len(both), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gram.covariance[0], np.cov(both.T, bias=True), rtol=1e-4, atol=1e-5)
    y = open_session(model).run({"x": x})["y"].reshape(len(rows), -1)
    np.testing.assert_allclose(rows @ columns.rows(w)[0].T, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(columns.weight(columns.rows(w), w.shape), w)


def test_what_is_no_linear_layer_with_a_weight_has_no_columns(parse: Parse) -> None:
    text = """g (float[2, 4] x, float[4, 4] v) => (float[2, 4] y) {
        a = MatMul(x, v)  b = Relu(a)  c = Add(b, s)  y = MatMul(c, t) }"""
    model = load(parse(text, {"s": normal(4), "t": normal(1, 4, 4)}).SerializeToString())
    assert layers(model) == {}


def test_positions_are_bounded_spread_and_drawn_by_the_seed(parse: Parse, samples: Any) -> None:
    model = build(parse, "Conv(x, w)", (1, 1, 30, 30), w=normal(1, 1, 1, 1))
    feeds = [np.full((1, 1, 30, 30), index, np.float32) for index in range(8)]
    gram = collect(model, samples, feeds, positions=80)["y"]
    assert gram.count == 80
    assert gram.sums.item() == 10 * sum(range(8))  # as many of each run
    noise = [normal(1, 1, 30, 30, seed=seed) for seed in range(4)]
    first, same, other = (collect(model, samples, noise, positions=40, seed=seed)["y"] for seed in (0, 0, 1))
    assert first.products == same.products
    assert first.products != other.products


def test_ragged_runs(parse: Parse, samples: Any) -> None:
    model = build(parse, "MatMul(x, w)", ("N", "T", 3), w=normal(3, 2))
    feeds = [normal(1, 4, 3), normal(2, 1, 3), normal(0, 5, 3)]
    rows = np.concatenate([x.reshape(-1, 3) for x in feeds])
    gram = collect(model, samples, feeds)["y"]
    assert gram.count == 6
    np.testing.assert_allclose(gram.products[0], rows.T @ rows, rtol=1e-5, atol=1e-5)


def test_the_samples_are_read_again_where_the_matrices_take_too_much(parse: Parse, samples: Any) -> None:
    text = """g (float[N, 8] x) => (float[N, 2] y) {
        a = MatMul(x, u)  b = MatMul(x, v)  c = MatMul(a, w)  d = Add(b, c)  y = MatMul(d, z) }"""
    weights = {"u": normal(8, 8), "v": normal(8, 4), "w": normal(8, 4), "z": normal(4, 2)}
    model = load(parse(text, weights).SerializeToString())
    feeds = [{"x": normal(3, 8, seed=seed)} for seed in range(3)]
    once, often = samples(feeds), samples(feeds)
    done: list[tuple[int, int | None]] = []
    whole = dict(collect_grams(model, once, layers(model), progress=lambda *step: done.append(step)))
    parts = dict(collect_grams(model, often, layers(model), most_bytes=8 * 8 * 8))
    assert once.readings == 1
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert often.readings == 3  # a and b share a matrix
    assert list(whole) == ["a", "b", "c", "y"]
    assert whole["a"] is whole["b"]
    assert set(parts) == set(whole)
    for name, gram in parts.items():
        np.testing.assert_allclose(gram.products, whole[name].products, rtol=1e-5)


@pytest.mark.parametrize(("bad", "said"), [(np.nan, "not a number"), (np.inf, "infinite")])
def test_a_value_that_is_no_number_is_named(parse: Parse, samples: Any, bad: float, said: str) -> None:
    text = "g (float[N, 3] x) => (float[N, 2] y) { a = Mul(x, x)  y = MatMul(a, w) }"
    model = load(parse(text, {"w": normal(3, 2)}).SerializeToString())
    feeds = [{"x": normal(2, 3)}, {"x": np.array([[1, bad, 2]], np.float32)}]
    with pytest.raises(ModelError, match=rf"tensor a is {said}.* on calibration sample 1"):
        list(collect_grams(model, samples(feeds), layers(model)))


def test_no_samples(parse: Parse, samples: Any) -> None:
    model = build(parse, "MatMul(x, w)", ("N", 3), w=normal(3, 2))
    with pytest.raises(DataError, match="no samples"):
        list(collect_grams(model, samples([]), layers(model)))
    assert list(collect_grams(model, samples([]), {})) == []


def test_an_input_with_a_default_is_read_too(parse: Parse, samples: Any) -> None:
    proto = parse("g (float[N, 3] x, float[1, 2] d) => (float y) { a = MatMul(x, w) y = MatMul(d, v) }")
    for name, value in {"w": normal(3, 2), "v": normal(2, 2), "d": np.array([[1, 2]], np.float32)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = load(proto.SerializeToString())
    gram = collect(model, samples, [normal(2, 3)])["y"]
    assert gram.products.tolist() == [[[1, 2], [2, 4]]]


class Counted:
    """Samples that count how often they are read."""

    def __init__(self, samples: Any) -> None:
        self._samples, self.length, self.description, self.read = samples, samples.length, "counted", 0

    def __iter__(self) -> Any:
        self.read += 1
        return iter(self._samples)


def test_a_store_measures_once_what_it_has_room_for(parse: Parse, samples: Any) -> None:
    model = build(parse, "MatMul(x, w)", (2, 6), w=normal(6, 4))
    some, known = Counted(samples([{"x": normal(2, 6)}])), layers(model)
    expected = collect(model, samples, [normal(2, 6)])
    for room, reads in ((1 << 20, 1), (10, 2)):
        some.read = 0
        store = GramStore(model, some, most_bytes=room)  # type: ignore[arg-type]
        for _ in range(2):
            found = dict(store.grams(known))
            assert list(found) == list(expected)
            np.testing.assert_array_equal(found["y"].products, expected["y"].products)
        assert some.read == reads


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_what_recurrent_layers_read(parse: Parse, samples: Any, direction: str) -> None:
    """Inputs, and hidden states: those that the layer puts out."""
    d = 1 + (direction == "bidirectional")
    call = f'LSTM <hidden_size = 5, direction = "{direction}"> (x, w, r)'
    model = build(parse, call, (7, 2, 3), w=normal(d, 20, 3), r=normal(d, 20, 5))
    (node,) = model.graph
    x = normal(7, 2, 3, seed=1)
    states = open_session(model).run({"x": x})["y"].astype(np.float64)  # [time, directions, batch, hidden]
    inputs, hidden = recurrent_columns(node, 1), recurrent_columns(node, 2)
    assert inputs is not None
    assert hidden is not None
    assert recurrent_columns(node, 0) is None
    found = dict(collect_grams(model, samples([{"x": x}]), {"inputs": inputs, "hidden": hidden}))
    flat = x.reshape(-1, 3).astype(np.float64)
    for index in range(d):
        np.testing.assert_allclose(found["inputs"].products[index], flat.T @ flat, rtol=1e-5)
        rows = states[:, index].reshape(-1, 5)
        np.testing.assert_allclose(found["hidden"].products[index], rows.T @ rows, rtol=1e-4, atol=1e-6)
    weight = normal(d, 20, 5)
    np.testing.assert_array_equal(hidden.weight(hidden.rows(weight), weight.shape), weight)
