"""``diff``: two models side by side: what they are made of, and which weights are not the same."""

import os
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api.common import Data
from onnxcomp.api.inspection import inspect
from onnxcomp.api.weighing import type_text
from onnxcomp.data import ImageOptions
from onnxcomp.facts import initializers
from onnxcomp.metrics import sqnr
from onnxcomp.model import read
from onnxcomp.report import now
from onnxcomp.report.diff import Change, DiffReport, OperatorChange, TensorChange

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["diff"]


def diff(
    first: "str | os.PathLike[str] | bytes | ir.Model",
    second: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    calibration: Data | None = None,
    target: str = "auto",
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
) -> DiffReport:
    """Look at two models without changing anything, and say where they differ.

    Args:
        first: A path, a serialized model, or a model in memory.
        second: The other one, in the same forms.
        calibration: Samples: operations are counted for their shapes.
        target: Where the models would run.
        batch: Rows per run of an ``.npz`` of rows, and of made-up inputs; images per run.
        images: How the images of a folder become values of the models' input.
        seed: Of made-up inputs.

    Raises:
        ModelError: One can't be read as an ONNX model.
        UsageError: The samples do not fit.
    """
    looks = [
        inspect(model, calibration=calibration, target=target, batch=batch, images=images, seed=seed)
        for model in (first, second)
    ]
    counts = [{o.op_type: o.count for o in look.operators} for look in looks]
    types = sorted(counts[0].keys() | counts[1].keys())
    tensors, unchanged = _tensors(read(first), read(second))
    return DiffReport(
        first=looks[0],
        second=looks[1],
        operators=tuple(
            OperatorChange(name, *numbers)
            for name in types
            if len(set(numbers := [count.get(name, 0) for count in counts])) > 1
        ),
        tensors=tensors,
        unchanged=unchanged,
        created=now(),
    )


def _tensors(first: "ir.Model", second: "ir.Model") -> tuple[tuple[TensorChange, ...], int]:
    """Return the weights that differ, by the names of initializers, and how many do not."""
    held = [
        {str(value.name): value.const_value for value in initializers(model) if value.const_value is not None}
        for model in (first, second)
    ]
    changes, unchanged = [], 0
    for name in dict.fromkeys((*held[0], *held[1])):
        change = _change(name, held[0].get(name), held[1].get(name))
        if change is None:
            unchanged += 1
        else:
            changes.append(change)
    changes.sort(key=lambda change: -abs(change.first_bytes - change.second_bytes))
    return tuple(changes), unchanged


def _change(name: str, first: "ir.TensorProtocol | None", second: "ir.TensorProtocol | None") -> TensorChange | None:
    kind: Change
    noise = None
    if first is None or second is None:
        kind = "added" if first is None else "removed"
    elif _shape(first) != _shape(second):
        kind = "other shape"
    elif first.dtype != second.dtype:
        kind = "other type"
        noise = _sqnr(first.numpy(), second.numpy())
    else:
        old, new = first.numpy(), second.numpy()
        if old.tobytes() == new.tobytes():
            return None
        kind, noise = "other values", _sqnr(old, new)
    return TensorChange(name, kind, _text(first), _text(second), _bytes(first), _bytes(second), noise)


def _sqnr(old: np.ndarray, new: np.ndarray) -> float | None:
    """Compare floats; integers are codes, which mean nothing without their scale."""
    if old.dtype.kind != "f" or new.dtype.kind != "f":
        return None
    return sqnr(old, new)


def _shape(tensor: "ir.TensorProtocol") -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape.numpy())


def _text(tensor: "ir.TensorProtocol | None") -> str:
    return "" if tensor is None else f"{type_text(tensor.dtype)}{list(_shape(tensor))}"


def _bytes(tensor: "ir.TensorProtocol | None") -> int:
    return 0 if tensor is None else tensor.nbytes
