"""How shared weights are written: indices, a codebook, and the standard operators that a runtime folds at load.

::

    Gather(codebook [k], Cast(indices, uint4))                      from opset 21, for 7 to 16 centroids
    Reshape(Gather(table [k^p, p], Cast(packed indices, uint8)))    as many indices in a byte as fit: k^p <= 256

A row of the table holds the centroids of the p indices that a byte stands for. With a codebook per channel group the
indices are a matrix with a row per group, and an Add moves each to its group's part of the table.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.passes.cleanup._graph import Names

__all__ = ["LEAST_OPSET", "Shared", "form_bytes", "write_form", "write_switch"]

LEAST_OPSET = 6  # Cast names its type by number, Reshape takes its shape as an input
_SLICE_OPSET = 10  # Slice takes its bounds as inputs
_UINT4_OPSET = 21
_UINT4_IR = 10
_NODE_BYTES = 60  # about, with its names
_TABLE = 256


@dataclass(frozen=True, slots=True)
class Shared:
    """A weight whose values are shared.

    Attributes:
        indices: uint8 [groups, elements].
        codebooks: In the type of the weight, [groups, k].
        shape: Of the weight once its channels are the first axis.
        last: Whether the channels are to be moved to the last axis.
    """

    indices: NDArray[np.uint8]
    codebooks: NDArray[np.generic]
    shape: tuple[int, ...]
    last: bool = False

    @property
    def values(self) -> NDArray[np.generic]:
        """The weight that they stand for, in its own shape."""
        found = np.take_along_axis(self.codebooks, self.indices.astype(np.int64), axis=1).reshape(self.shape)
        return np.ascontiguousarray(np.moveaxis(found, 0, -1)) if self.last else found


def form_bytes(shared: Shared, opset: int) -> int:
    """Return about what a shared weight takes on disk."""
    groups, elements = (int(size) for size in shared.indices.shape)
    per_byte = _per_byte(shared, opset)
    k, width = int(shared.codebooks.shape[1]), int(shared.codebooks.dtype.itemsize)
    if _nibbles(shared, opset):
        return -(-groups * elements // 2) + groups * k * width + 5 * _NODE_BYTES
    rows = int(k**per_byte)
    return groups * -(-elements // per_byte) + groups * rows * per_byte * width + 6 * _NODE_BYTES


def write_form(model: ir.Model, names: Names, value: ir.Value, shared: Shared, opset: int) -> None:
    """Let all readers of a constant read what the codebook says instead."""
    maker = _Maker(model, names, str(value.name or "weight"))
    groups, elements = (int(size) for size in shared.indices.shape)
    k, per_byte = int(shared.codebooks.shape[1]), _per_byte(shared, opset)
    if _nibbles(shared, opset):
        model.ir_version = max(model.ir_version, _UINT4_IR)
        stored = shared.indices.astype(ir.DataType.UINT4.numpy())
        table: NDArray[np.generic] = shared.codebooks.reshape(-1)
        padded = elements
    else:
        padded = -(-elements // per_byte) * per_byte
        digits = np.pad(shared.indices, ((0, 0), (0, padded - elements))).reshape(groups, -1, per_byte)
        places = k ** np.arange(per_byte)
        stored = (digits * places).sum(axis=2).astype(np.uint8)
        rows = np.arange(k**per_byte)[:, None] // places % k  # [k^p, p]
        table = shared.codebooks[:, rows].reshape((-1, per_byte) if per_byte > 1 else -1)
    plain = groups == 1 and padded == elements and (per_byte == 1 or _nibbles(shared, opset))
    index = maker.node("Cast", maker.constant(stored.reshape(shared.shape if plain else stored.shape)), to=6)
    if groups > 1:
        offsets = np.arange(groups, dtype=np.int32)[:, None] * np.int32(len(table) // groups)
        index = maker.node("Add", index, maker.constant(offsets))
    result = maker.node("Gather", maker.constant(table), index)
    if padded != elements:
        result = maker.node("Reshape", result, maker.integers(groups, padded))
        result = maker.node("Slice", result, maker.integers(0), maker.integers(elements), maker.integers(1))
    if not plain:
        result = maker.node("Reshape", result, maker.integers(*shared.shape))
    if shared.last:
        axes = len(shared.shape)
        result = maker.node("Transpose", result, perm=[*range(1, axes), 0])
    maker.replace(value, result)


def write_switch(
    model: ir.Model, names: Names, value: ir.Value, shared: Shared, *, switches: ir.Value, index: int
) -> None:
    """Let all readers of a constant read its shared values where a switch says so, of ``switches``, bool [n]."""
    maker = _Maker(model, names, str(value.name or "weight"))
    kept = ir.convenience.get_const_tensor(value)
    assert kept is not None
    chosen = maker.node("Gather", switches, maker.constant(np.array(index, np.int64)))
    maker.replace(value, maker.node("Where", chosen, maker.constant(shared.values), maker.constant(kept.numpy())))


def _nibbles(shared: Shared, opset: int) -> bool:
    """Say whether indices are stored in 4 bits each: where a byte of digits holds no more of them."""
    k = shared.codebooks.shape[1]
    return opset >= _UINT4_OPSET and k**2 <= _TABLE < k**3


def _per_byte(shared: Shared, opset: int) -> int:
    """Return how many indices a byte holds."""
    k, elements = shared.codebooks.shape[1], shared.indices.shape[1]
    most = 8
    while most > 1 and (k**most > _TABLE or (elements % most and opset < _SLICE_OPSET)):
        most -= 1
    return most


class _Maker:
    """Makes the nodes and constants that stand for one weight, in the main graph."""

    def __init__(self, model: ir.Model, names: Names, base: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph = model.graph
        self._names = names
        self._base = base

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        name = self._names.fresh(f"{self._base}.shared")
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def replace(self, value: ir.Value, result: ir.Value) -> None:
        """Let all readers of a value read another, and put the nodes in front of all others."""
        result.type, result.shape = value.type, value.shape
        value.replace_all_uses_with(result)
        self._graph.insert_before(next(iter(self._graph)), self.nodes)

    def integers(self, *numbers: int) -> ir.Value:
        return self.constant(np.array(numbers, np.int64))

    def node(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes=attributes)  # type: ignore[arg-type]
        node.outputs[0].name = node.name = self._names.fresh(f"{self._base}.shared")
        self.nodes.append(node)
        return node.outputs[0]
