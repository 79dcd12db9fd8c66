"""Residual blocks: parts of a graph that only add something to what goes past them, found by its structure.

In ``y = Add(x, f(x))`` the block is ``f``: all nodes that nothing but this sum needs. Without it ``y`` is ``x``. So it
is with the blocks of a residual network, the attention and the feed-forward layers of a transformer, with their norms
before the block or behind the sum (then ``Norm(x + f(x))`` becomes ``Norm(x)``). A block may hold others.

What goes past need not be the very value that the block begins with: in ``Add(Add(x, f(x)), g(x))`` it is a sum that
holds it. A shortcut with weights of its own (``Add(Conv(x), f(x))``) is no residual block: ``f`` computes there beside
it, not on top of it.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", eq. 1-4; Veit et al. 2016, "Residual Networks
Behave Like Ensembles of Relatively Shallow Networks", section 4.1 (blocks can be left out one by one).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.model import infer_shapes
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup._graph import Names, bypass, is_constant, onnx_domain
from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode

__all__ = ["Block", "gated", "residual_blocks", "without"]


@dataclass(frozen=True, slots=True)
class Block:
    """Something that adds to what goes past it.

    Attributes:
        name: Of the Add.
        branch: Which input of the Add the block gives; the other one goes past.
        nodes: Names of the nodes that go with it, in the order of the graph, without the Add.
        layers: Those of them that hold weights.
    """

    name: str
    branch: int
    nodes: tuple[str, ...]
    layers: tuple[str, ...]


def residual_blocks(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[Block], dict[str, str]]:
    """Find the residual blocks of the main graph.

    Args:
        model: With named nodes; not changed.
        shapes: Of every tensor in a run, by name.

    Returns:
        The blocks in the order of the graph, and by name of an Add with such a structure why it is none.
    """
    found: list[Block] = []
    refused: dict[str, str] = {}
    order = {node: index for index, node in enumerate(model.graph)}
    for node in model.graph:
        if node.op_type != "Add" or not onnx_domain(node) or (branch := _branch(node, model.graph)) is None:
            continue
        sizes = {shapes.get(str(value.name)) for value in (*node.inputs, *node.outputs) if value is not None}
        dead = _only_for(node, branch)
        layers = [each for each in dead if any(_is_weight(value) for value in each.inputs)]
        if not layers:
            continue  # an activation function, or what others need too
        if len(sizes) > 1 or None in sizes:
            refused[str(node.name)] = "what is added is repeated, or has another shape than what it is added to"
            continue
        names = [[str(each.name) for each in sorted(nodes, key=order.__getitem__)] for nodes in (dead, layers)]
        found.append(Block(str(node.name), branch, tuple(names[0]), tuple(names[1])))
    return found, refused


def _branch(node: ir.Node, graph: ir.Graph) -> int | None:
    """Return which input of an Add is computed from what is in the other one; None: neither."""
    for index in (1, 0):
        past, added = node.inputs[1 - index], node.inputs[index]
        if past is None or added is None or added.producer() is None or is_constant(past):
            continue
        terms = _terms(past)
        if added not in terms and any(value in terms for value in _sources(added, graph)):
            return index
    return None


def _terms(value: ir.Value) -> set[ir.Value]:
    """Return a value and what it is a sum of."""
    found: set[ir.Value] = set()
    todo = [value]
    while todo:
        value = todo.pop()
        if value in found or is_constant(value):
            continue
        found.add(value)
        producer = value.producer()
        if producer is not None and producer.op_type == "Add":
            todo += [part for part in producer.inputs if part is not None]
    return found


def _sources(value: ir.Value, graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield everything in a graph that a value is computed from, itself last of all not."""
    seen: set[ir.Value] = set()
    todo = [value]
    while todo:
        producer = todo.pop().producer()
        if producer is None or producer.graph is not graph:
            continue
        for part in producer.inputs:
            if part is not None and part not in seen:
                seen.add(part)
                todo.append(part)
                yield part


def _only_for(node: ir.Node, branch: int) -> set[ir.Node]:
    """Return the nodes whose results nothing needs but one input of a node."""
    dead: set[ir.Node] = set()
    added = node.inputs[branch]
    todo = [] if added is None else [added]
    while todo:
        producer = todo.pop().producer()
        if producer is None or producer in dead or producer.graph is not node.graph:
            continue
        uses = [use for output in producer.outputs for use in output.uses()]
        inside = all(use.node in dead or (use.node is node and use.idx == branch) for use in uses)
        if inside and not any(output.is_graph_output() for output in producer.outputs):
            dead.add(producer)
            todo += [value for value in producer.inputs if value is not None]
    return dead


def _is_weight(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return (
        tensor is not None
        and tensor.dtype.is_floating_point()
        and math.prod(tensor.shape.numpy()) > max((*tensor.shape.numpy(), 1))
    )


def gated(model: ir.Model, blocks: Sequence[Block], *, prefix: str = "gate") -> tuple[ir.Model, dict[str, str]]:
    """Return a copy in which what each block gives is multiplied by an input of the model, and their names by block.

    Args:
        model: That the blocks were found in.
        blocks: Some of them.
        prefix: Of the names of these inputs, which are scalars of the type of what is multiplied.
    """
    copy = model.clone()
    infer_shapes(copy)
    names, nodes = Names(copy), {str(node.name): node for node in copy.graph}
    gates: dict[str, str] = {}
    for block in blocks:
        node = nodes[block.name]
        value = node.inputs[block.branch]
        assert value is not None
        gate = ir.Value(
            name=names.fresh(prefix), shape=ir.Shape([]), type=value.type or ir.TensorType(ir.DataType.FLOAT)
        )
        copy.graph.inputs.append(gate)
        product = ir.node("Mul", [value, gate], name=names.fresh(f"{block.name}.gated"))
        product.outputs[0].name = names.fresh(f"{value.name}.gated")
        copy.graph.insert_before(node, product)
        node.replace_input_with(block.branch, product.outputs[0])
        gates[block.name] = str(gate.name)
    return copy, gates


def without(model: ir.Model, blocks: Sequence[Block], ctx: PassContext) -> ir.Model | None:
    """Return a copy without some blocks; None where one can't be bypassed.

    An output of the model keeps its name, which what goes past the block then must take over; an input can't.
    """
    copy = model.clone()
    nodes = {str(node.name): node for node in copy.graph}
    for block in blocks:
        past = nodes[block.name].inputs[1 - block.branch]
        if past is None or not bypass(nodes[block.name], past):
            return None
    RemoveDeadCode().run(copy, PassContext(ctx.target))
    infer_shapes(copy)
    return copy
