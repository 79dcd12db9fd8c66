"""Rules for normalizations: statistics over channels become statistics over those that stay.

``LayerNormalization(x: [..., D])`` becomes one over the ``k`` channels that stay. Let ``m`` be their mean and ``S``
the sum of their squared distances to it. A normalization of ``k`` channels divides by ``sqrt(S / k + epsilon)``; with
its scale times ``sqrt(D / k)`` and its ``epsilon`` times ``D / k`` it divides by ``sqrt(S / D + epsilon)``. That is
what the original computes where each removed channel equals ``m``, and this original is what the smaller model is held
against: the statistics are not those of before (what is removed has no part in them), but the whole bookkeeping is
verified. A root mean square has no ``m``: there removed channels are 0.

Written out (ReduceMean, Sub, Pow, ReduceMean...) the first mean is one over what stays, and the second one, of squares,
is made smaller by ``k / D`` (`arithmetic`, `shrink`): the same numbers.

Source: Ba et al. 2016, "Layer Normalization", eq. 4; Zhang and Sennrich 2019 (RMSNorm), eq. 4; Wu and He 2018 (Group
Normalization), eq. 2; the equality is plain algebra.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import int_attribute, is_constant

from .atoms import Labels, spread
from .walk import Walk

__all__ = ["NORMS", "RESCALED"]

# epsilon and the scale, their second input, say how wide what they normalize is
RESCALED = frozenset(
    {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization"}
)  # fmt: skip


def _parameters(walk: Walk, node: ir.Node, last: int, labels: Labels) -> None:
    for index in range(1, last):
        if index < len(node.inputs) and node.inputs[index] is not None:
            if walk.weight(node, index) is None:
                walk.atoms.freeze(labels, f"a parameter of {node.op_type} is computed")
            walk.cut(node, index, 0, labels, "parameter")


def _statistics(walk: Walk, node: ir.Node, axes: Sequence[int], *, centred: bool = True) -> bool:
    """Read channels that lie along one of the axes that are normalized over, where it is so; say whether it is."""
    labels = walk.of(node.inputs[0])
    varying = walk.atoms.vary(labels)
    if len(varying) != 1 or varying[0] not in axes or not is_constant(node.inputs[1]):
        return False
    walk.read(node, 0, varying[0], over=axes if centred else ())
    walk.set(node.outputs[0], labels)
    return True


def _batch_norm(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...], a parameter [C] each; C by itself."""
    labels = walk.of(node.inputs[0])
    column = walk.atoms.column(labels, 1, "positions of one channel differ")
    _parameters(walk, node, 5, column)
    walk.set(node.outputs[0], spread(column, 1, labels.shape))


def _instance_norm(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...], scale and bias [C]: C by itself; what lies along other axes is normalized together."""
    if not _statistics(walk, node, range(2, len(walk.shape(node.inputs[0])))):
        _batch_norm(walk, node)


def _group_norm(walk: Walk, node: ir.Node) -> None:
    """X [N, C, ...]: of several groups whole ones go, since each has statistics of its own; of one group channels."""
    labels, groups = walk.of(node.inputs[0]), int_attribute(node, "num_groups", 1)
    alone = groups == 1 and _statistics(walk, node, range(1, labels.ndim))
    column = walk.atoms.column(labels, 1, "positions of one channel differ")
    if not alone:
        walk.atoms.tie(column.reshape(groups, -1), [1], "it is normalized with others")
    size = walk.shape(node.inputs[1])[0]
    if size == column.size or not alone:
        _parameters(walk, node, 3, column if size == column.size else column.reshape(groups, -1)[:, 0])
    walk.set(node.outputs[0], spread(column, 1, labels.shape))


def _layer_norm(walk: Walk, node: ir.Node) -> None:
    """X [...], scale and bias as the axes from ``axis`` on."""
    labels, output = walk.of(node.inputs[0]), node.outputs[0]
    axes = range(int_attribute(node, "axis", -1) % labels.ndim, labels.ndim)
    if _statistics(walk, node, axes, centred=node.op_type == "LayerNormalization"):
        for index, value in enumerate(node.inputs[1:], start=1):
            if is_constant(value):
                walk.follow(node, index, output)
            elif value is not None:
                walk.atoms.freeze(labels, f"a parameter of {node.op_type} is computed")
    elif walk.settle(labels, axes, f"{node.op_type} normalizes it with others"):
        walk.set(output, labels)
    if any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        walk.freeze(node, "statistics of a normalization are used")


def _softmax(walk: Walk, node: ir.Node) -> None:
    labels = walk.of(node.inputs[0])
    new = node.graph is None or node.graph.opset_imports.get("", 13) >= 13
    axis = int_attribute(node, "axis", -1 if new else 1) % labels.ndim
    axes = [axis] if new else list(range(axis, labels.ndim))
    if walk.settle(labels, axes, f"{node.op_type} is taken over it and others"):
        walk.set(node.outputs[0], labels)


def _lp_norm(walk: Walk, node: ir.Node) -> None:
    """Divide by the norm along one axis, which zeros leave as it is."""
    labels = walk.of(node.inputs[0])
    axis = int_attribute(node, "axis", -1) % labels.ndim
    varying = walk.atoms.vary(labels)
    if varying == (axis,):
        walk.read(node, 0, axis)
    elif not walk.settle(labels, [axis], f"{node.op_type} is taken over it and others"):
        return
    walk.set(node.outputs[0], labels)


NORMS: Mapping[str, Callable[[Walk, ir.Node], None]] = MappingProxyType(
    {
        **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _layer_norm),
        **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), _softmax),
        "BatchNormalization": _batch_norm,
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LpNormalization": _lp_norm,
    }
)
