"""What is stored, and which of it together: tensors that one code table serves better than a table each."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxcomp.coding import class_counts, histogram, planes, table_bits
from onnxcomp.storage.container import GROUP, OPEN_GROUPS

__all__ = ["BITS", "Payload", "grouped"]

# Bits of an element by the name of ONNX's data type; BYTES: what is no tensor of a fixed size per element
BITS: Mapping[str, int] = {
    "BYTES": 8, "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64, "BOOL": 8,
    "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128, "BFLOAT16": 16,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "UINT4": 4, "INT4": 4,
    "FLOAT4E2M1": 4, "FLOAT8E8M0": 8, "UINT2": 2, "INT2": 2,
}  # fmt: skip
_ROTATED = ("FLOAT", "BFLOAT16", "COMPLEX64")
_BITS_PER_GROUP = 8 * 130  # about: its entries in header and manifest, its SHA-256, the states of its streams
_MANY_ZEROS = 0.5


@dataclass(slots=True)
class Payload:
    """Data to store.

    Attributes:
        data: Where it lies.
        dtype: Name of ONNX's data type, or BYTES.
        shape: Of the tensor.
        name: Of the tensor.
        places: All that hold this data: the file and the place in it.
        sha256: Of the data.
    """

    data: memoryview
    dtype: str
    shape: tuple[int, ...]
    name: str
    places: list[tuple[int, int]]
    sha256: str

    @property
    def width(self) -> int:
        """Bytes of what is coded as an element."""
        return min(max(BITS[self.dtype] // 8, 1), 4 if self.dtype == "COMPLEX64" else 8)

    @property
    def rotated(self) -> bool:
        """Whether elements are floats whose exponent has 8 bits."""
        return self.dtype in _ROTATED

    @property
    def matrix(self) -> tuple[int, int] | None:
        """Rows and columns, where it is a matrix of bytes with a scale; None: it is none."""
        if self.dtype not in ("INT8", "UINT8") or len(self.shape) < 2 or 0 in self.shape:
            return None
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        return (rows, columns) if min(rows, columns) > 1 else None


@dataclass(slots=True, eq=False)
class _Group:
    kind: tuple[str, bool, bool]
    counts: np.ndarray
    bits: float
    size: int = 0
    members: list[Payload] = field(default_factory=list)


def grouped(payloads: Iterable[Payload]) -> list[list[Payload]]:
    """Return which data are stored together, in the order of the files.

    Data joins the open group whose tables serve both best, if that saves more than a group of its own costs. A group
    holds data of one type, no data that belongs to several places, and has at most 4 MiB; at most 8 are open at any
    place of the files, so that a reader needs little memory.
    """
    found: list[_Group] = []
    opened: list[_Group] = []  # the one that was joined last is the last
    for payload in sorted(payloads, key=lambda payload: min(payload.places)):
        if len(payload.data) > GROUP or len(payload.places) > 1:
            found.append(_Group(("", False, False), np.empty(0), 0, members=[payload]))
            continue
        alone = _alone(payload)
        fitting = [group for group in opened if group.kind == alone.kind and group.size + alone.size <= GROUP]
        joined = [_cost(group.counts + alone.counts, alone.kind) for group in fitting]
        saved = [g.bits + alone.bits + _BITS_PER_GROUP - bits for g, bits in zip(fitting, joined, strict=True)]
        if saved and max(saved) > 0:
            best = saved.index(max(saved))
            group, group.bits = fitting[best], joined[best]
            group.counts = group.counts + alone.counts
            group.size += alone.size
            group.members.append(payload)
            opened.remove(group)
        else:
            found.append(group := alone)
        opened = [*opened, group][-OPEN_GROUPS:]
    return [group.members for group in found]


def _alone(payload: Payload) -> _Group:
    """Return a group of one."""
    data = np.frombuffer(payload.data, np.uint8)
    elements = data.view(f"<u{payload.width}")
    has_zeros = bool(np.count_nonzero(elements) < (1 - _MANY_ZEROS) * elements.size)
    kind = (payload.dtype, payload.matrix is not None, has_zeros)
    if payload.matrix is not None:
        counts = class_counts(data, payload.matrix)
    else:
        counts = np.stack([histogram(plane) for plane in planes(data, payload.width, rotated=payload.rotated)])
    return _Group(kind, counts, _cost(counts, kind), data.size, [payload])


def _cost(counts: np.ndarray, kind: tuple[str, bool, bool]) -> float:
    """Return about the bits that data with these counts, of scale classes or byte planes, [tables, 256], takes."""
    tables = _bits(counts)
    return min(tables, _bits(counts.sum(axis=0, keepdims=True))) if kind[1] else tables


def _bits(counts: np.ndarray) -> float:
    totals = counts.sum(axis=1)
    logs = np.log2(np.maximum(counts, 1))
    symbols = totals * np.log2(np.maximum(totals, 1)) - (counts * logs).sum(axis=1)
    tables = np.array([table_bits(int(present)) for present in (counts > 0).sum(axis=1)])
    return float(np.where(totals > 0, np.minimum(symbols + tables, 8 * totals), 0).sum())
