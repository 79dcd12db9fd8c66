"""Remove operators that hand on their input unchanged.

::

    w2 = Identity(w)
    t  = Conv(x, w2)              ==>    t = Conv(x, w)
    y  = Relu(Mul(t, 1))                 y = Relu(t)

These are: Identity; Dropout outside training; Cast to the type that the value has; Transpose that moves nothing, and
two that cancel; Reshape, Flatten, Squeeze and Expand to the shape that the value has; Squeeze and Unsqueeze that
cancel; adding 0, multiplying by 1 and their inverses; Concat, Sum, Mean, Max and Min of one value; Pad by nothing;
Clip without bounds; Slice of everything.

Declines: where the result could differ in shape or type (a broadcast, an unknown dimension), and where the graph's
output would lose its name: an output that is a graph input, an initializer or another output handed through.

Correct because the result equals the input element by element (``-0.0 + 0`` becomes ``0.0``, which compares equal).

Source: the definitions of the operators in the ONNX specification, opsets 7 to 26.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import bypass, constant, float_attribute, graphs, int_attribute, ints_attribute, is_op, onnx_domain
from ._shapes import Shapes, infer

__all__ = ["RemoveIdentities"]

_UNBOUNDED = 2**31 - 1  # exporters write this or more for "to the end"


class RemoveIdentities(Pass[NoConfig]):
    """Remove operators that hand on their input unchanged."""

    name: ClassVar[str] = "remove-identities"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        counts: Counter[str] = Counter()
        shapes = infer(model)
        for body in (*graphs(model), *model.functions.values()):
            for node in tuple(body):
                source = _source(node, shapes)
                if source is None:
                    continue
                if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
                    ctx.skip(node, "another of its outputs is used")
                elif bypass(node, source):
                    counts[node.op_type] += 1
                else:
                    ctx.skip(node, "a graph output needs its name")
        return PassStats(counts.total() > 0, {f"{op_type} removed": count for op_type, count in counts.items()})


def _source(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Return the value that the node hands on unchanged, if it does."""
    find = _FINDERS.get(node.op_type) if onnx_domain(node) else None
    if find is None or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    return find(node, shapes)


def _always(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Identity."""
    return node.inputs[0]


def _single(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """An operator over any number of inputs that has one."""
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Dropout; from opset 12 on it may be told to train."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant(node.inputs[2])
        if training is None or bool(training.any()):
            return None
    return node.inputs[0]


def _cast(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Cast to the type that is there."""
    dtype = shapes.dtype(node.inputs[0])
    return node.inputs[0] if dtype is not None and dtype == int_attribute(node, "to", -1) else None


def _transpose(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Transpose that moves nothing or takes an earlier one back."""
    source, perm = node.inputs[0], ints_attribute(node, "perm")
    if source is None:
        return None
    if perm is not None and perm == tuple(range(len(perm))):
        return source
    if perm is None and shapes.rank(source) in (0, 1):
        return source
    before = source.producer()
    if before is None or not is_op(before, "Transpose"):
        return None
    first = ints_attribute(before, "perm")
    if first is None and perm is None:
        return before.inputs[0]
    rank = len(first or perm or ())
    first = first or tuple(reversed(range(rank)))
    perm = perm or tuple(reversed(range(rank)))
    cancel = len(first) == len(perm) and all(first[p] == axis for axis, p in enumerate(perm))
    return before.inputs[0] if cancel else None


def _same_shape(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """An operator that only changes the shape, and does not.

    Where one dimension is unknown on both sides and all others agree, it agrees too: the number of elements does.
    """
    before, after = shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0])
    if before is None or after is None or len(before) != len(after):
        return None
    unknown = sum(a is None or b is None for a, b in zip(before, after, strict=True))
    known_agree = all(a is None or b is None or a == b for a, b in zip(before, after, strict=True))
    return node.inputs[0] if known_agree and unknown <= 1 else None


def _expand(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Expand to a shape that is there; an unknown dimension may have grown."""
    before, after = shapes.static(node.inputs[0]), shapes.static(node.outputs[0])
    if before is not None and before == after:
        return node.inputs[0]
    rank, target = shapes.rank(node.inputs[0]), constant(node.inputs[1])
    ones = target is not None and rank is not None and target.size <= rank and bool(np.all(target == 1))
    return node.inputs[0] if ones else None


def _squeeze(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Squeeze and Unsqueeze: of nothing, or taking each other back."""
    if (same := _same_shape(node, shapes)) is not None:
        return same
    source = node.inputs[0]
    before = None if source is None else source.producer()
    inverse = "Unsqueeze" if node.op_type == "Squeeze" else "Squeeze"
    if before is None or not is_op(before, inverse):
        return None
    axes, earlier = _axes(node), _axes(before)
    return before.inputs[0] if axes is not None and axes == earlier else None


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """Return the axes of a Squeeze or Unsqueeze as written: both count them in the longer shape."""
    if len(node.inputs) == 1:
        return ints_attribute(node, "axes")
    axes = constant(node.inputs[1])
    return None if axes is None else tuple(int(axis) for axis in axes.reshape(-1))


def _neutral(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Arithmetic with 0 or 1."""
    neutral = 0 if node.op_type in ("Add", "Sub") else 1
    left, right = node.inputs
    pairs = [(left, right), (right, left)] if node.op_type in ("Add", "Mul") else [(left, right)]
    for source, other in pairs:
        array = constant(other)
        if array is None or array.dtype.kind not in "iuf" or not np.all(array == neutral):
            continue
        if _keeps_shape(array.shape, shapes.dims(source)):
            return source
    return None


def _keeps_shape(other: tuple[int, ...], dims: tuple[int | None, ...] | None) -> bool:
    """Say whether broadcasting with ``other`` leaves the dimensions as they are."""
    if not other:
        return True
    if dims is None or len(other) > len(dims):
        return False
    return all(o in (1, d) for o, d in zip(reversed(other), reversed(dims), strict=False))


def _pad(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Pad by nothing; the amounts are an attribute up to opset 10."""
    if len(node.inputs) > 1:
        pads = constant(node.inputs[1])
    else:
        written = ints_attribute(node, "pads")
        pads = None if written is None else np.asarray(written)
    return node.inputs[0] if pads is not None and not pads.any() else None


def _clip(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Clip without bounds; they are attributes up to opset 10."""
    bounded = any(value is not None for value in node.inputs[1:])
    bounded |= float_attribute(node, "min", -np.inf) > -np.inf or float_attribute(node, "max", np.inf) < np.inf
    return None if bounded else node.inputs[0]


def _slice(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Slice from the start to the end of every axis."""
    if len(node.inputs) < 3:  # opset 9 and older
        starts, ends = ints_attribute(node, "starts") or (1,), ints_attribute(node, "ends") or (0,)
        return node.inputs[0] if not any(starts) and min(ends) >= _UNBOUNDED else None
    first, last = constant(node.inputs[1]), constant(node.inputs[2])
    step = constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if first is None or last is None or step is None:
        return None
    everything = not first.any() and bool(np.all(last >= _UNBOUNDED)) and bool(np.all(step == 1))
    return node.inputs[0] if everything else None


def _flatten(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Flatten of a matrix; by the second axis it stays what it is, whatever the dimensions."""
    matrix = shapes.rank(node.inputs[0]) == 2 and int_attribute(node, "axis", 1) in (1, -1)
    return node.inputs[0] if matrix else _same_shape(node, shapes)


_Finder = Callable[[ir.Node, Shapes], ir.Value | None]
_FINDERS: Mapping[str, _Finder] = MappingProxyType(
    {
        "Identity": _always,
        "Dropout": _dropout,
        "Cast": _cast,
        "Transpose": _transpose,
        "Reshape": _same_shape,
        "Flatten": _flatten,
        "Expand": _expand,
        **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
        **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _neutral),
        **dict.fromkeys(("Concat", "Sum", "Mean", "Max", "Min"), _single),
        "Pad": _pad,
        "Clip": _clip,
        "Slice": _slice,
    }
)
