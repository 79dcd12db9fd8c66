"""The weights that may be pruned one by one: those of linear layers, read and written as rows of what they multiply."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.passes.cleanup._graph import Names, constant, constant_dtype, float_attribute, set_constant, stages
from onnxcomp.statistics import MOST_BYTES, Columns, Gram

__all__ = ["OPS", "SparseLayer", "passes_over", "why_not"]

OPS = ("Conv", "Gemm", "MatMul")
_MOST_PASSES = 12  # over the samples, for one round of pruning: neighbours in depth go together beyond that

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """A linear layer with a weight of its own.

    Attributes:
        node: Conv, Gemm or MatMul.
        columns: How it reads its input.
        order: Of the columns, so that neighbours along the input axis are side by side: [K].
    """

    node: ir.Node
    columns: Columns
    order: NDArray[np.intp]

    @classmethod
    def of(cls, node: ir.Node, columns: Columns) -> "SparseLayer":
        """Return the layer; of a convolution, columns go by kernel position first."""
        order = np.arange(columns.length)
        if columns.window is not None:
            order = order.reshape(-1, int(np.prod(columns.window.kernel))).T.reshape(-1)
        return cls(node, columns, order)

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.node.name)

    @property
    def inputs(self) -> int:
        """Length of the input axis of the weight."""
        window = self.columns.window
        return self.columns.length // (1 if window is None else int(np.prod(window.kernel)))

    @property
    def weight(self) -> NDArray[np.floating]:
        """As it is stored."""
        found = constant(self.node.inputs[1])
        assert found is not None
        return found

    @property
    def rows(self) -> Rows:
        """The weight, [groups, rows, K], columns in order."""
        return self.columns.rows(self.weight)[:, :, self.order].astype(np.float64)

    def moments(self, gram: Gram, *, centred: bool) -> NDArray[np.float64]:
        """Return the second moment of what the layer reads, or its covariance, columns in order."""
        found = gram.covariance if centred else gram.moment
        return found[:, self.order][:, :, self.order]

    def write(self, rows: Rows, names: Names) -> None:
        """Store other rows, columns in order."""
        plain, shape = np.empty_like(rows, np.float32), self.weight.shape
        plain[:, :, self.order] = rows
        self._set(1, self.columns.weight(plain, shape), names)

    def can_shift(self) -> bool:
        """Whether the layer has a constant bias, or a place for one."""
        if self.node.op_type == "MatMul" or float_attribute(self.node, "beta", 1.0) != 1.0:
            return False
        value = self._bias
        array = constant(value)
        return value is None or (array is not None and array.shape == (self._outputs,) and array.dtype == np.float32)

    def shift(self, change: Rows, gram: Gram, names: Names) -> None:
        """Let the bias make up for the mean of what the rows, less ``change``, do not give any more."""
        old = constant(self._bias)
        lost = np.einsum("grk,gk->gr", change, gram.mean[:, self.order]).reshape(-1)
        self._set(2, ((0.0 if old is None else old) + lost).astype(np.float32), names)

    def _set(self, index: int, array: NDArray[np.floating], names: Names) -> None:
        old = self.node.inputs[index] if index < len(self.node.inputs) else None
        set_constant(self.node, index, array, names=names, base=f"{self.name}.bias")
        maker = None if old is None else old.producer()
        if old is not None and not old.uses() and maker is not None and maker.graph is not None:
            maker.graph.remove(maker, safe=True)  # a Constant node

    @property
    def _bias(self) -> ir.Value | None:
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def _outputs(self) -> int:
        rows = self.columns.rows(self.weight)
        return int(rows.shape[0] * rows.shape[1])


def why_not(node: ir.Node, columns: Columns | None, *, least: int, gram: bool) -> str | None:
    """Say why a layer's weight stays as it is, or None.

    Args:
        node: Conv, Gemm or MatMul.
        columns: How it reads its input.
        least: Smaller weights stay as they are.
        gram: Whether a Gram matrix is needed.
    """
    value = node.inputs[1]
    weight = constant(value)
    if columns is None or weight is None or value is None:
        return "the weight is no constant matrix"
    if constant_dtype(value) != np.float32:
        return "the weight is not float32"
    if len(value.uses()) > 1 or value.is_graph_output():
        return "the weight is used elsewhere too"
    if weight.size < max(least, 1):
        return "the weight is too small to pay"
    if not np.isfinite(weight).all():
        return "the weight holds NaN or infinity"
    if gram and 8 * columns.groups * columns.length**2 > MOST_BYTES:
        return f"its Gram matrix would take more than {MOST_BYTES >> 20} MB"
    if gram and float_attribute(node, "alpha", 1.0) != 1.0:
        return "alpha is set"
    return None


def passes_over(graph: ir.Graph, layers: Mapping[ir.Node, SparseLayer]) -> list[list[SparseLayer]]:
    """Group layers for as few runs over the samples as keep most of them behind those that change what they read."""
    found = [[layers[node] for node in stage] for stage in stages(graph, layers)]
    while len(found) > _MOST_PASSES:
        found = [[layer for stage in found[at : at + 2] for layer in stage] for at in range(0, len(found), 2)]
    return found
