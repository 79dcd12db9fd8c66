"""Channel groups: which channels of which layers can be removed together, found by executing labels.

Take ``a = Conv(x); b = Relu(a); c = Reshape(b, [N, -1]); y = Gemm(c)`` with 2 channels of 3 positions. The convolution
makes atoms 1 and 2; Relu and Reshape move them to ``c = [1 1 1 2 2 2]``; Gemm reads them: whoever removes channel 2
removes row 2 of the convolution and rows 3 to 5 of the matrix. No index map was written for it: Reshape was run on the
labels, and so are transposes, slices, concatenations, shuffles of channels and splits into heads. What is added
together, position by position, is joined, and goes together.

A group is what the same layers make: its channels can be chosen freely, all but one may go.

Source: the labels are this project's; the grouping is that of Fang et al. 2023 (DepGraph), section 3.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed
from onnxcomp.errors import PassError
from onnxcomp.facts import is_quantized, name_nodes
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup._graph import Names, constant, onnx_domain
from onnxcomp.passes.cleanup.constants import LiftConstants
from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode
from onnxcomp.passes.cleanup.fold_constants import FoldConstants
from onnxcomp.passes.cleanup.identities import RemoveIdentities

from .arithmetic import ARITHMETIC
from .atoms import Atoms, Labels
from .layers import LAYERS
from .moves import MOVES, slicing
from .norms import NORMS
from .sizes import says_a_size
from .trace import inputs_for, shapes_of
from .walk import Kind, Reader, Slice, Walk

__all__ = ["Channels", "Group", "Kept", "discover", "prepare"]

_RULES = {**ARITHMETIC, **LAYERS, **MOVES, **NORMS}
_FREE = frozenset({"Constant", "ConstantOfShape", "Shape", "Size"})  # they read no values
_ROUNDS = 4
Kept = Mapping[str, np.ndarray]  # by group: a bool per channel, [channels]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Channels of one or more layers that can be chosen from freely.

    Attributes:
        name: Of the first node that makes them; of several groups of one node the later ones end in #2, #3...
        kind: What a channel is: a channel, a whole attention head, the same dimension of all heads, a recurrent unit.
        labels: What stands for each channel wherever labels are given, [channels].
        producers: Axes of weights that make the channels (role ``out``).
        parameters: Axes of other constants with a number per channel.
        consumers: Nodes that sum over the channels, or take statistics over them.
        inputs: Axes of weights that read the channels (role ``in``), in the order of the graph.
    """

    name: str
    kind: Kind
    labels: np.ndarray
    producers: tuple[Slice, ...]
    parameters: tuple[Slice, ...]
    consumers: tuple[Reader, ...]
    inputs: tuple[Slice, ...]

    @property
    def channels(self) -> int:
        """How many there are."""
        return int(self.labels.size)

    @property
    def normalized(self) -> bool:
        """Whether a statistic is taken over the channels, which then is one over those that stay."""
        return any(reader.over for reader in self.consumers)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the nodes whose constants are cut, those that make the channels first."""
        cut = (*self.producers, *self.parameters, *self.inputs)
        return tuple(dict.fromkeys(item.node for item in cut))


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """What labels tell about a model that `prepare` returned.

    Attributes:
        groups: In the order of the graph.
        labels: Of every labelled tensor, by name, in the shape that it had in a run; 0 stays.
        slices: All axes of constants that lose something.
        readers: All nodes that sum over channels.
        frozen: Nodes whose output channels all stay, and why.
        shapes: Of every tensor in that run.
        count: One more than the largest label.
    """

    groups: tuple[Group, ...]
    labels: Mapping[str, Labels]
    slices: tuple[Slice, ...]
    readers: tuple[Reader, ...]
    frozen: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    count: int

    def table(self, kept: Kept) -> np.ndarray:
        """Return for each label whether it stays, [count]; groups that are not named stay whole.

        Raises:
            PassError: A group is unknown, or its mask has another length.
        """
        found = np.ones(self.count, np.bool_)
        groups = {group.name: group for group in self.groups}
        for name, mask in kept.items():
            if name not in groups or np.shape(mask) != groups[name].labels.shape:
                raise PassError(f"there is no channel group {name!r} of {np.size(mask)} channels")
            found[groups[name].labels] = mask
        return found

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Return the shape that a tensor or constant had."""
        return () if value is None else self.shapes[str(value.name)]

    def positions(self, tensor: str, axis: int) -> Labels:
        """Return the labels along an axis of a tensor, [size of the axis]; all 0 where nothing of it can go."""
        shape = self.shapes[tensor]
        labels = self.labels.get(tensor)
        if labels is None:
            return np.zeros(shape[axis], np.int32)
        others = tuple(slice(None) if k == axis % len(shape) else slice(0, 1) for k in range(len(shape)))
        column = labels[others].reshape(-1)
        return column if (column != column[:1]).any() else np.zeros(shape[axis], np.int32)


def prepare(model: ir.Model, ctx: PassContext) -> ir.Model:
    """Return a copy of a model with constants in one place, folded shapes and named nodes, as `discover` wants it.

    Raises:
        PassError: The model is quantized.
    """
    if is_quantized(model):
        raise PassError("the model is quantized already", hint="prune first, then quantize")
    copy = model.clone()
    silent = PassContext(ctx.target)
    for step in (LiftConstants(), RemoveIdentities(), FoldConstants(), RemoveIdentities(), RemoveDeadCode()):
        step.run(copy, silent)
    name_nodes(copy.graph)
    while _fold_sizes(copy, ctx):
        FoldConstants().run(copy, silent)
        RemoveDeadCode().run(copy, silent)
    return copy


def _fold_sizes(model: ir.Model, ctx: PassContext) -> bool:
    """Write down sizes that are computed and never change: of axes with one channel per index; say whether any was.

    What a graph computes with the number of its channels (a scale of attention, the width of a head) keeps its value
    when channels go; shapes that operators take are made anew.
    """
    if not any(node.op_type == "Shape" and onnx_domain(node) for node in model.graph):
        return False
    shapes = shapes_of(model, inputs_for(model, ctx.samples, seed=ctx.seed))
    walks = [walk for walk, _ in _walks(model, shapes, "head")]
    names, folded = Names(model), False
    for node in tuple(model.graph):
        if node.op_type != "Shape" or not onnx_domain(node) or node.inputs[0] is None or "start" in node.attributes:
            continue
        shape = walks[0].shape(node.inputs[0])
        known = frozenset().union(*(walk.steady(node.inputs[0]) for walk in walks))
        for use in tuple(node.outputs[0].uses()):
            picked = _picked(use.node, use.idx, len(shape))
            output = use.node.outputs[0]
            if not picked or not picked <= known or output.is_graph_output() or not output.uses():
                continue
            array = np.asarray(shape, np.int64)
            if use.node.op_type == "Gather":
                indices = constant(use.node.inputs[1])
                assert indices is not None
                array = array[indices]
            else:
                array = array[sorted(picked)]
            name = names.fresh(f"{output.name}.size")
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            model.graph.register_initializer(value)
            output.replace_all_uses_with(value)
            folded = True
    return folded


def discover(
    model: ir.Model, ctx: PassContext, *, granularity: Literal["head", "dim"] = "head", feed: Feed | None = None
) -> Channels:
    """Find the channel groups of a model that `prepare` returned; it is run once.

    Args:
        model: Not changed.
        ctx: Its samples, where it has some, give the shapes.
        granularity: Whether attention loses whole heads, or the same dimensions of all heads.
        feed: What to run; default: the first sample, or a made-up one.

    Raises:
        PassError: The model does not run.
    """
    shapes = shapes_of(model, inputs_for(model, ctx.samples, seed=ctx.seed) if feed is None else feed)
    *_, (walk, frozen) = _walks(model, shapes, granularity)
    return _collect(walk, frozen, [str(node.name) for node in model.graph])


def _walks(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]], granularity: Literal["head", "dim"]
) -> Iterator[tuple[Walk, dict[str, str]]]:
    """Walk again with what is known to stay, which lets other channels of the same tensors go; yield each walk."""
    frozen: dict[str, str] = {}
    for _ in range(_ROUNDS):
        walk = Walk(shapes, dict(frozen), granularity)
        for node in model.graph:
            _visit(walk, node, model.graph)
        for node in model.graph:  # last, since by now it is known along which axes channels lie
            if node.op_type in ("Shape", "Size") and onnx_domain(node):
                _sizes(walk, node)
        walk.finish(model.graph.outputs)
        found = {
            name: walk.atoms.reason(int(made[0])) or "it must stay"
            for name, made in walk.made.items()
            if not walk.atoms.alive(made)
        }
        frozen |= found
        yield walk, frozen
        if not found:
            return


def _visit(walk: Walk, node: ir.Node, graph: ir.Graph) -> None:
    rule = _RULES.get(node.op_type) if onnx_domain(node) or node.op_type in _ELSEWHERE else None
    known = all(str(v.name) in walk.shapes for v in (*node.inputs, node.outputs[0]) if v is not None and v.name)
    if node.op_type in _FREE and onnx_domain(node):
        pass
    elif rule is None or not known:
        walk.freeze(node, f"{node.op_type} {node.name} is not understood" if rule is None else "a shape is not known")
    else:
        try:
            rule(walk, node)
        except (IndexError, ValueError) as err:  # the labels do not fit the node: nothing is known then
            walk.freeze(node, f"labels can't follow {node.op_type} {node.name}: {err}")
    for output in node.outputs:
        if any(use.node.graph is not graph for use in output.uses()):
            walk.atoms.freeze(walk.of(output), "the body of a control flow node reads it")


_ELSEWHERE = frozenset({"FastGelu", "Gelu", "QuickGelu", "SimplifiedLayerNormalization"})  # of com.microsoft


def _sizes(walk: Walk, node: ir.Node) -> None:
    """Let stay what a size is computed with: shapes that operators take are made anew, other values are not."""
    if not walk.alive(node.inputs[0]):
        return
    labels = walk.of(node.inputs[0])
    varying = set(walk.atoms.vary(labels))
    for use in node.outputs[0].uses():
        picked = _picked(use.node, use.idx, labels.ndim) if node.op_type == "Shape" else None
        elsewhere = picked is not None and not picked & varying
        if not elsewhere and not says_a_size(use.node, use.idx):
            walk.atoms.freeze(labels, "its size is used in arithmetic")


def _picked(node: ir.Node, index: int, rank: int) -> set[int] | None:
    """Return the entries of a shape that a node takes; None: all, or nobody knows."""
    if node.op_type == "Gather" and index == 0 and (taken := node.inputs[1]) is not None:
        tensor = ir.convenience.get_const_tensor(taken)
        return None if tensor is None else {int(k) % rank for k in tensor.numpy().reshape(-1)}
    if node.op_type == "Slice" and index == 0 and (cuts := slicing(node, 1)) is not None:
        return set(range(rank)[cuts[0][1] : cuts[0][2] : cuts[0][3]])
    return None


def _collect(walk: Walk, frozen: dict[str, str], order: Sequence[str]) -> Channels:
    """Turn a finished walk into groups."""
    atoms = walk.atoms
    slices = [_resolved(atoms, item) for item in walk.slices]
    once = {
        (item.node, item.input, item.axis): item for item in slices if item.labels.any()
    }  # one state may be two inputs
    slices = list(once.values())
    readers = [replace(r, labels=labels) for r in walk.readers if (labels := atoms.resolve(r.labels)).any()]
    tensors = {name: atoms.resolve(array) for name, array in walk.labels.items()}
    producers = [item for item in slices if item.role == "out"]
    kinds = {int(label): kind for array, kind in walk.kinds for label in np.unique(atoms.resolve(array)) if label}
    groups: list[Group] = []
    taken: dict[str, int] = {}
    for members in _alike(producers):
        mine = [item for item in slices if np.isin(item.labels, members).any()]
        by_role = {role: tuple(item for item in mine if item.role == role) for role in ("out", "parameter", "in")}
        made = by_role["out"]
        if members.size < 2:
            frozen.setdefault(made[0].node, "it has one channel, or all of them go together")
            continue
        taken[made[0].node] = taken.get(made[0].node, 0) + 1
        name = made[0].node if taken[made[0].node] == 1 else f"{made[0].node}#{taken[made[0].node]}"
        groups.append(
            Group(
                name,
                kinds.get(int(members[0]), "channel"),
                members,
                made,
                by_role["parameter"],
                tuple(reader for reader in readers if np.isin(reader.labels, members).any()),
                by_role["in"],
            )
        )
    rank = {name: position for position, name in enumerate(order)}
    groups.sort(key=lambda group: rank[group.producers[0].node])
    grouped = {item.node for group in groups for item in group.producers}
    kept = {name: why for name, why in (frozen | walk.refused).items() if name not in grouped}
    return Channels(tuple(groups), tensors, tuple(slices), tuple(readers), kept, walk.shapes, int(atoms.fresh(1)[0]))


def _resolved(atoms: Atoms, item: Slice) -> Slice:
    return Slice(item.node, item.input, item.axis, atoms.resolve(item.labels), item.role)


def _alike(producers: Iterable[Slice]) -> list[np.ndarray]:
    """Return the labels of each group in the order of its first layer: those that the same layers make."""
    makers: dict[int, dict[tuple[str, int, int], None]] = {}
    for item in producers:
        for label in np.unique(item.labels[item.labels > 0]).tolist():
            makers.setdefault(label, {})[item.node, item.input, item.axis] = None
    order = [label for item in producers for label in item.labels.tolist() if label]
    groups: dict[frozenset[tuple[str, int, int]], dict[int, None]] = {}
    for label in order:
        groups.setdefault(frozenset(makers[label]), {})[label] = None
    return [np.array(list(members), np.int32) for members in groups.values()]
