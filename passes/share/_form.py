"""How shared weights are written: indices, a codebook, and the standard operators that a runtime folds at load.

::

    Gather(codebook [k], Cast(indices, uint4))                      from opset 21, for 7 to 16 centroids
    Reshape(Gather(table [k^p, p], Cast(packed indices, uint8)))    as many indices in a byte as fit: k^p <= 256
    Reshape(Gather(table [k, d], Cast(indices, uint8)))             a centroid is a vector of d neighbours

A row of the table holds the centroids of the p indices that a byte stands for. With a codebook per channel group the
indices are a matrix with a row per group, and an Add moves each to its group's part of the table. A table of vectors
whose numbers float16 holds exactly is stored so, with a Cast.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.passes.cleanup._graph import Names

__all__ = ["LEAST_OPSET", "SLICE_OPSET", "Shared", "form_bytes", "write_form", "write_switch"]

LEAST_OPSET = 6  # Cast names its type by number, Reshape takes its shape as an input
SLICE_OPSET = 10  # Slice takes its bounds as inputs
_UINT4_OPSET = 21
_UINT4_IR = 10
_NODE_BYTES = 60  # about, with its names
_TABLE = 256


@dataclass(frozen=True, slots=True)
class Shared:
    """A weight whose values are shared.

    Attributes:
        indices: uint8 [rows, n].
        codebooks: In the type of the weight, [rows, k, d], or [1, k, d]: one for all rows. A row of the weight holds
            the d numbers of each of its n indices, the last ones maybe fewer.
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
        spread = np.take_along_axis(self.codebooks, self.indices.astype(np.int64)[:, :, None], axis=1)  # [rows, n, d]
        found = spread.reshape(len(self.indices), -1)[:, : self.length].reshape(self.shape)
        return np.ascontiguousarray(np.moveaxis(found, 0, -1)) if self.last else found

    @property
    def length(self) -> int:
        """Numbers in a row of the weight."""
        return math.prod(self.shape) // len(self.indices)

    @property
    def halved(self) -> bool:
        """Whether the codebook is stored in float16: of vectors, where it is exact."""
        books = self.codebooks
        if books.shape[2] == 1 or books.dtype != np.float32 or np.abs(books).max() > np.finfo(np.float16).max:
            return False
        return bool((books.astype(np.float16) == books).all())


def form_bytes(shared: Shared, opset: int) -> int:
    """Return about what a shared weight takes on disk."""
    rows, count = (int(size) for size in shared.indices.shape)
    per_byte = _per_byte(shared, opset)
    books, k, d = (int(size) for size in shared.codebooks.shape)
    width = 2 if shared.halved else int(shared.codebooks.dtype.itemsize)
    if _nibbles(shared, opset):
        return -(-rows * count // 2) + books * k * d * width + 5 * _NODE_BYTES
    return rows * -(-count // per_byte) + books * int(k**per_byte) * per_byte * d * width + 6 * _NODE_BYTES


def write_form(model: ir.Model, names: Names, value: ir.Value, shared: Shared, opset: int) -> None:
    """Let all readers of a constant read what the codebook says instead."""
    maker = _Maker(model, names, str(value.name or "weight"))
    rows, count = (int(size) for size in shared.indices.shape)
    books, k, d = (int(size) for size in shared.codebooks.shape)
    per_byte = _per_byte(shared, opset)
    if _nibbles(shared, opset):
        model.ir_version = max(model.ir_version, _UINT4_IR)
        stored = shared.indices.astype(ir.DataType.UINT4.numpy())
        table, padded = shared.codebooks.reshape(-1, d), count * d
    else:
        digits = np.pad(shared.indices, ((0, 0), (0, -count % per_byte))).reshape(rows, -1, per_byte)
        places = k ** np.arange(per_byte)
        stored = (digits * places).sum(axis=2).astype(np.uint8)
        each = np.arange(k**per_byte)[:, None] // places % k  # [k^p, p]
        table, padded = shared.codebooks[:, each].reshape(-1, per_byte * d), digits.size // rows * d
    if table.shape[1] == 1:
        table = table[:, 0]
    plain = rows == 1 and padded == shared.length and table.ndim == 1
    index = maker.node("Cast", maker.constant(stored.reshape(shared.shape if plain else stored.shape)), to=6)
    if books > 1:
        offsets = np.arange(books, dtype=np.int32)[:, None] * np.int32(len(table) // books)
        index = maker.node("Add", index, maker.constant(offsets))
    if shared.halved:
        kept = maker.node("Cast", maker.constant(table.astype(np.float16)), to=int(ir.DataType.FLOAT))
    else:
        kept = maker.constant(table)
    result = maker.node("Gather", kept, index)
    if padded != shared.length:
        result = maker.node("Reshape", result, maker.integers(rows, padded))
        result = maker.node("Slice", result, maker.integers(0), maker.integers(shared.length), maker.integers(1))
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
    k, count = shared.codebooks.shape[1], shared.indices.shape[1]
    most = 8
    while most > 1 and (k**most > _TABLE or (count % most and opset < SLICE_OPSET)):
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
