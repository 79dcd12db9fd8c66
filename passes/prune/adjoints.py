"""How a loss changes with what a node reads, told how it changes with what the node gives: adjoints, in numpy.

For ``y = f(x)`` and ``g = dL/dy`` an adjoint returns ``dL/dx``. The node itself is run by onnxruntime: adjoints take
what it read and gave. Convolutions are worked through tap by tap, so that no patches are kept.

Source: Griewank and Walther 2008, "Evaluating Derivatives", section 3.2 (reverse mode).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import float_attribute, int_attribute, ints_attribute
from onnxcomp.statistics import Window

__all__ = ["ADJOINTS", "Adjoint"]

Array = np.ndarray
Inputs = Sequence[Array | None]
Adjoint = Callable[[ir.Node, Inputs, Array, Array], Sequence[Array | None]]
"""From a node, what it read, what it gave and dL/dy to dL/dx of its first inputs, in their shapes; None: not known."""


def _given(x: Array | None) -> Array:
    assert x is not None
    return x


def _summed(g: Array, like: Array) -> Array:
    """Undo broadcasting: sum over the axes along which an operand was repeated."""
    g = g.sum(axis=tuple(range(g.ndim - like.ndim)))
    axes = tuple(axis for axis, size in enumerate(like.shape) if size == 1 and g.shape[axis] != 1)
    return g.sum(axis=axes, keepdims=True) if axes else g


def _pointwise(slope: Callable[[ir.Node, Inputs, Array], Array]) -> Adjoint:
    return lambda node, x, y, g: [g * slope(node, x, y)]


def _pair(slopes: Callable[[Array, Array, Array], tuple[Array | float, Array | float]]) -> Adjoint:
    def adjoint(_node: ir.Node, x: Inputs, y: Array, g: Array) -> Sequence[Array | None]:
        a, b = _given(x[0]), _given(x[1])
        first, second = slopes(a, b, y)
        return [_summed(g * first, a), _summed(g * second, b)]

    return adjoint


def _reshaped(_node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    return [g.reshape(_given(x[0]).shape)]


def _transpose(node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    order = ints_attribute(node, "perm") or tuple(reversed(range(_given(x[0]).ndim)))
    return [g.transpose(np.argsort(order))]


def _concat(node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    axis = int_attribute(node, "axis", 0)
    ends = np.cumsum([_given(part).shape[axis] for part in x])[:-1]
    return np.split(g, ends, axis=axis)


def _clip_slope(node: ir.Node, x: Inputs, _y: Array) -> Array:
    ends = [float_attribute(node, "min", -math.inf), float_attribute(node, "max", math.inf)]
    low, high = (
        ends[k] if len(x) <= k + 1 or (bound := x[k + 1]) is None else float(bound.reshape(())) for k in range(2)
    )
    return (_given(x[0]) > low) & (_given(x[0]) < high)


def _leaky_slope(node: ir.Node, x: Inputs, _y: Array) -> Array:
    found: Array = np.where(_given(x[0]) > 0, 1, float_attribute(node, "alpha", 0.01))
    return found


def _hard_sigmoid_slope(node: ir.Node, _x: Inputs, y: Array) -> Array:
    return float_attribute(node, "alpha", 0.2) * ((y > 0) & (y < 1))


def _hard_swish_slope(_node: ir.Node, x: Inputs, _y: Array) -> Array:
    values = _given(x[0])
    found: Array = np.where(np.abs(values) < 3, values / 3 + 0.5, values > 0)
    return found


def _gelu_slope(node: ir.Node, x: Inputs, _y: Array) -> Array:
    from scipy.special import erf

    values = _given(x[0])
    if (how := node.attributes.get("approximate")) is not None and how.as_string() == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * values**2)
        smooth: Array = 0.5 * (1 + inner) + 0.5 * values * (1 - inner**2) * slope
        return smooth
    normal = np.exp(-np.square(values) / 2) / math.sqrt(2 * math.pi)
    found: Array = 0.5 * (1 + erf(values / math.sqrt(2))) + values * normal
    return found


def _softmax(node: ir.Node, _x: Inputs, y: Array, g: Array) -> Sequence[Array | None]:
    axis = int_attribute(node, "axis", -1)
    return [y * (g - (g * y).sum(axis=axis, keepdims=True))]


def _gemm(node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    a, b = _given(x[0]), _given(x[1])
    turned = [bool(int_attribute(node, name, 0)) for name in ("transA", "transB")]
    left, right = a.T if turned[0] else a, b.T if turned[1] else b
    g_left, g_right = g @ right.T, left.T @ g
    alpha, beta = (float_attribute(node, name, 1.0) for name in ("alpha", "beta"))
    found = [alpha * (g_left.T if turned[0] else g_left), alpha * (g_right.T if turned[1] else g_right)]
    return [*found, beta * _summed(g, _given(x[2]))] if len(x) > 2 else found


def _matmul(_node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    a, b = _given(x[0]), _given(x[1])
    if b.ndim == 2 and a.ndim >= 2:
        rows, right = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        return [(right @ b.T).reshape(a.shape), rows.T @ right]
    if min(a.ndim, b.ndim) < 2:
        raise NotImplementedError
    return [_summed(g @ np.swapaxes(b, -1, -2), a), _summed(np.swapaxes(a, -1, -2) @ g, b)]


def _window(node: ir.Node, kernel: Sequence[int]) -> Window:
    axes, attributes = len(kernel), node.attributes
    return Window(
        tuple(kernel),
        tuple(attributes.get_ints("strides", [1] * axes)),
        tuple(attributes.get_ints("dilations", [1] * axes)),
        tuple(attributes.get_ints("pads", [0] * 2 * axes)),
        attributes.get_string("auto_pad", "NOTSET"),
        attributes.get_int("group", 1),
    )


def _taps(window: Window, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield each position in a kernel with the places of a padded input that it meets, one per output position."""
    for tap in itertools.product(*map(range, window.kernel)):
        starts = [k * dilation for k, dilation in zip(tap, window.dilations, strict=True)]
        ends = zip(starts, sizes, window.strides, strict=True)
        yield tap, tuple(slice(start, start + (size - 1) * step + 1, step) for start, size, step in ends)


def _cut(padded: Array, padding: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Array:
    ends = zip(padding, shape[2:], strict=True)
    return padded[(slice(None), slice(None), *(slice(before, before + size) for (before, _), size in ends))]


def _conv(node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    values, weight = _given(x[0]), _given(x[1])
    window, batch, sizes = _window(node, weight.shape[2:]), len(values), g.shape[2:]
    padding = window.padding(values.shape[2:])
    padded = np.pad(values, [(0, 0), (0, 0), *padding])
    parts = window.groups
    out = g.reshape(batch, parts, len(weight) // parts, -1)  # [N, groups, outputs, positions]
    kernels = weight.reshape(parts, len(weight) // parts, *weight.shape[1:])
    g_padded, g_weight = np.zeros_like(padded), np.zeros_like(kernels)
    for tap, places in _taps(window, sizes):
        where: tuple[slice, ...] = (slice(None), slice(None), *places)
        read = padded[where].reshape(batch, parts, weight.shape[1], -1)
        tapped: tuple[slice | int, ...] = (slice(None), slice(None), slice(None), *tap)
        g_weight[tapped] = np.matmul(out, read.swapaxes(2, 3)).sum(axis=0)
        back = np.matmul(kernels[tapped].swapaxes(1, 2), out)
        g_padded[where] += back.reshape(batch, values.shape[1], *sizes)
    found = [_cut(g_padded, padding, values.shape), g_weight.reshape(weight.shape)]
    return [*found, g.sum(axis=(0, *range(2, g.ndim)))] if len(x) > 2 else found


def _max_pool(node: ir.Node, x: Inputs, y: Array, g: Array) -> Sequence[Array | None]:
    values = _given(x[0])
    window, sizes = _window(node, ints_attribute(node, "kernel_shape") or ()), y.shape[2:]
    ends = zip(window.padding(values.shape[2:]), window.kernel, window.strides, strict=True)
    padding = [(before, behind + kernel + step) for (before, behind), kernel, step in ends]  # ceil_mode reaches farther
    padded = np.pad(values, [(0, 0), (0, 0), *padding], constant_values=-np.inf)
    g_padded, left = np.zeros_like(padded), np.ones(y.shape, np.bool_)
    for _, places in _taps(window, sizes):
        where = (slice(None), slice(None), *places)
        mine = left & (padded[where] == y)
        g_padded[where] += g * mine
        left &= ~mine
    return [_cut(g_padded, padding, values.shape)]


def _mean(node: ir.Node, x: Inputs, y: Array, g: Array) -> Sequence[Array | None]:
    values = _given(x[0])
    if node.op_type == "GlobalAveragePool":
        axes: tuple[int, ...] = tuple(range(2, values.ndim))
    else:
        named = ints_attribute(node, "axes")
        if named is None and len(x) > 1 and x[1] is not None:
            named = tuple(x[1].reshape(-1).tolist())
        if not named and int_attribute(node, "noop_with_empty_axes", 0):
            return [g]
        axes = tuple(axis % values.ndim for axis in named or range(values.ndim))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(values.shape))
    return [np.broadcast_to(g.reshape(kept) * (y.size / values.size), values.shape)]


def _layer_norm(node: ir.Node, x: Inputs, _y: Array, g: Array) -> Sequence[Array | None]:
    values, scale = _given(x[0]), _given(x[1])
    axes = tuple(range(int_attribute(node, "axis", -1) % values.ndim, values.ndim))
    away = values - values.mean(axis=axes, keepdims=True)
    width = np.sqrt(np.square(away).mean(axis=axes, keepdims=True) + float_attribute(node, "epsilon", 1e-5))
    normal, inner = away / width, g * scale
    means = [each.mean(axis=axes, keepdims=True) for each in (inner, inner * normal)]
    found = [(inner - means[0] - normal * means[1]) / width, _summed(g * normal, scale)]
    return [*found, _summed(g, _given(x[2]))] if len(x) > 2 else found


ADJOINTS: Mapping[str, Adjoint] = MappingProxyType(
    {
        "Add": _pair(lambda _a, _b, _y: (1.0, 1.0)),
        "Sub": _pair(lambda _a, _b, _y: (1.0, -1.0)),
        "Mul": _pair(lambda a, b, _y: (b, a)),
        "Div": _pair(lambda _a, b, y: (1 / b, -y / b)),
        "Relu": _pointwise(lambda _node, _x, y: y > 0),
        "LeakyRelu": _pointwise(
            lambda node, x, _y: np.where(_given(x[0]) > 0, 1, float_attribute(node, "alpha", 0.01))
        ),
        "Clip": _pointwise(_clip_slope),
        "Sigmoid": _pointwise(lambda _node, _x, y: y * (1 - y)),
        "HardSigmoid": _pointwise(_hard_sigmoid_slope),
        "HardSwish": _pointwise(_hard_swish_slope),
        "Tanh": _pointwise(lambda _node, _x, y: 1 - np.square(y)),
        "Erf": _pointwise(lambda _node, x, _y: 2 / math.sqrt(math.pi) * np.exp(-np.square(_given(x[0])))),
        "Gelu": _pointwise(_gelu_slope),
        "Sqrt": _pointwise(lambda _node, _x, y: 0.5 / np.maximum(y, 1e-12)),
        "Pow": lambda _node, x, _y, g: [g * _given(x[1]) * np.power(_given(x[0]), _given(x[1]) - 1), None],
        **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"), _reshaped),
        "Transpose": _transpose,
        "Concat": _concat,
        "Softmax": _softmax,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Conv": _conv,
        "MaxPool": _max_pool,
        **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _mean),
        "LayerNormalization": _layer_norm,
    }
)
