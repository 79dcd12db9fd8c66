"""Make a model smaller for good: weights lose what is removed, sizes and attributes follow."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PassError
from onnxcomp.model import infer_shapes
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup._graph import Names, constant, float_attribute, int_attribute, set_constant
from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode

from .groups import Channels, Kept
from .layers import RECURRENT
from .norms import RESCALED
from .sizes import Sized, rewrite_sizes
from .walk import Reader

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
        if tensor not in channels.labels:
            return None
        found: np.ndarray = table[channels.positions(tensor, axis)]
        if found.all():  # of an axis of size 0 too
            return None
        if not found.any():
            raise PassError(f"nothing would be left of {tensor}")
        return found

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
        if not stays.all():
            _rescale(nodes[reader.node], stays.mean(), bool(reader.over), names)
    outputs = set(copy.graph.outputs)
    for node in copy.graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    RemoveDeadCode().run(copy, PassContext(ctx.target))
    infer_shapes(copy)
    return copy


def _rescale(node: ir.Node, share: float, of_what_stays: bool, names: Names) -> None:
    """Let a node that divided by the number of channels go on as if it still had all; see `norms`."""
    if node.op_type == "ReduceMean" and not of_what_stays:
        _scale(node, share, names)
    elif node.op_type in RESCALED:
        scale = constant(node.inputs[1])
        assert scale is not None
        wider = (scale / np.sqrt(share)).astype(scale.dtype)
        set_constant(node, 1, wider, names=names, base=f"{node.name}.scale")
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", float_attribute(node, "epsilon", 1e-5) / share)


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
    if mean.is_graph_output():
        product.outputs[0].name, mean.name = mean.name, product.outputs[0].name
        product.outputs[0].shape = mean.shape
    mean.replace_all_uses_with(product.outputs[0], replace_graph_outputs=True)
    product.replace_input_with(0, mean)
    graph.insert_after(node, product)


def masked(model: ir.Model, channels: Channels, kept: Kept) -> ir.Model:
    """Return a copy in which whatever takes channels together reads a blank in place of those that are not kept.

    A sum reads 0, a statistic the mean of the kept ones (`walk.Reader`): for a normalization this *defines* what it is
    to be without channels, since its mean and variance are not those of before. It is the readers that are masked, not
    what makes the channels: between the two an offset or a Sigmoid makes something of nothing.
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
        node.replace_input_with(reader.input, _blanked(node, reader, stays, len(channels.shape(value)), names))
    for item in channels.slices:
        if item.role == "in" and nodes[item.node].op_type in RECURRENT and item.input == 2:  # units read each other
            node, array = nodes[item.node], constant(nodes[item.node].inputs[2])
            assert array is not None
            shape = [1] * array.ndim
            shape[item.axis] = -1
            set_constant(node, 2, array * table[item.labels].reshape(shape), names=names, base=f"{item.node}.r")
    return copy


def _blanked(node: ir.Node, reader: Reader, stays: np.ndarray, rank: int, names: Names) -> ir.Value:
    """Put in front of a node what blanks the channels that do not stay, and return what it is to read."""
    graph, value = node.graph, node.inputs[reader.input]
    assert isinstance(graph, ir.Graph)
    assert value is not None
    column = stays.reshape([-1 if axis == reader.axis else 1 for axis in range(rank)])

    def weights(array: np.ndarray) -> ir.Value:
        name = names.fresh(f"{reader.node}.mask")
        found = ir.val(name, const_value=ir.tensor(array, name=name))
        graph.register_initializer(found)
        return found

    def step(kind: str, *inputs: ir.Value, **attributes: ir.Attr) -> ir.Value:
        made = ir.Node("", kind, inputs, attributes.values(), name=names.fresh(f"{reader.node}.masked"))
        made.outputs[0].name = names.fresh(f"{reader.node}.masked_input")
        graph.insert_before(node, made)
        return made.outputs[0]

    dtype = _float_type(node)
    kept = step("Mul", value, weights(column.astype(dtype)))
    if not reader.over:
        return kept
    if graph.opset_imports.get("", 13) < 18:
        mean = step("ReduceMean", kept, axes=ir.AttrInt64s("axes", reader.over))
    else:
        mean = step("ReduceMean", kept, weights(np.array(reader.over)))
    return step("Add", kept, step("Mul", mean, weights((~column / stays.mean()).astype(dtype))))


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
