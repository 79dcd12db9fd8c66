"""Sizes and positions that are written into a graph, made anew for tensors that lost channels.

``Reshape(x, [0, 12, 32])`` becomes ``Reshape(x, [0, 6, 32])`` where half of the heads went. Where a shape is put
together while the model runs (``Concat(batch, [12], [32])``), the constant pieces change.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PassError
from onnxcomp.passes.cleanup._graph import Names, constant, int_attribute, ints_attribute, set_constant

from .moves import slicing

__all__ = ["Sized", "rewrite_sizes", "says_a_size"]

_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
_FORWARD = ("Cast", "Identity", "Squeeze", "Unsqueeze")
_END = 2**31
_ARITHMETIC = frozenset({"Add", "Concat", "Div", "Gather", "Mul", "Slice", "Sub"})  # that sizes are computed with


class Sized:
    """Answers how large tensors were and are.

    Args:
        mask: Of an axis of a tensor, given its name: True where an index stays; None where all do.
        shape: Of a tensor as it was, by name.
    """

    def __init__(
        self,
        mask: Callable[[str, int], np.ndarray | None],
        shape: Callable[[str], tuple[int, ...]],
    ) -> None:
        self.mask = mask
        self.shape = shape

    def new(self, value: ir.Value) -> tuple[int, ...]:
        """Return the new shape of a tensor."""
        name = str(value.name)
        sizes = []
        for axis, size in enumerate(self.shape(name)):
            mask = self.mask(name, axis)
            sizes.append(size if mask is None else int(mask.sum()))
        return tuple(sizes)

    def changed(self, value: ir.Value | None) -> bool:
        """Say whether a tensor lost something."""
        return value is not None and bool(value.name) and self.new(value) != self.shape(str(value.name))


def says_a_size(node: ir.Node, index: int) -> bool:
    """Say whether what a node reads, a number computed from sizes, ends as a size and as nothing else.

    Such numbers follow when the model runs: ``Reshape(x, Concat(batch, 2, channels / 2))``.

    Args:
        node: That reads it.
        index: As which of its inputs.
    """
    if node.op_type == "Resize":
        return index == 3
    if node.op_type in _SHAPED:
        return index == _SHAPED[node.op_type]
    if node.op_type in ("Gather", "Slice") and index > 0:
        return False
    if node.op_type == "Cast":
        integer = int_attribute(node, "to", 0) in (ir.DataType.INT32, ir.DataType.INT64)
    else:
        integer = node.op_type in _ARITHMETIC or node.op_type in _FORWARD
    output = node.outputs[0]
    return integer and not output.is_graph_output() and all(says_a_size(use.node, use.idx) for use in output.uses())


def rewrite_sizes(node: ir.Node, sized: Sized, names: Names) -> None:
    """Rewrite what a node says about the sizes of tensors that changed.

    Raises:
        PassError: It says it in a way that can't be rewritten.
    """
    output = node.outputs[0]
    if not (sized.changed(output) or any(sized.changed(value) for value in node.inputs)):
        return
    match node.op_type:
        case "Reshape" | "Expand" | "ConstantOfShape":
            _shape(node, _SHAPED[node.op_type], sized, names)
        case "Resize":
            _resize(node, sized, names)
        case "Split":
            _split(node, sized, names)
        case "Slice":
            _slice(node, sized, names)
        case "Gather":
            _gather(node, sized, names)


def _shape(node: ir.Node, index: int, sized: Sized, names: Names) -> None:
    """Rewrite the entries of a shape whose size changed; 0 (as before) and -1 (the rest) may stay."""
    output = node.outputs[0]
    old, new = sized.shape(str(output.name)), sized.new(output)
    wanted = {axis: size for axis, size in enumerate(new) if size != old[axis]}
    if node.op_type == "Expand":  # the input may have the size already, and more axes are counted from the end
        value = node.inputs[index]
        rank = len(new) - (sized.shape(str(value.name))[0] if value is not None else len(new))
        wanted = {axis - rank: size for axis, size in wanted.items() if axis >= rank}
    if not wanted:
        return
    source = node.inputs[index]
    if (array := constant(source)) is not None:
        keeps = (-1, 0) if node.op_type == "Reshape" and not int_attribute(node, "allowzero", 0) else (-1,)
        fixed = array.copy()
        for axis, size in wanted.items():
            if int(array[axis]) not in keeps and not (node.op_type == "Expand" and array[axis] == 1):
                fixed[axis] = size
        if node.op_type == "Reshape":
            _unpin(fixed, array, node, sized, new)
        set_constant(node, index, fixed, names=names, base=f"{node.name}.shape")
        return
    node.replace_input_with(index, _pieces(source, wanted, sized, names, node))


def _unpin(fixed: np.ndarray, array: np.ndarray, node: ir.Node, sized: Sized, new: Sequence[int]) -> None:
    """A 0 copies the size of the same axis of the input: write the size where that is not the one that is wanted."""
    value = node.inputs[0]
    assert value is not None
    before = sized.new(value)
    for axis, entry in enumerate(array.tolist()):
        if entry == 0 and axis < len(before) and before[axis] != new[axis]:
            fixed[axis] = new[axis]


def _pieces(value: ir.Value | None, wanted: dict[int, int], sized: Sized, names: Names, user: ir.Node) -> ir.Value:
    """Return a copy of a computed shape with some entries replaced, as far as they are constants.

    An entry that is computed is taken to follow the sizes that it is computed from; the verification tells.
    """
    node = None if value is None else value.producer()
    if value is None or node is None:
        raise PassError(f"the shape of {user.op_type} {user.name} is computed in a way that can't be rewritten")
    if node.op_type in _FORWARD and (inner := node.inputs[0]) is not None and sized.shape(str(inner.name)):
        copied = _pieces(inner, wanted, sized, names, user)
        return value if copied is inner else _clone(node, [copied, *node.inputs[1:]], names)
    if node.op_type != "Concat":
        return value
    inputs, offset = list(node.inputs), 0
    for index, part in enumerate(node.inputs):
        size = sized.shape(str(part.name))[0] if part is not None else 0
        inside = {axis - offset: new for axis, new in wanted.items() if offset <= axis < offset + size}
        array = constant(part)
        if inside and array is not None:
            fixed = array.copy()
            for axis, new in inside.items():
                fixed[axis] = fixed[axis] if int(fixed[axis]) in (-1, 0) else new
            inputs[index] = _initializer(node, fixed, names)
        elif inside and part is not None:
            inputs[index] = _pieces(part, inside, sized, names, user)
        offset += size
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return value
    return _clone(node, inputs, names)


def _initializer(node: ir.Node, array: np.ndarray, names: Names) -> ir.Value:
    name = names.fresh(f"{node.name}.size")
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    assert isinstance(node.graph, ir.Graph)
    node.graph.register_initializer(value)
    return value


def _clone(node: ir.Node, inputs: Sequence[ir.Value | None], names: Names) -> ir.Value:
    """Put a copy of a node with other inputs behind it, and return its output."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    copy = ir.Node(
        node.domain, node.op_type, inputs, list(node.attributes.values()), name=names.fresh(f"{node.name}.pruned")
    )
    output = copy.outputs[0]
    output.name, output.type = names.fresh(f"{node.outputs[0].name}.pruned"), node.outputs[0].type
    graph.insert_after(node, copy)
    return output


def _resize(node: ir.Node, sized: Sized, names: Names) -> None:
    if len(node.inputs) < 4 or (sizes := node.inputs[3]) is None:
        return
    axes = ints_attribute(node, "axes")
    new = sized.new(node.outputs[0])
    places = range(len(new)) if axes is None else [axis % len(new) for axis in axes]
    if (array := constant(sizes)) is not None:
        fixed = np.array([new[1] if axis == 1 else entry for axis, entry in zip(places, array, strict=True)])
        set_constant(node, 3, fixed.astype(array.dtype), names=names, base=f"{node.name}.sizes")
    elif 1 in places:
        wanted = {list(places).index(1): new[1]}
        node.replace_input_with(3, _pieces(sizes, wanted, sized, names, node))


def _split(node: ir.Node, sized: Sized, names: Names) -> None:
    axis = int_attribute(node, "axis", 0)
    sizes = [sized.new(output)[axis] for output in node.outputs]
    if sizes == [sized.shape(str(output.name))[axis] for output in node.outputs]:
        return
    if "split" in node.attributes or (len(node.inputs) < 2 and _opset(node) < 13):
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    node.attributes.pop("num_outputs", None)
    set_constant(node, 1, np.array(sizes, np.int64), names=names, base=f"{node.name}.split")


def _opset(node: ir.Node) -> int:
    return 13 if node.graph is None else node.graph.opset_imports.get("", 13)


def _slice(node: ir.Node, sized: Sized, names: Names) -> None:
    value = node.inputs[0]
    assert value is not None
    old = sized.shape(str(value.name))
    cuts = slicing(node, len(old))
    if cuts is None:
        return
    starts, ends = [], []
    for axis, start, end, step in cuts:
        mask = sized.mask(str(value.name), axis)
        if mask is None or step != 1:
            starts.append(start)
            ends.append(end)
            continue
        low, high, _ = slice(start, end, step).indices(old[axis])
        starts.append(int(mask[:low].sum()))
        ends.append(end if end >= _END else int(mask[:high].sum()))
    if "starts" in node.attributes:
        node.attributes["starts"] = ir.AttrInt64s("starts", starts)
        node.attributes["ends"] = ir.AttrInt64s("ends", ends)
        return
    for index, entries in ((1, starts), (2, ends)):
        array = constant(node.inputs[index])
        assert array is not None
        set_constant(node, index, np.array(entries, array.dtype), names=names, base=f"{node.name}.{index}")


def _gather(node: ir.Node, sized: Sized, names: Names) -> None:
    value, indices = node.inputs[0], constant(node.inputs[1])
    assert value is not None
    if constant(value) is not None or indices is None:
        return
    old = sized.shape(str(value.name))
    axis = int_attribute(node, "axis", 0) % len(old)
    mask = sized.mask(str(value.name), axis)
    if mask is None:
        return
    indices = np.where(indices < 0, indices + old[axis], indices)
    if indices.ndim != 1:
        raise PassError(f"Gather {node.name} takes channels one by one")
    moved = (np.cumsum(mask) - 1)[indices[mask[indices]]]
    set_constant(node, 1, moved.astype(np.int64), names=names, base=f"{node.name}.indices")
