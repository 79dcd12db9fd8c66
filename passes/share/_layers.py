"""Weights by what they multiply: how a layer reads its input, and what calibration samples say about that."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.clustering import Codebook, VectorBook, fitted_centroids, fitted_vectors
from onnxcomp.passbase import PassContext
from onnxcomp.passes.share._form import Shared
from onnxcomp.passes.share._weights import Weight
from onnxcomp.statistics import MOST_BYTES, Columns, Gram, GramStore, columns_of, recurrent_columns
from onnxcomp.thresholds import by_diagonal, damped, sweep

__all__ = ["Known", "known_inputs"]

_FITTED = 64  # centroids; more leave little to gain


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about the inputs of one weight.

    Attributes:
        columns: How its layer reads them.
        gram: Of what it reads.
    """

    columns: Columns
    gram: Gram

    def squares(self, weight: Weight) -> NDArray[np.float64]:
        """Return E[x^2] of what each number of a weight multiplies, in its shape."""
        squares = np.diagonal(self.gram.moment, axis1=1, axis2=2)
        rows = self.columns.rows(weight.array)
        return np.asarray(self.columns.weight(np.broadcast_to(squares[:, None, :], rows.shape), weight.array.shape))

    def shared(self, weight: Weight, book: Codebook, damping: float, *, fit: bool) -> Shared:
        """Choose centroids so that the outputs change least: with feedback of errors, then with new centroids.

        Args:
            weight: What is to share values.
            book: Centroids to choose from.
            damping: Of the second moment, as a share of the mean of its diagonal.
            fit: Whether centroids may change.
        """
        array = weight.array
        rows = self.columns.rows(array).astype(np.float64)
        moment = damped(self.gram.moment, damping)
        zero = bool((book.centroids == 0).any())
        ranks = by_diagonal(moment)
        kept = np.take_along_axis(zero & (rows == 0), ranks[:, None, :], axis=2)

        def decide(column: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.where(kept[:, :, column], 0.0, book.stand_ins(values))

        found = sweep(rows, moment, decide, ranks=ranks)
        indices = np.searchsorted(book.centroids, found).astype(np.uint8)
        centroids = book.centroids
        if fit and len(book) <= _FITTED:
            centroids = fitted_centroids(rows, indices, moment, centroids, zero=zero)
        placed = self.columns.weight(indices, array.shape).astype(np.uint8, copy=False)  # type: ignore[arg-type]
        return Shared(placed.reshape(1, -1), centroids[None, :, None].astype(array.dtype), array.shape)

    def vectors(
        self, rows: NDArray[np.float64], book: VectorBook, nearest: NDArray[np.uint8], damping: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Choose vectors so that the outputs change least: with feedback of errors or without, then with new centroids.

        Vectors are coarse: where inputs are hardly correlated, what is fed back can do more harm than good.

        Args:
            rows: The weight, [outputs, K].
            book: Vectors to choose from, of d numbers.
            nearest: Indices without feedback, [outputs, K / d].
            damping: Of the second moment, as a share of the mean of its diagonal.

        Returns:
            Indices, [outputs, K / d], and centroids, [k, d].
        """
        moment = damped(self.gram.moment, damping)
        weights = rows.reshape(len(moment), -1, rows.shape[1])
        found = []
        for indices in (nearest.reshape(*weights.shape[:2], -1), _fed_back(weights, book, moment)):
            centroids = fitted_vectors(weights, indices, moment, book.centroids)
            change = weights - centroids[indices].reshape(*weights.shape[:2], -1)[:, :, : rows.shape[1]]
            found.append((float(((change @ moment) * change).sum()), indices, centroids))
        _, indices, centroids = min(found, key=lambda each: each[0])
        return indices.reshape(len(rows), -1), centroids


def _fed_back(weights: NDArray[np.float64], book: VectorBook, moment: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Choose a vector after the other, each as a whole, with feedback of errors: [groups, rows, K / d]."""
    groups, _, length = weights.shape
    d = book.centroids.shape[1]
    # Those that count most first, the one that may be shorter last
    whole = length // d
    blocks = np.diagonal(moment, axis1=1, axis2=2)[:, : whole * d].reshape(groups, whole, d).sum(axis=2)
    order = np.argsort(-blocks, axis=1, kind="stable")
    ranks = (order[:, :, None] * d + np.arange(d)).reshape(groups, -1)
    ranks = np.concatenate([ranks, np.broadcast_to(np.arange(whole * d, length), (groups, length % d))], axis=1)
    indices = np.empty((*weights.shape[:2], -(-length // d)), np.uint8)
    chosen = np.empty((*weights.shape[:2], d))

    def begin(places: slice, values: NDArray[np.float64], roots: NDArray[np.float64]) -> None:
        for group, part in enumerate(values):
            found = book.indices(part, roots[group] ** -2)
            indices[group, :, ranks[group, places.start] // d] = found
            chosen[group] = book.centroids[found]

    sweep(weights, moment, lambda column, _: chosen[:, :, column % d], ranks=ranks, begin=begin, block=d)
    return indices


def known_inputs(model: ir.Model, weights: list[Weight], ctx: PassContext) -> Iterator[tuple[Weight, Known | None]]:
    """Yield each weight, with what the samples say about its inputs where that can be told."""
    layers: dict[str, tuple[Weight, Columns]] = {}
    for weight in weights:
        columns = _columns(model, weight)
        if columns is not None and 8 * columns.groups * columns.length**2 <= MOST_BYTES:
            layers[str(weight.value.name)] = weight, columns
    yield from ((weight, None) for weight in weights if str(weight.value.name) not in layers)
    if layers and ctx.samples is not None:
        store = ctx.grams or GramStore(model.clone(), ctx.samples, seed=ctx.seed, threads=ctx.threads)
        for name, gram in store.grams({name: columns for name, (_, columns) in layers.items()}, ctx.progress):
            weight, columns = layers[name]
            yield weight, Known(columns, gram)


def _columns(model: ir.Model, weight: Weight) -> Columns | None:
    node = weight.readers[0]
    if node.graph is not model.graph or len(weight.readers) > 1 or len(weight.value.uses()) > 1:
        return None
    if weight.tensor.dtype != ir.DataType.FLOAT:
        return None
    (use,) = weight.value.uses()
    return recurrent_columns(node, use.idx) or (columns_of(node) if use.idx == 1 else None)
