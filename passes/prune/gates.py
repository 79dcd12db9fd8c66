"""Recurrent layers as linear ones: what a step adds up for its gates from its input, and what from the last state.

::

    gates_t = (W x_t + Wb) + (R h_{t-1} + Rb)

Both sums are linear, and the original tells what they were: W' is fitted to give ``W x_t`` from what the smaller model
reads, R' to give ``R h_{t-1}`` from the units that are left, of the original's states: the smaller model's will be like
them once it is fitted. Rows are the gates of the units that are left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import Names, constant, int_attribute, is_op, set_constant
from onnxcomp.statistics import draw

from .linear import Kept

__all__ = ["Gates", "gates_of"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_LENGTHS = 4  # inputs of a recurrent node: lengths of sequences, the first state
_STATE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """One of the two sums; its groups are the directions.

    Attributes:
        node: LSTM, GRU or RNN of the smaller model.
        original: The same of the original.
        index: Which input the matrix is: 1, W, or 2, R.
        units: Those of the original that are left, ascending.
    """

    bounds: ClassVar[tuple[float, float]] = (-np.inf, np.inf)

    node: ir.Node
    original: ir.Node
    index: int
    units: np.ndarray

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.node.name)

    @property
    def mine(self) -> set[str]:
        """Name the tensors of the smaller model that fitting takes."""
        return {str(self.node.inputs[0].name)} if self.index == 1 and self.node.inputs[0] is not None else set()

    @property
    def theirs(self) -> set[str]:
        """Name the tensors of the original that fitting takes."""
        if self.index == 1:
            return self.mine
        state = _input(self.original, _STATE)
        given = set() if state is None or constant(state) is not None else {str(state.name)}
        return given | {str(self.original.outputs[0].name)}

    @property
    def size(self) -> tuple[int, int, int]:
        """Groups, outputs of each, inputs of each."""
        groups, outputs, length = self._matrix(self.node).shape
        return groups, outputs, length

    def weight(self) -> np.ndarray:
        """Return the matrix, [directions, gates x units, K], in float64."""
        return self._matrix(self.node).astype(np.float64)

    def bias(self) -> np.ndarray:
        """Return the half of the bias that belongs to the matrix, [directions, gates x units]."""
        return self._bias(self.node).astype(np.float64)

    def write(self, weight: np.ndarray, bias: np.ndarray | None, names: Names) -> None:
        """Give the node a matrix and its half of the bias."""
        set_constant(self.node, self.index, weight.astype(np.float32), names=names, base=f"{self.name}.weight")
        if bias is None or (not bias.any() and _input(self.node, 3) is None):
            return
        halves = [bias if self.index == k else self._bias(self.node, k) for k in (1, 2)]
        whole = np.concatenate(halves, axis=1).astype(np.float32)
        set_constant(self.node, 3, whole, names=names, base=f"{self.name}.bias")

    def vectors(
        self,
        wanted: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
        kept: Kept,
        most: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Layer.vectors`."""
        groups, _, length = self.size
        if self.index == 1:
            name = str(self.node.inputs[0].name) if self.node.inputs[0] is not None else ""
            source = wanted[name].reshape(-1, wanted[name].shape[-1])
            places = draw(len(source), most, rng)
            theirs = np.broadcast_to(source[places], (groups, len(places), source.shape[1]))
            mine = np.broadcast_to(found[name].reshape(-1, length)[places], (groups, len(places), length))
        else:
            states = self._states(wanted)  # [directions, steps x batch, units]
            places = draw(states.shape[1], most, rng)
            theirs = states[:, places]
            mine = theirs[:, :, self.units]
        size = int_attribute(self.original, "hidden_size", 0)
        rows = np.concatenate([gate * size + self.units for gate in range(_GATES[self.node.op_type])])
        matrix, bias = self._matrix(self.original)[:, rows], self._bias(self.original)[:, rows]
        target = np.matmul(theirs, matrix.transpose(0, 2, 1)) + bias[:, None, :]
        return np.ascontiguousarray(mine), target, np.zeros((), np.float32)

    def _states(self, wanted: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what each step began with in the original, [directions, steps x batch, units]."""
        outputs = wanted[str(self.original.outputs[0].name)]  # [steps, directions, batch, units]
        state = _input(self.original, _STATE)
        known = constant(state)
        first = np.zeros(outputs.shape[1:], np.float32) if state is None else known
        first = wanted[str(state.name)] if first is None and state is not None else first
        assert first is not None
        found = []
        for direction in range(outputs.shape[1]):
            backwards = direction == 1 or _direction(self.original) == "reverse"
            steps = outputs[1:, direction] if backwards else outputs[:-1, direction]
            start = first[direction][None]
            found.append(np.concatenate([steps, start] if backwards else [start, steps]))
        return np.stack(found).reshape(outputs.shape[1], -1, outputs.shape[3])

    def _matrix(self, node: ir.Node) -> np.ndarray:
        array = constant(node.inputs[self.index])
        assert array is not None
        return array

    def _bias(self, node: ir.Node, index: int | None = None) -> np.ndarray:
        array = constant(_input(node, 3))
        groups, outputs, _ = self._matrix(node).shape
        if array is None:
            return np.zeros((groups, outputs), np.float32)
        return array[:, :outputs] if (index or self.index) == 1 else array[:, outputs:]


def gates_of(node: ir.Node, original: ir.Node | None, kept: Kept) -> list[Gates] | str | None:
    """Return the sums of a recurrent node that may be fitted, why none may, or None: it is no such node.

    Args:
        node: Of the smaller model.
        original: The node of that name in the original.
        kept: What is left of the original's tensors.
    """
    if not is_op(node, *_GATES):
        return None
    if original is None or original.op_type != node.op_type:
        return "the original has no such node"
    matrices = [constant(n.inputs[index]) for n in (node, original) for index in (1, 2)]
    if any(m is None or m.dtype != np.float32 or not np.isfinite(m).all() for m in matrices):
        return "its weights are computed, or not finite float32"
    if any(len(value.uses()) > 1 for value in node.inputs[1:4] if value is not None):
        return "its weights are used elsewhere too"
    if int_attribute(node, "layout", 0) or _input(node, _LENGTHS) is not None:
        return "its layout is batch first, or it is given lengths"
    size = int_attribute(original, "hidden_size", 0)
    named = [str(output.name) for output in original.outputs if output.name]
    axes = next((kept[name] for name in named if name in kept), {})
    units = axes.get(max(axes, default=0), np.arange(size))
    if len(units) != int_attribute(node, "hidden_size", 0):
        return "nobody knows which of its units are left"
    parts = [Gates(node, original, 1, units)]
    apart = node.op_type != "GRU" or int_attribute(node, "linear_before_reset", 0)
    if len(units) < size and apart and original.outputs[0].name:
        parts.append(Gates(node, original, 2, units))
    return parts


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _direction(node: ir.Node) -> str:
    attribute = node.attributes.get("direction")
    return "forward" if attribute is None else attribute.as_string()
