"""Real models to mutate: the trained samples, those of exporters, and graphs with what these lack."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

__all__ = ["sources"]

_ROOT = Path(__file__).parents[2]
_TEXTS = (
    """g (bool c, float[N, 8] x) => (float[N, 8] y) {
        y = If (c) <
            then_branch = t () => (float[N, 8] p) { a = MatMul(x, w) p = Relu(a) },
            else_branch = e () => (float[N, 8] q) { two = Constant <value = float[1] {2.0}> () q = Mul(x, two) }
        >
    }""",
    """g (float[4, 8] x) => (float[8] y, float[4, 8] s) {
        start = Constant <value = float[1] {0.0}> ()
        initial = Expand(start, size)
        y, s = Scan <num_scan_inputs = 1, body = b (float[8] sum, float[8] row) => (float[8] next, float[8] out) {
            next = Add(sum, row) out = Identity(next)
        }> (initial, x)
    }""",
    """g (float[2, 8] x) => (float[2, 4] y) {
        shape = Shape(x)
        zero = Constant <value = int64[1] {0}> ()
        rows = Gather(shape, zero)
        four = Constant <value = int64[1] {4}> ()
        sizes = Concat <axis = 0> (rows, four)
        filled = ConstantOfShape <value = float[1] {1.0}> (sizes)
        left, right = Split <axis = 1, num_outputs = 2> (x)
        sum = Add(left, right)
        y = Mul(sum, filled)
    }""",
    """g (float[1, 1, 8, 8] x) => (float[1, 2, 4, 4] y) {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k, b)
        n = BatchNormalization (a, b, b, b, v)
        h = HardSwish(n)
        z = QuantizeLinear(h, scale, point)
        y = DequantizeLinear(z, scale, point)
    }""",
    """g (float[5, 2, 8] x) => (float[5, 1, 2, 4] y) {
        y, h = LSTM <hidden_size = 4> (x, weights, recurrent)
    }""",
)


def sources() -> list[bytes]:
    """Return serialized models."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 8)).astype(np.float32),
        "size": np.array([8]),
        "k": rng.normal(size=(2, 1, 3, 3)).astype(np.float32),
        "b": np.float32([0.1, 0.2]),
        "v": np.float32([1.0, 2.0]),
        "scale": np.float32(0.1),
        "point": np.uint8(3),
        "weights": rng.normal(size=(1, 16, 8)).astype(np.float32),
        "recurrent": rng.normal(size=(1, 16, 4)).astype(np.float32),
    }
    found = []
    for text in _TEXTS:
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
        words = set(text.replace(",", " ").replace(")", " ").replace("(", " ").split())
        proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items() if n in words)
        found.append(proto.SerializeToString())
    files = [*_ROOT.glob("sample_models/*/model.onnx"), *_ROOT.glob("tests/fixtures/**/*.onnx")]
    return found + [path.read_bytes() for path in sorted(files)]
