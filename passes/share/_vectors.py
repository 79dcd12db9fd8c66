"""Weights whose sub-vectors are shared: an index stands for several neighbours along the inputs of the layer.

Source: Gong et al. 2014 (Compressing Deep Convolutional Networks using Vector Quantization), section 3.2.
"""

import math

import numpy as np
from numpy.typing import NDArray

from onnxcomp.clustering import vector_kmeans
from onnxcomp.passes.cleanup._graph import is_op
from onnxcomp.passes.share._form import SLICE_OPSET, Shared
from onnxcomp.passes.share._layers import Known
from onnxcomp.passes.share._weights import Weight

__all__ = ["takes_vectors", "vectors_shared"]

_PER_CENTROID = 16  # vectors; of fewer, the codebook is too large a part
_PADDED = 1.1  # numbers that are stored, over those of the weight
_PRUNED = 0.01  # share of exact zeros from which they are kept
_ROUNDED = 1e-3  # of a centroid's numbers, to float16


def takes_vectors(weight: Weight, d: int, k: int, opset: int) -> bool:
    """Say whether a weight's sub-vectors of ``d`` are shared, or its single numbers.

    Those of pruned weights are not: a vector would hardly leave zeros where they are. Nor are those of weights that are
    small, or have few inputs.
    """
    array = weight.array
    length = _length(weight, array.shape)
    stored = -(-length // d) * d
    if stored > _PADDED * length or (stored != length and opset < SLICE_OPSET):
        return False
    return array.size >= _PER_CENTROID * k * d and float((array == 0).mean()) <= _PRUNED


def vectors_shared(
    weight: Weight,
    known: Known | None,
    counting: NDArray[np.float64] | None,
    *,
    d: int,
    k: int,
    damping: float | None,
    seed: int,
) -> Shared:
    """Let the sub-vectors of a weight share values.

    Args:
        weight: It.
        known: What it multiplies.
        counting: How much each number counts, in its shape; None: all the same.
        d: Numbers of a sub-vector; the last one in a row may have fewer.
        k: Of them in the codebook.
        damping: Of errors that are fed back; None: each sub-vector gets the nearest.
        seed: Of what is drawn.
    """
    last = bool(weight.channels_last)
    array = np.moveaxis(weight.array, -1, 0) if last else weight.array
    length = _length(weight, weight.array.shape)
    rows = array.reshape(-1, length).astype(np.float64)
    counts = counting
    if counts is not None:
        counts = (np.moveaxis(counts, -1, 0) if last else counts).reshape(rows.shape)
    whole = length // d * d
    book = vector_kmeans(_cut(rows, whole, d), k, counts=None if counts is None else _cut(counts, whole, d), seed=seed)
    centroids = book.centroids
    parts = [slice(start, start + d) for start in range(0, length, d)]
    indices = np.stack(
        [book.indices(rows[:, part], None if counts is None else counts[:, part]) for part in parts], axis=1
    )
    if known is not None and damping is not None:
        indices, centroids = known.vectors(rows, book, indices, damping)
    return Shared(indices, _rounded(centroids.astype(array.dtype))[None], array.shape, last)


def _length(weight: Weight, shape: tuple[int, ...]) -> int:
    """Return how many numbers of a weight follow each other along its inputs."""
    if weight.channels_last:
        return int(shape[-2])
    kernels = any(is_op(node, "Conv", "ConvTranspose") for node in weight.readers)
    return math.prod(shape[1:]) if kernels else int(shape[-1])


def _cut(rows: NDArray[np.float64], whole: int, d: int) -> NDArray[np.float64]:
    return rows[:, :whole].reshape(-1, d)


def _rounded(centroids: NDArray[np.floating]) -> NDArray[np.floating]:
    """Round to what float16 holds, where that changes them hardly."""
    with np.errstate(over="ignore"):
        found = centroids.astype(np.float16).astype(centroids.dtype)
    close = float(np.abs(found - centroids).max()) <= _ROUNDED * float(np.abs(centroids).max())
    return found if close else centroids
