"""Rules for operators with weights: which axis of a weight makes channels, and which one reads them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import int_attribute, is_constant

from .atoms import Labels, along, first, spread
from .walk import Reader, Walk

__all__ = ["LAYERS", "RECURRENT", "embedding"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RECURRENT = tuple(_GATES)


def _conv(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...], W [out, in / group, ...], B [out]."""
    weight = walk.weight(node, 1)
    if weight is None:
        walk.freeze(node, "the weight of a convolution is computed")
        return
    groups, (outputs, inputs) = int_attribute(node, "group", 1), weight.shape[:2]
    made = _grouped(walk, node, groups=groups, inputs=inputs, outputs=outputs // groups, axes=(0, 1))
    if walk.weight(node, 2) is not None:
        walk.cut(node, 2, 0, made, "parameter")


def _conv_transpose(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...], W [in, out / group, ...], B [out]."""
    weight = walk.weight(node, 1)
    if weight is None:
        walk.freeze(node, "the weight of a convolution is computed")
        return
    groups, (inputs, outputs) = int_attribute(node, "group", 1), weight.shape[:2]
    made = _grouped(walk, node, groups=groups, inputs=inputs // groups, outputs=outputs, axes=(1, 0))
    if walk.weight(node, 2) is not None:
        walk.cut(node, 2, 0, made, "parameter")


def _grouped(walk: Walk, node: ir.Node, *, groups: int, inputs: int, outputs: int, axes: tuple[int, int]) -> Labels:
    """Label a convolution, [out]: of groups each keeps the same positions, so that all keep the same number.

    Args:
        walk: To write on.
        node: Conv or ConvTranspose.
        groups: How many there are.
        inputs: Of each group.
        outputs: Of each group.
        axes: Of the weight: the one of output channels, the one of input channels. The first has all groups.
    """
    shape = walk.shape(node.outputs[0])
    if groups > 1 and inputs == 1:  # depthwise: a channel comes from one channel
        column = walk.atoms.column(walk.of(node.inputs[0]), 1, "positions of one channel differ")
        made = np.repeat(column, outputs)
        if axes[0] == 0:
            walk.cut(node, 1, 0, made, "out")
        else:
            walk.cut(node, 1, axes[1], column, "out")
    elif groups > 1:
        column = walk.read(node, 0, 1)
        made = walk.fresh(node, groups * outputs)
        for labels in (column, made):
            walk.atoms.tie(labels.reshape(groups, -1), [0], "another group of the convolution must keep it")
        shared, whole = (column, made) if axes[0] == 0 else (made, column)
        walk.cut(node, 1, 0, whole, "out" if axes[0] == 0 else "in")
        walk.cut(node, 1, 1, shared[: shared.size // groups], "in" if axes[0] == 0 else "out")
    else:
        walk.cut(node, 1, axes[1], walk.read(node, 0, 1), "in")
        made = walk.fresh(node, outputs)
        walk.cut(node, 1, axes[0], made, "out")
    walk.set(node.outputs[0], spread(made, 1, shape))
    return made


def _gemm(walk: Walk, node: ir.Node) -> None:
    """A [M, K], B [K, N], C broadcast to [M, N]; each of A and B may be turned."""
    if walk.weight(node, 1) is None or int_attribute(node, "transA", 0):
        walk.freeze(node, "it is a product of computed matrices, or of a turned one")
        return
    turned = int_attribute(node, "transB", 0)
    _linear(walk, node, data=0, axis=1, weight=1, inside=turned, outside=1 - turned, out=1)
    if len(node.inputs) > 2 and (bias := node.inputs[2]) is not None:
        output = node.outputs[0]
        if is_constant(bias):
            walk.follow(node, 2, output)
        else:
            added, made = walk.of(bias), walk.of(output)
            if walk.atoms.alive(added) or walk.atoms.alive(made):
                walk.atoms.join(made, added, f"the bias of {node.name} is computed")


def _matmul(walk: Walk, node: ir.Node) -> None:
    """A [..., M, K], B [..., K, N]."""
    a, b = (walk.shape(value) for value in node.inputs)
    constants = [walk.weight(node, index) is not None for index in (0, 1)]
    if min(len(a), len(b)) < 2:
        walk.freeze(node, "it is a product with a vector")
    elif all(constants):
        return
    elif constants[1]:
        _linear(walk, node, data=0, axis=-1, weight=1, inside=len(b) - 2, outside=len(b) - 1, out=-1)
    elif constants[0]:
        _linear(walk, node, data=1, axis=-2, weight=0, inside=len(a) - 1, outside=len(a) - 2, out=-2)
    else:
        _product(walk, node)


def _linear(
    walk: Walk, node: ir.Node, *, data: int, axis: int, weight: int, inside: int, outside: int, out: int
) -> None:
    """Label a product with a constant matrix: it makes channels, or hands on what changes along a batch axis.

    Args:
        walk: To write on.
        node: Gemm or MatMul.
        data: Which input is the activation.
        axis: Of the activation that is summed over.
        weight: Which input is the constant.
        inside: Axis of the constant that is summed over.
        outside: Axis of the constant that makes channels.
        out: Axis of the output that they are on.
    """
    labels, shape = walk.of(node.inputs[data]), walk.shape(node.outputs[0])
    axis, out = axis % labels.ndim, out % len(shape)
    varying = walk.atoms.vary(labels)
    matrix = walk.shape(node.inputs[weight])
    batched = [k for k in range(len(matrix) - 2) if matrix[k] > 1]
    if varying and axis not in varying:
        if labels.ndim == len(shape):
            walk.set(node.outputs[0], first(labels, [axis]))
        else:
            walk.atoms.freeze(labels, f"{node.name} repeats it")
        walk.refused[str(node.name)] = "its input is pruned along another axis"
        if batched:
            walk.follow(node, weight, node.outputs[0])
        return
    if varying:
        walk.cut(node, weight, inside, walk.read(node, data, axis), "in")
    made = walk.fresh(node, matrix[outside])
    walk.cut(node, weight, outside, made, "out")
    walk.set(node.outputs[0], spread(made, out, shape))


def _product(walk: Walk, node: ir.Node) -> None:
    """Label a product of activations: attention. Whole heads go, or the same dimensions of all heads."""
    atoms, shape = walk.atoms, walk.shape(node.outputs[0])
    whole, sides = f"{node.op_type} {node.name} reads it whole", []
    for index, summed in ((0, -1), (1, -2)):
        labels = walk.of(node.inputs[index])
        labels = labels.reshape((1,) * (len(shape) - labels.ndim) + labels.shape)
        varying, batch = atoms.vary(labels), set(range(len(shape) - 2))
        if set(varying) & batch and set(varying) - batch:
            heads = walk.granularity == "head"
            atoms.tie(labels, set(varying) - batch if heads else batch, whole)
            walk.kinds.append((labels, "head" if heads else "dim"))
        elif set(varying) & batch:
            walk.kinds.append((labels, "head"))
        sides.append((index, labels, summed))
    (_, a, _), (_, b, _) = sides
    depth = len(shape)
    varying_a, varying_b = set(atoms.vary(a)), set(atoms.vary(b))
    if depth - 1 in varying_a or depth - 2 in varying_b:  # what is summed over
        for index, labels, summed in sides:
            column = atoms.column(labels, summed, whole)
            rank = len(walk.shape(node.inputs[index]))
            walk.readers.append(Reader(str(node.name), index, rank + summed, column))
        atoms.join(along(a, -1), along(b, -2), whole)
        varying_a -= {depth - 1}
        varying_b -= {depth - 2}
        if not varying_a | varying_b:
            return
    batch_a, batch_b = varying_a & set(range(depth - 2)), varying_b & set(range(depth - 2))
    left, right = first(a, [depth - 1]), first(b, [depth - 2])
    if batch_a or batch_b:
        walk.set(node.outputs[0], walk.combined([left, right], shape, whole))
    elif varying_a and varying_b:
        atoms.freeze(a, "a product has channels along both axes")
        atoms.freeze(b, "a product has channels along both axes")
    elif varying_a or varying_b:
        walk.set(node.outputs[0], left if varying_a else right)


def _recurrent(walk: Walk, node: ir.Node) -> None:
    """X [T, N, in], W [D, gates * H, in], R [D, gates * H, H], B [D, 2 * gates * H], states [D, N, H].

    A unit is its rows in all gates, its column of R and its place in states and outputs, in both directions.
    """
    gates, names = _GATES[node.op_type], str(node.name)
    weights = [walk.weight(node, index) for index in (1, 2)]
    if any(weight is None for weight in weights) or int_attribute(node, "layout", 0):
        walk.freeze(node, "its weights are computed, or its layout is batch first")
        return
    size = int_attribute(node, "hidden_size", 0)
    if walk.alive(node.inputs[0]):
        walk.cut(node, 1, 2, walk.read(node, 0, 2), "in")
    units = walk.fresh(node, size)
    walk.kinds.append((units, "unit"))
    for index, repeat in ((3, 2 * gates), (7, 3)):
        if index < len(node.inputs) and node.inputs[index] is not None:
            if walk.weight(node, index) is None:
                walk.atoms.freeze(units, "a parameter is computed")
            walk.cut(node, index, 1, np.tile(units, repeat), "parameter")
    for index in (1, 2):
        walk.cut(node, index, 1, np.tile(units, gates), "out")
    walk.cut(node, 2, 2, units, "in")
    if int_attribute(node, "input_forget", 0) or node.attributes.get("activation_alpha") is not None:
        walk.refused[names] = "it has settings of its own"
        walk.atoms.freeze(units, "it has settings of its own")
    for index in (5, 6):
        _state(walk, node, index, units)
    if len(node.inputs) > 4 and walk.alive(node.inputs[4]):
        walk.atoms.freeze(walk.of(node.inputs[4]), "they are lengths")
    for output in node.outputs:
        if shape := walk.shape(output):
            walk.set(output, spread(units, -1, shape))


def _state(walk: Walk, node: ir.Node, index: int, units: Labels) -> None:
    """Join an initial state with the units: zeros are made smaller, constants are cut, others must stay or go along."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return
    if walk.weight(node, index) is not None:
        walk.cut(node, index, 2, units, "parameter")
        return
    made = spread(units, 2, walk.shape(value))
    walk.atoms.join(walk.adopted(value, made), made, "its state is an input of the model, or computed")


def embedding(walk: Walk, node: ir.Node) -> bool:
    """Label an embedding: rows of a constant table [rows, channels]. Say whether it is one."""
    table = walk.weight(node, 0)
    if table is None or table.ndim != 2 or int_attribute(node, "axis", 0) or table.dtype.kind != "f":
        return False
    if is_constant(node.inputs[1]):
        return False
    made = walk.fresh(node, table.shape[1])
    walk.cut(node, 0, 1, made, "out")
    walk.set(node.outputs[0], spread(made, -1, walk.shape(node.outputs[0])))
    return True


LAYERS: Mapping[str, Callable[[Walk, ir.Node], None]] = MappingProxyType(
    {
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "MatMul": _matmul,
        **dict.fromkeys(_GATES, _recurrent),
    }
)
