"""Make a model smaller for good: weights lose what is removed, sizes and attributes follow."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PassError
from onnxcomp.model import infer_shapes
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup._graph import Names, constant, int_attribute, set_constant
from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode

from .groups import Channels, Kept
from .layers import RECURRENT
from .sizes import Sized, rewrite_sizes

__all__ = ["masked", "shrunk"]


def shrunk(model: ir.Model, channels: Channels, kept: Kept, ctx: PassContext) -> ir.Model:
    """Return a copy of a prepared model without the channels that are not kept.

    Args:
        model: What `groups.prepare` returned; not changed.
        channels: What `groups.discover` found in it.
        kept: A mask per group; groups that are not named stay whole.
        ctx: Its target is all that is used.

    Raises:
        PassError: Something would be left empty, or can't be rewritten.
    """
    table, copy = channels.table(kept), model.clone()
    nodes = {str(node.name): node for node in copy.graph}
    names = Names(copy)

    def mask(tensor: str, axis: int) -> np.ndarray | None:
        found = None if tensor not in channels.labels else table[channels.positions(tensor, axis)]
        if found is not None and not found.any():
            raise PassError(f"nothing would be left of {tensor}")
        return None if found is None or found.all() else found

    sized = Sized(mask, lambda tensor: channels.shapes.get(tensor, ()))
    for node in tuple(copy.graph):
        if not any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            rewrite_sizes(node, sized, names)
    for node in tuple(copy.graph):
        _attributes(node, channels, table)
    for item in channels.slices:
        stays = table[item.labels]
        if stays.all():
            continue
        array = constant(nodes[item.node].inputs[item.input])
        if array is None or array.shape[item.axis] != stays.size:
            raise PassError(f"{item.node} has no constant of {stays.size} positions to cut")
        set_constant(
            nodes[item.node], item.input, np.compress(stays, array, axis=item.axis), names=names, base=f"{item.node}.w"
        )
    for reader in channels.readers:
        stays = table[reader.labels]
        if nodes[reader.node].op_type == "ReduceMean" and not stays.all():
            _scale(nodes[reader.node], stays.mean(), names)
    outputs = set(copy.graph.outputs)
    for node in copy.graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    RemoveDeadCode().run(copy, PassContext(ctx.target))
    infer_shapes(copy)
    return copy


def _scale(node: ir.Node, factor: float, names: Names) -> None:
    """Multiply what a node gives: the mean over fewer values becomes that over all, the others being 0."""
    graph, mean = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    name = names.fresh(f"{node.name}.share")
    number = ir.val(name, const_value=ir.tensor(np.asarray(factor, _float_type(node)), name=name))
    graph.register_initializer(number)
    product = ir.node("Mul", [mean, number], name=names.fresh(f"{node.name}.scaled"))
    product.outputs[0].name = names.fresh(f"{mean.name}.scaled")
    product.outputs[0].type = mean.type
    mean.replace_all_uses_with(product.outputs[0])
    product.replace_input_with(0, mean)
    graph.insert_after(node, product)


def masked(model: ir.Model, channels: Channels, kept: Kept) -> ir.Model:
    """Return a copy in which whatever sums over channels reads 0 in place of those that are not kept.

    It is the readers that are masked, not what makes the channels: between the two an offset or a Sigmoid makes
    something of nothing.
    """
    table, copy = channels.table(kept), model.clone()
    nodes = {str(node.name): node for node in copy.graph}
    names = Names(copy)
    for reader in channels.readers:
        stays = table[reader.labels]
        node = nodes[reader.node]
        value = node.inputs[reader.input]
        if stays.all() or value is None:
            continue
        shape = [1] * len(channels.shapes[str(value.name)])
        shape[reader.axis] = stays.size
        dtype = _float_type(node)
        name = names.fresh(f"{reader.node}.mask")
        factor = ir.val(name, const_value=ir.tensor(stays.reshape(shape).astype(dtype), name=name))
        copy.graph.register_initializer(factor)
        product = ir.node("Mul", [value, factor], name=names.fresh(f"{reader.node}.masked"))
        product.outputs[0].name = names.fresh(f"{reader.node}.masked_input")
        copy.graph.insert_before(node, product)
        node.replace_input_with(reader.input, product.outputs[0])
    for item in channels.slices:
        if item.role == "in" and nodes[item.node].op_type in RECURRENT and item.input == 2:  # units read each other
            node, array = nodes[item.node], constant(nodes[item.node].inputs[2])
            assert array is not None
            shape = [1] * array.ndim
            shape[item.axis] = -1
            set_constant(node, 2, array * table[item.labels].reshape(shape), names=names, base=f"{item.node}.r")
    return copy


def _float_type(node: ir.Node) -> np.dtype[np.generic]:
    """Return the type of a node's input or of its weights."""
    known = node.inputs[0].dtype if node.inputs[0] is not None else None
    if known is not None and known.is_floating_point():
        return np.dtype(known.numpy())
    arrays = (constant(value) for value in node.inputs)
    return next((array.dtype for array in arrays if array is not None and array.dtype.kind == "f"), np.dtype("f4"))


def _attributes(node: ir.Node, channels: Channels, table: np.ndarray) -> None:
    """Rewrite the numbers of groups and units."""
    edits: Mapping[str, tuple[str, int]] = {
        "Conv": ("group", 0),
        "ConvTranspose": ("group", 0),
        "GroupNormalization": ("num_groups", 0),
        "LSTM": ("hidden_size", -1),
        "GRU": ("hidden_size", -1),
        "RNN": ("hidden_size", -1),
    }
    if node.op_type not in edits:
        return
    name, _ = edits[node.op_type]
    if name == "hidden_size":
        column = next((item.labels for item in channels.slices if item.node == node.name and item.input == 2
                       and item.axis == 2), None)  # fmt: skip
        if column is not None:
            node.attributes[name] = ir.AttrInt64(name, int(table[column].sum()))
        return
    value, count = node.inputs[0], int_attribute(node, name, 1)
    if value is None or count == 1 or str(value.name) not in channels.labels:
        return
    stays = table[channels.positions(str(value.name), 1)]
    per_group = stays.reshape(count, -1)
    if name == "num_groups" or per_group.shape[1] == 1:
        node.attributes[name] = ir.AttrInt64(name, int(per_group.any(axis=1).sum()))
