"""What a node costs: multiply-accumulate operations (MACs), from the shapes of its tensors.

Only products that are added up count: convolutions, matrix products, recurrences. Elementwise operators, pooling and
normalization are 0 by this custom, so that the figure compares with what papers print. Where a shape is not known, or
an operator is not known, the answer is None: nothing is guessed.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["macs"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Of the standard domain: they multiply and add, in ways that are not counted here
_UNCOUNTED = frozenset({"Attention", "DFT", "Det", "GridSample", "ImageDecoder", "MelWeightMatrix", "STFT"})
# Of com.microsoft: they only add, scale or move
_FREE = frozenset({"BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "QLinearAdd", "QLinearAveragePool",
                   "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid",
                   "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu",
                   "SkipLayerNormalization"})  # fmt: skip
# Of ai.onnx.ml: they look up, compare, scale or move
_FREE_ML = frozenset({"ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer",
                      "FeatureVectorizer", "Imputer", "LabelEncoder", "Normalizer", "OneHotEncoder", "Scaler",
                      "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap"})  # fmt: skip
_Shape = tuple[int, ...]


def macs(node: "ir.Node") -> int | None:
    """Return the multiply-accumulate operations of one execution of a node; None: they can't be told.

    If, Loop and Scan cost nothing themselves: the nodes of their bodies do.
    """
    count = _COUNTS.get(node.op_type)
    if count is not None and node.domain in ("", "ai.onnx", "com.microsoft"):
        return count(node)
    if node.domain in ("", "ai.onnx"):
        return None if node.op_type in _UNCOUNTED else 0
    if node.domain == "ai.onnx.ml":
        return 0 if node.op_type in _FREE_ML else _linear(node)
    return 0 if node.domain == "com.microsoft" and node.op_type in _FREE else None


def _linear(node: "ir.Node") -> int | None:
    """LinearClassifier and LinearRegressor: X [rows, features], all coefficients for each row."""
    x, coefficients = _shape(node, 0), node.attributes.get("coefficients")
    if node.op_type not in ("LinearClassifier", "LinearRegressor") or x is None or len(x) != 2 or not coefficients:
        return None
    return x[0] * len(coefficients.as_floats())


def _shape(node: "ir.Node", index: int, *, output: bool = False) -> _Shape | None:
    """Return the shape of an input or output, where every dimension is known."""
    values = node.outputs if output else node.inputs
    value = values[index] if index < len(values) else None
    if value is None:
        return None
    shape = value.shape if value.const_value is None else value.const_value.shape
    if shape is None or not all(isinstance(size, int) and size >= 0 for size in shape):
        return None
    return tuple(int(size) for size in shape)  # type: ignore[arg-type]


def _convolution(weight_index: int) -> Callable[["ir.Node"], int | None]:
    """Weight [out, in / groups, *kernel]: each output element takes in / groups * kernel MACs."""

    def count(node: "ir.Node") -> int | None:
        weight, out = _shape(node, weight_index), _shape(node, 0, output=True)
        return None if weight is None or out is None else math.prod(out) * math.prod(weight[1:])

    return count


def _transposed_convolution(node: "ir.Node") -> int | None:
    """Weight [in, out / groups, *kernel]: each input element is spread by out / groups * kernel MACs."""
    weight, x = _shape(node, 1), _shape(node, 0)
    return None if weight is None or x is None else math.prod(x) * math.prod(weight[1:])


def _product(a_index: int, b_index: int) -> Callable[["ir.Node"], int | None]:
    """A [..., M, K] times B [..., K, N], with numpy's broadcasting and vectors; transposed by attributes or not."""

    def count(node: "ir.Node") -> int | None:
        a, b = _shape(node, a_index), _shape(node, b_index)
        if not a or not b:
            return None
        flags = [bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")]
        if any(node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
            return None
        a, b = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
        rows, inner = (a[-1], a[-2]) if flags[0] else (a[-2], a[-1])
        columns = b[-2] if flags[1] else b[-1]
        batch = _broadcast(a[:-2], b[:-2])
        return None if batch is None else batch * rows * inner * columns

    return count


def _broadcast(a: _Shape, b: _Shape) -> int | None:
    """Return the elements of the shape that two shapes broadcast to; None: they do not fit."""
    length = max(len(a), len(b))
    pairs = zip((1,) * (length - len(a)) + a, (1,) * (length - len(b)) + b, strict=True)
    sizes = []
    for one, other in pairs:
        if one != other and 1 not in (one, other):
            return None
        sizes.append(other if one == 1 else one)
    return math.prod(sizes)


def _blocked_product(node: "ir.Node") -> int | None:
    """MatMulNBits: A [..., K] times a packed matrix of N columns."""
    a, columns = _shape(node, 0), node.attributes.get_int("N", 0)
    return math.prod(a) * columns if a and columns else None


def _recurrence(node: "ir.Node") -> int | None:
    """X [steps, batch, in] (or batch first): per step, gate and direction, in * hidden + hidden * hidden MACs."""
    x, hidden = _shape(node, 0), node.attributes.get_int("hidden_size", 0)
    gates = _GATES.get(node.op_type.removeprefix("DynamicQuantize"))
    if x is None or len(x) != 3 or not hidden or gates is None:
        return None
    directions = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    return x[0] * x[1] * directions * gates * hidden * (x[2] + hidden)


def _einsum(node: "ir.Node") -> int | None:
    """Two operands: one MAC for each combination of index values. Other numbers of operands are not counted."""
    left, _, _ = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    shapes = [_shape(node, index) for index in range(len(node.inputs))]
    if len(terms) != 2 or len(shapes) != 2 or "." in left:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if shape is None or len(shape) != len(term):
            return None
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 0))
    return math.prod(sizes.values())


_COUNTS: Mapping[str, Callable[["ir.Node"], int | None]] = MappingProxyType(
    {
        **dict.fromkeys(("Conv", "ConvInteger", "DeformConv", "FusedConv"), _convolution(1)),
        "QLinearConv": _convolution(3),
        "ConvTranspose": _transposed_convolution,
        **dict.fromkeys(
            ("DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger",
             "MatMulIntegerToFloat"),
            _product(0, 1),
        ),
        **dict.fromkeys(("QGemm", "QLinearMatMul"), _product(0, 3)),
        "MatMulNBits": _blocked_product,
        **dict.fromkeys(("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN"), _recurrence),
        "Einsum": _einsum,
    }
)  # fmt: skip
