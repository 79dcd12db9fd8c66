"""What the weights of a model hold: how their values are distributed, and what smaller data types would take."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.facts import all_nodes, initializers
from onnxcomp.passbase import Grouping
from onnxcomp.report.contents import Estimates, WeightHistogram

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["estimates", "type_text", "weight_histograms"]

_LEAST_ELEMENTS = 64  # fewer are scales, shapes and the like
_BINS = 32
_FAR = 4.0  # standard deviations


def weight_histograms(model: "ir.Model") -> Iterator[WeightHistogram]:
    """Yield how the values of each weight are distributed, in the order of the file; short ones are left out."""
    for name, tensor in _named(model):
        if tensor.size < _LEAST_ELEMENTS or tensor.dtype.name in ("STRING", "BOOL"):
            continue
        values = np.asarray(tensor.numpy())
        if np.iscomplexobj(values):
            continue
        wide = values.astype(np.float64 if values.dtype == np.float64 else np.float32).reshape(-1)
        finite = wide[np.isfinite(wide)]
        if not finite.size:
            continue
        low, high = float(finite.min()), float(finite.max())
        mean, std = float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))
        counts, _ = np.histogram(finite, _BINS, (low, high)) if high > low else (np.array([finite.size]), None)
        yield WeightHistogram(
            name=name,
            dtype=type_text(tensor.dtype),
            shape=tuple(int(size) for size in values.shape),
            least=low,
            most=high,
            mean=mean,
            std=std,
            zeros=float(np.mean(finite == 0)),
            outliers=float(np.mean(np.abs(finite - mean) > _FAR * std)) if std else 0.0,
            broken=int(wide.size - finite.size),
            counts=tuple(int(count) for count in counts),
        )


def estimates(model: "ir.Model", size: int, grouping: Grouping | None) -> Estimates:
    """Estimate what smaller data types would take, and what share of the parameters could be pruned.

    Args:
        model: As it is.
        size: Its bytes.
        grouping: What channel pruning could remove; None: that was not asked.
    """
    parameters = half = integer = 0
    for _, tensor in _named(model):
        parameters += tensor.size
        if tensor.dtype.is_floating_point() and tensor.size >= _LEAST_ELEMENTS:
            half += max(0, tensor.nbytes - 2 * tensor.size)
            if len(tensor.shape) > 1:  # vectors are biases and scales, which stay
                channels = max(tensor.shape.numpy())
                integer += max(0, tensor.nbytes - tensor.size - 5 * channels)  # a scale and a zero point for each
    prunable = grouping.parameters / parameters if grouping is not None and parameters else None
    return Estimates(float16=size - half, int8=size - integer, prunable=prunable)


def type_text(dtype: "ir.DataType") -> str:
    """Return what a data type is called in the documents, as numpy does."""
    name: str = dtype.name.lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _named(model: "ir.Model") -> "Iterator[tuple[str, ir.TensorProtocol]]":
    """Yield initializers and the tensors of Constant nodes with their names; see `weights`."""
    for value in initializers(model):
        if value.const_value is not None:
            yield str(value.name), value.const_value
    for node in all_nodes(model):
        if node.op_type == "Constant" and (held := node.attributes.get("value")) is not None:
            yield str(node.outputs[0].name), held.as_tensor()
