"""Rules for operators that move elements: they move labels in the same way."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant, int_attribute, ints_attribute, is_constant

from .atoms import first
from .layers import embedding
from .walk import Walk

__all__ = ["MOVES", "slicing"]


def _reshape(walk: Walk, node: ir.Node) -> None:
    walk.set(node.outputs[0], walk.of(node.inputs[0]).reshape(walk.shape(node.outputs[0])))


def _transpose(walk: Walk, node: ir.Node) -> None:
    labels = walk.of(node.inputs[0])
    walk.set(node.outputs[0], labels.transpose(ints_attribute(node, "perm") or tuple(reversed(range(labels.ndim)))))


def _expand(walk: Walk, node: ir.Node) -> None:
    labels = walk.of(node.inputs[0])
    if walk.alive(node.inputs[0]):
        walk.set(node.outputs[0], np.broadcast_to(labels, walk.shape(node.outputs[0])))


def _tile(walk: Walk, node: ir.Node) -> None:
    repeats = constant(node.inputs[1])
    if repeats is None:
        walk.freeze(node, "how often it is repeated is computed")
    else:
        walk.set(node.outputs[0], np.tile(walk.of(node.inputs[0]), repeats.tolist()))


def _concat(walk: Walk, node: ir.Node) -> None:
    output = node.outputs[0]
    shape = walk.shape(output)
    axis = int_attribute(node, "axis", 0) % max(len(shape), 1)
    parts = [walk.of(value) for value in node.inputs]
    live = next((labels for labels in parts if axis not in walk.atoms.vary(labels) and walk.atoms.alive(labels)), None)
    for index, value in enumerate(node.inputs):
        if live is not None and value is not None and is_constant(value):  # as wide as what it stands beside
            parts[index] = np.broadcast_to(first(live, [axis]), walk.shape(value))
            walk.follow(node, index, output, without=axis)
        elif live is not None and value is not None:
            parts[index] = walk.adopted(value, first(live, [axis]))
    walk.set(output, np.concatenate(parts, axis=axis))


def _split(walk: Walk, node: ir.Node) -> None:
    labels, axis = walk.of(node.inputs[0]), int_attribute(node, "axis", 0)
    sizes = [walk.shape(output)[axis] for output in node.outputs]
    for output, part in zip(node.outputs, np.split(labels, np.cumsum(sizes)[:-1], axis=axis), strict=True):
        walk.set(output, part)


def slicing(node: ir.Node, rank: int) -> list[tuple[int, int, int, int]] | None:
    """Return axis, start, end and step of each axis that a Slice cuts; None where they are computed."""
    if ints_attribute(node, "starts") is not None:
        found = [ints_attribute(node, "starts"), ints_attribute(node, "ends"), ints_attribute(node, "axes"), None]
    else:
        found = []
        for index in (1, 2, 3, 4):
            value = node.inputs[index] if index < len(node.inputs) else None
            array = None if value is None else constant(value)
            if value is not None and array is None:
                return None
            found.append(None if array is None else tuple(array.tolist()))
    starts, ends, axes, steps = found
    assert starts is not None
    assert ends is not None
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    return [(axis % rank, start, end, step) for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)]


def _slice(walk: Walk, node: ir.Node) -> None:
    labels, shape = walk.of(node.inputs[0]), walk.shape(node.outputs[0])
    cuts = slicing(node, labels.ndim)
    if cuts is None:  # where it begins is computed: it may cut any axis but those whose size it leaves alone
        changed = [axis for axis in range(labels.ndim) if labels.shape[axis] != shape[axis]]
        if walk.settle(labels, [*changed, *walk.atoms.vary(labels)], "where it is cut is computed"):
            walk.set(node.outputs[0], np.broadcast_to(first(labels, changed), shape))
        return
    index: list[slice] = [slice(None)] * labels.ndim
    for axis, start, end, step in cuts:
        size = labels.shape[axis]
        low, high = (max(start, -size), end if end >= -size else None) if step < 0 else (start, end)
        index[axis] = slice(low, high, step)
        if step != 1 and axis in walk.atoms.vary(labels):
            walk.atoms.freeze(labels, "every n-th of its channels is taken")
    walk.set(node.outputs[0], labels[tuple(index)])


def _gather(walk: Walk, node: ir.Node) -> None:
    if embedding(walk, node):
        return
    labels, indices = walk.of(node.inputs[0]), constant(node.inputs[1])
    axis = int_attribute(node, "axis", 0) % labels.ndim
    if indices is not None:
        walk.set(node.outputs[0], np.take(labels, indices, axis=axis))
    elif walk.settle(labels, [axis], "which of its channels are taken is computed"):
        rank = len(walk.shape(node.inputs[1]))
        moved = first(labels, [axis])
        small = moved.reshape(moved.shape[:axis] + (1,) * rank + moved.shape[axis + 1 :])
        walk.set(node.outputs[0], small)


def _pad(walk: Walk, node: ir.Node) -> None:
    labels, shape = walk.of(node.inputs[0]), walk.shape(node.outputs[0])
    pads = ints_attribute(node, "pads") or ints_attribute(node, "paddings")
    if pads is None and (array := constant(node.inputs[1])) is not None and len(node.inputs) < 4:
        pads = tuple(array.tolist())
    varying = walk.atoms.vary(labels)
    if pads is None or any(amount < 0 for amount in pads):
        still = [axis for axis in range(labels.ndim) if axis not in varying]
        if any(labels.shape[axis] != shape[axis] for axis in varying):
            walk.atoms.freeze(labels, "how much is padded is computed")
        walk.set(node.outputs[0], np.broadcast_to(first(labels, still), shape))
        return
    whole = first(labels, [axis for axis in range(labels.ndim) if axis not in varying])
    widths = [(pads[axis], pads[axis + labels.ndim]) if axis in varying else (0, 0) for axis in range(labels.ndim)]
    if any(sum(width) for width in widths) and node.attributes.get_string("mode", "constant") != "constant":
        walk.atoms.freeze(labels, "its channels are padded with each other")
    walk.set(node.outputs[0], np.broadcast_to(np.pad(whole, widths), shape))


def _depth_to_space(walk: Walk, node: ir.Node) -> None:
    labels, block = walk.of(node.inputs[0]), int_attribute(node, "blocksize", 1)
    batch, depth, *space = labels.shape
    deep = depth // block**2
    if node.attributes.get_string("mode", "DCR") == "DCR":
        turned = labels.reshape(batch, block, block, deep, *space).transpose(0, 3, 4, 1, 5, 2)
    else:
        turned = labels.reshape(batch, deep, block, block, *space).transpose(0, 1, 4, 2, 5, 3)
    walk.set(node.outputs[0], turned.reshape(walk.shape(node.outputs[0])))
    walk.atoms.column(walk.of(node.outputs[0]), 1, "positions of one channel must stay")


def _space_to_depth(walk: Walk, node: ir.Node) -> None:
    labels, block = walk.of(node.inputs[0]), int_attribute(node, "blocksize", 1)
    batch, depth, height, width = labels.shape
    cells = labels.reshape(batch, depth, height // block, block, width // block, block)
    walk.set(node.outputs[0], cells.transpose(0, 3, 5, 1, 2, 4).reshape(walk.shape(node.outputs[0])))


def _resize(walk: Walk, node: ir.Node) -> None:
    """Pooling and interpolation: each channel by itself, [N, C, ...]."""
    column = walk.atoms.column(walk.of(node.inputs[0]), 1, "positions of one channel differ")
    for output in node.outputs:
        if (shape := walk.shape(output)) and output is node.outputs[0]:
            walk.set(output, np.broadcast_to(column.reshape(1, -1, *([1] * (len(shape) - 2))), shape))
        elif shape and output.uses():
            walk.atoms.freeze(column, "positions of its largest values are used")


_Rule = Callable[[Walk, ir.Node], None]
MOVES: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
        **dict.fromkeys(
            ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "Resize",
             "Upsample"),
            _resize,
        ),
        "Concat": _concat,
        "DepthToSpace": _depth_to_space,
        "Expand": _expand,
        "Gather": _gather,
        "Pad": _pad,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Tile": _tile,
        "Transpose": _transpose,
    }
)  # fmt: skip
