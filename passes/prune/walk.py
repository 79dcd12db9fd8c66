"""What the rules for operators write on: labels by tensor, what cuts weights, what reads channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant, is_constant

from .atoms import Atoms, Labels, along, first

__all__ = ["Kind", "Reader", "Role", "Slice", "Walk"]

_RESIZED = ("Expand", "Slice")  # their axes are those of what they read
_POINTWISE = ("Add", "Cast", "Div", "Mul", "Neg", "Sub")
_DEEPEST = 20  # steps in which something is made of constants
Role = Literal["out", "in", "parameter"]
Kind = Literal["channel", "head", "dim", "unit"]


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """An axis of a constant that loses the positions of removed channels.

    Attributes:
        node: Name of the node that reads the constant.
        input: Which of its inputs the constant is.
        axis: Of the constant.
        labels: A label per position, [size of the axis]; 0 stays.
        role: ``out``: the rows of a weight that make the channels; ``in``: those that read them; ``parameter``: a bias,
            a scale, a slope: one number per channel.
    """

    node: str
    input: int
    axis: int
    labels: Labels
    role: Role


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A node that takes channels together: without the removed ones it gives what it gives where they are blank.

    A sum reads 0 in their place. A statistic (the mean and variance of a normalization, a maximum) is taken over the
    channels that stay; it is what it is where the removed ones are the mean of those.

    Attributes:
        node: Name.
        input: Which of its inputs has the channels.
        axis: Of that input, counted from the front.
        labels: A label per position, [size of the axis]; 0 stays.
        over: Axes of the input over which the mean is taken that stands for what is removed; none: 0 stands for it.
    """

    node: str
    input: int
    axis: int
    labels: Labels
    over: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Follow:
    """A constant beside an activation: it is cut where the tensor is."""

    node: str
    input: int
    value: str
    axes: Mapping[int, int]  # axis of the constant: axis of the tensor


@dataclass(slots=True)
class Walk:
    """The state of one walk over a graph, in the order in which it runs.

    Attributes:
        shapes: Of every tensor in one run, by name.
        dead: Nodes whose output channels are known to stay, with the reason; they get no atoms.
        granularity: What attention is pruned by.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dead: Mapping[str, str]
    granularity: Literal["head", "dim"] = "head"
    atoms: Atoms = field(default_factory=Atoms)
    labels: dict[str, Labels] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    follows: list[_Follow] = field(default_factory=list)
    kinds: list[tuple[Labels, Kind]] = field(default_factory=list)
    made: dict[str, Labels] = field(default_factory=dict)  # by node: the atoms of its output channels
    refused: dict[str, str] = field(default_factory=dict)  # nodes with weights that make no channels, and why

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Return the shape that a tensor had; a value that is no tensor has none: ()."""
        return () if value is None else self.shapes.get(str(value.name), ())

    def of(self, value: ir.Value | None) -> Labels:
        """Return the labels of a tensor; nothing of what no rule has labelled can be removed."""
        shape = self.shape(value)
        known = None if value is None else self.labels.get(str(value.name))
        return np.broadcast_to(np.zeros((), np.int32), shape) if known is None or known.shape != shape else known

    def set(self, value: ir.Value, labels: Labels) -> None:
        """Label a tensor."""
        self.labels[str(value.name)] = np.broadcast_to(labels, self.shape(value))

    def alive(self, value: ir.Value | None) -> bool:
        """Say whether anything of a tensor may be removed."""
        return self.atoms.alive(self.of(value))

    def weight(self, node: ir.Node, index: int) -> np.ndarray | None:
        """Return a constant input, None where it is absent or computed."""
        return constant(node.inputs[index]) if index < len(node.inputs) else None

    def steady(self, value: ir.Value) -> frozenset[int]:
        """Return the axes of a tensor whose size does not depend on the input: an index for each of some channels."""
        labels = self.of(value)
        columns = {axis: along(labels, axis) for axis in range(labels.ndim)}
        return frozenset(k for k, c in columns.items() if c.size > 1 and c.all() and np.unique(c).size == c.size)

    def fresh(self, node: ir.Node, count: int) -> Labels:
        """Give the output channels of a node their atoms, [count]; 0 where they are known to stay."""
        if str(node.name) in self.dead:
            return np.zeros(count, np.int32)
        self.made[str(node.name)] = found = self.atoms.fresh(count)
        return found

    def cut(self, node: ir.Node, index: int, axis: int, labels: Labels, role: Role) -> None:
        """Let an axis of a constant input lose what is removed."""
        self.slices.append(Slice(str(node.name), index, axis, labels, role))

    def read(self, node: ir.Node, index: int, axis: int, over: Sequence[int] = ()) -> Labels:
        """Let a node sum over an axis of an input; return the labels along it, [size of the axis]; see `Reader`."""
        labels = self.of(node.inputs[index])
        column = self.atoms.column(labels, axis, f"{node.op_type} {node.name} reads it whole")
        self.readers.append(Reader(str(node.name), index, axis % labels.ndim, column, tuple(over)))
        return column

    def freeze(self, node: ir.Node, reason: str) -> None:
        """Let everything that a node reads stay."""
        for value in node.inputs:
            if value is not None and self.shape(value):
                self.atoms.freeze(self.of(value), reason)

    def settle(self, labels: Labels, axes: Sequence[int], reason: str) -> bool:
        """Deal with a statistic over some axes, of which no part may go: say whether anything can go around it.

        What changes along other axes too is tied along these, and goes with all that the statistic is taken of.
        """
        varying = set(self.atoms.vary(labels))
        if varying and varying <= set(axes):
            self.atoms.freeze(labels, reason)
        elif varying & set(axes):
            self.atoms.tie(labels, axes, reason)
        return self.atoms.alive(labels)

    def join(self, node: ir.Node, indices: Sequence[int], output: ir.Value) -> None:
        """Join inputs position by position, broadcast to the shape of an output, and label that.

        A constant is cut where the output is. An operand that does not change while the others do (the map of a spatial
        attention) stays.
        """
        shape = self.shape(output)
        constants, operands = [], []
        values = [value for index in indices if (value := node.inputs[index]) is not None and not is_constant(value)]
        live = next((self.of(value) for value in values if self.alive(value)), None)
        for index in indices:
            value = node.inputs[index]
            if value is not None and is_constant(value):
                constants.append(index)
            elif value is not None:
                labels = self.of(value) if live is None else self.adopted(value, live)
                operands.append(labels.reshape((1,) * (len(shape) - labels.ndim) + labels.shape))
        self.set(output, self.combined(operands, shape, f"{node.op_type} {node.name} joins it with what must stay"))
        for index in constants:
            self.follow(node, index, output)

    def adopted(self, value: ir.Value, live: Labels) -> Labels:
        """Return the labels of a tensor beside a live one: of one that is made of constants, labels like those.

        That is a class token that is repeated, a piece of a table of positions, an initial state of zeros, a scale
        times a number per position: as wide as the activations that it meets.

        Args:
            value: That may be made of constants.
            live: Labels of what it meets, whose axes are aligned at the end.
        """
        labels = self.of(value)
        if self.atoms.alive(labels) or labels.ndim > live.ndim:
            return labels
        plan: dict[ir.Value, Labels] = {}
        if self._like(live, labels.shape) is None or not self._plan(value, live, plan):
            return labels
        for made, theirs in plan.items():
            if self.alive(made):
                self.atoms.join(self.of(made), theirs, "it must stay")
                continue
            self.set(made, theirs)
            producer = made.producer()
            assert producer is not None
            for index, source in enumerate(producer.inputs):
                if is_constant(source) and (producer.op_type in _POINTWISE or index == 0):
                    self.follow(producer, index, made)
        return self.of(value)

    def _plan(self, value: ir.Value, live: Labels, plan: dict[ir.Value, Labels]) -> bool:
        """Note down all that a value is made of and the labels it would have; say whether it is made of constants."""
        like = self._like(live, self.shape(value))
        if value in plan or like is None or is_constant(value):  # of what has one index for all channels nothing is cut
            return True
        if any(size not in (1, mine) for size, mine in zip(like.shape, self.shape(value), strict=True)):
            return False
        plan[value] = like
        if self.alive(value):
            return True
        producer = value.producer()
        if producer is None or len(plan) > _DEEPEST:
            return False
        if producer.op_type == "ConstantOfShape":
            return True
        sources = producer.inputs if producer.op_type in _POINTWISE else producer.inputs[:1]
        return producer.op_type in (*_POINTWISE, *_RESIZED) and all(
            source is None or self._plan(source, live, plan) for source in sources
        )

    def _like(self, live: Labels, shape: tuple[int, ...]) -> Labels | None:
        """Return labels for a shape beside live ones, broadcastable to it; None: it has one index for all of them."""
        rest = live.ndim - len(shape)
        like = first(live, [*range(rest), *(axis + rest for axis, size in enumerate(shape) if size == 1)])
        varying = self.atoms.vary(like)
        if not varying:
            return None
        small = first(like, [axis for axis in range(live.ndim) if axis not in varying])
        return small.reshape(small.shape[rest:])

    def follow(self, node: ir.Node, index: int, output: ir.Value, without: int | None = None) -> None:
        """Cut a constant, whose axes are the last ones of a tensor, where the tensor is cut."""
        size, offset = self.shape(node.inputs[index]), len(self.shape(output)) - len(self.shape(node.inputs[index]))
        axes = {axis: axis + offset for axis in range(len(size)) if size[axis] > 1 and axis + offset != without}
        if axes:
            self.follows.append(_Follow(str(node.name), index, str(output.name), axes))

    def combined(self, operands: list[Labels], shape: tuple[int, ...], reason: str) -> Labels:
        """Join labels of the same rank as a shape, and return them in that shape; see `join`."""
        live = [labels for labels in operands if self.atoms.alive(labels)]
        if not live:
            return np.zeros((), np.int32)
        varying = [set(self.atoms.vary(labels)) for labels in live]
        every = set().union(*varying)
        steady = [
            not own and any(labels.shape[axis] < shape[axis] for axis in every)
            for labels, own in zip(live, varying, strict=True)
        ]
        for labels, still in zip(live, steady, strict=True):
            if still:
                self.atoms.freeze(labels, f"{reason}: one channel for all")
        moving = [labels for labels, still in zip(live, steady, strict=True) if not still]
        for labels in operands:
            if not any(labels is other for other in live) and any(labels.shape[axis] > 1 for axis in every):
                moving.append(labels)  # of what must stay
        base = next(labels for labels in moving if any(labels is other for other in live))
        result = np.broadcast_to(base, shape)
        for labels in moving:
            if labels is not base:
                self.atoms.join(result, labels, reason)
        return result

    def factor(self, reason: str) -> None:
        """Tie labels until those of each tensor change along one axis only: what is kept must be a product of axes.

        The axis that leaves the most to choose from wins; of equal ones the last.
        """
        changed = True
        while changed:
            changed = False
            for labels in self.labels.values():
                varying = self.atoms.vary(labels)
                if len(varying) < 2:
                    continue
                best = max(varying, key=lambda axis: (self._choices(labels, axis), axis))
                self.atoms.column(labels, best, reason)
                changed = True

    def _choices(self, labels: Labels, axis: int) -> int:
        """Count what could be chosen from if labels were a function of one axis."""
        found = self.atoms.resolve(labels)
        small = first(found, [other for other in range(found.ndim) if found.strides[other] == 0 and other != axis])
        rows = np.moveaxis(small, axis, 0).reshape(small.shape[axis], -1)
        trial = Atoms()
        trial.fresh(int(rows.max()))
        trial.column(rows, 0, "it must stay")
        return int(np.unique(trial.resolve(along(rows, 0))).astype(bool).sum())

    def finish(self, outputs: Sequence[ir.Value]) -> None:
        """Close the walk: outputs stay, masks factor, constants follow."""
        for value in outputs:
            self.atoms.freeze(self.of(value), "it is an output of the model")
        self.factor("it is laid out along several axes, parts of which must stay")
        for item in self.follows:
            labels = self.labels[item.value]
            varying = self.atoms.vary(labels)
            for axis, theirs in item.axes.items():
                if theirs in varying:
                    self.slices.append(Slice(item.node, item.input, axis, along(labels, theirs), "parameter"))
