"""What `inspect` says of memory, of the values of weights, and of what could be gained: figures known by hand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcomp import inspect
from onnxcomp.cli.app import build_app, run
from onnxcomp.report.contents import ActivationMemory
from onnxcomp.report.html import render_html

Parse = Callable[..., onnx.ModelProto]
FLOATS = {"w": np.eye(8)}


def memory(model: onnx.ModelProto) -> ActivationMemory:
    found = inspect(model.SerializeToString(), batch=10).activations
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("nodes", "floats", "node"),
    [
        ("[a] y = Relu(x)", 80 + 80, "Relu a"),
        ("[a] h = Relu(x) [b] i = Relu(h) [c] y = Relu(i)", 80 + 80, "Relu a"),
        ("[a] h = Relu(x) [b] i = Relu(h) [c] y = Add(i, x)", 80 * 3, "Relu b"),  # x is kept for the end
        ("[a] h = Relu(x) [b] i = Concat<axis = 1>(h, h) [c] y = ReduceMax<axes = [1]>(i)", 80 + 160, "Concat b"),
        ("[a] h = MatMul(x, w) [b] y = Relu(h)", 80 + 80, "MatMul a"),  # weights are no activations
        ("[a] y = Relu(x) [b] h = Relu(y) [c] i = Relu(h)", 80 * 3, "Relu c"),  # y is an output: it is kept
    ],
)
def test_what_is_alive_at_once(parse: Parse, nodes: str, floats: int, node: str) -> None:
    model = parse(f"g (float[N, 8] x) => (float[N, M] y) {{ {nodes} }}", FLOATS)
    assert memory(model) == ActivationMemory(4 * floats, node, measured=True, unknown=0)


def test_dequantized_weights_are_no_activations(parse: Parse) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        s = Constant<value_float=0.5>() q = Cast<to=3>(w) d = DequantizeLinear(q, s) [a] y = MatMul(x, d) }"""
    found = memory(parse(text, FLOATS))
    assert (found.peak, found.node) == (4 * 160, "MatMul a")


def test_bodies_keep_what_they_read(parse: Parse) -> None:
    """While the body runs, what it reads, the condition and the result are there."""
    text = """g (float[N, 8] x, bool c) => (float[N, 8] y) {
        [a] h = Relu(x) [b] i = Neg(h) [pick] y = If(c) <
            then_branch = t () => (float[N, 8] p) { p = Add(h, i) },
            else_branch = e () => (float[N, 8] q) { q = Identity(i) }> }"""
    found = memory(parse(text))
    assert (found.peak, found.node) == (4 * 80 * 3 + 1, "If pick")


def test_shapes_that_nobody_knows(parse: Parse) -> None:
    model = parse("g (float[N, 8] x) => (float[N, 8] y) { h = other.Mystery(x) [b] y = Relu(h) }")
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    found = memory(model)
    assert not found.measured
    assert found.unknown > 0
    text = inspect(model.SerializeToString()).render()
    assert "inferred shapes" in text
    assert "of unknown size left out" in text


def test_histograms_of_weights(parse: Parse, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = np.zeros((64, 64), np.float32)
    values[0] = 1.0
    values[1, :2] = np.nan, 100.0
    weights: Mapping[str, np.ndarray] = {
        "w": values,
        "q": np.arange(-64, 64, dtype=np.int8).reshape(2, 64),
        "short": np.ones(63, np.float32),
        "same": np.full(64, 2.0, np.float32),
    }
    text = "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w) y = Add(a, same) }"
    path = tmp_path / "m.onnx"
    path.write_bytes(parse(text, weights).SerializeToString())
    found = {one.name: one for one in inspect(path, histograms=True).histograms}
    assert set(found) == {"w", "q", "same"}
    w = found["w"]
    assert (w.dtype, w.shape, w.least, w.most, w.broken) == ("float32", (64, 64), 0.0, 100.0, 1)
    assert w.zeros == pytest.approx((64 * 63 - 2) / 4095)
    assert w.outliers == pytest.approx(1 / 4095)
    assert sum(w.counts) == 4095
    assert (w.counts[0], w.counts[-1]) == (4094, 1)
    assert (found["q"].least, found["q"].most, set(found["q"].counts)) == (-64, 63, {4})
    assert (found["same"].counts, found["same"].outliers) == ((64,), 0.0)
    assert run(build_app(), ["inspect", str(path), "--histograms"]) == 0
    assert "1 NaN or infinite" in capfd.readouterr().out
    assert run(build_app(), ["inspect", str(path), "--histograms", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["histograms"][0]["counts"][-1] == 1
    page = inspect(path, histograms=True).html()
    assert "w: values from 0 to 100" in page
    assert "Weights in the order of the file" in page
    assert inspect(path).histograms == ()
    assert run(build_app(), ["inspect", str(path), str(path), "--histograms"]) == 2


def test_what_smaller_types_would_take(parse: Parse) -> None:
    weights = {"w": np.zeros((64, 32)), "b": np.zeros(64), "i": np.zeros(1000, np.int64)}
    content = parse("g (float[N, 64] x) => (float[N, 32] y) { y = MatMul(x, w) }", weights).SerializeToString()
    plain, grouped = inspect(content), inspect(content, groups=True)
    assert plain.estimates is not None
    assert plain.size - plain.estimates.float16 == 2 * (64 * 32 + 64)
    assert plain.size - plain.estimates.int8 == 3 * 64 * 32 - 5 * 64
    assert plain.estimates.prunable is None
    assert grouped.estimates is not None
    assert grouped.estimates.prunable == 0  # what is left and right of a single layer is fixed
    assert "not tried" in plain.render()


def test_the_page_of_all_details(sample_models: Path) -> None:
    model = sample_models / "lenet5" / "model.onnx"
    page = inspect(model, nodes=True, quantization=True, groups=True, histograms=True).html()
    titles = ("What it is", "Operators", "Histograms", "Channels that can be pruned", "Integers", "Nodes")
    assert all(f">{title}</h2>" in page for title in titles)
    plain = inspect(model).html()
    assert [f">{title}</h2>" in plain for title in titles] == [True, True, False, False, False, False]
    assert "not tried" in plain


def test_the_page_of_what_earlier_versions_saved(parse: Parse) -> None:
    model = parse("g (float[N, 8] x) => (float[?, 8] y) { h = other.Mystery(x) y = MatMul(h, w) }", FLOATS)
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    saved = inspect(model.SerializeToString()).to_dict()
    for name in ("activations", "estimates", "histograms"):
        del saved[name]
    page = render_html(saved)
    assert "onnxruntime refuses it" in page
    assert "at least" in page
