"""Gram matrices of what linear layers read: all that a least-squares problem about their weights needs to know.

With the vectors x of a layer (``columns``), ``G = sum x x^T`` tells the squared change of its outputs when its weights
change: ``sum |(W - W') x|^2 = trace((W - W') G (W - W')^T)``. The sums take K^2 numbers per layer, however many samples
there are. Positions are drawn evenly from all runs, up to a bound: neighbours in an image say much the same.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.statistics.columns import Columns
from onnxcomp.statistics.tap import runs

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MOST_BYTES", "POSITIONS", "Gram", "GramStore", "collect_grams"]

POSITIONS = 10_000  # per layer, over all samples
MOST_BYTES = 1 << 29  # of the matrices that are summed up in one pass over the samples


@dataclass(slots=True)
class Gram:
    """Sums over the vectors that a layer read; grows.

    Attributes:
        products: Sum of x x^T, [groups, K, K].
        sums: Sum of x, [groups, K].
        count: How many vectors, per group.
    """

    products: npt.NDArray[np.float64]
    sums: npt.NDArray[np.float64]
    count: int = 0

    @classmethod
    def empty(cls, columns: Columns) -> "Gram":
        """Return the sums over nothing."""
        size = columns.groups, columns.length
        return cls(np.zeros((*size, columns.length)), np.zeros(size))

    def add(self, vectors: npt.NDArray[np.floating]) -> None:
        """Add vectors, [groups, n, K]: products in their own precision, sums in float64.

        Raises:
            ValueError: One holds a NaN or an infinity.
        """
        if not np.isfinite(vectors).all():
            raise ValueError("not a number (NaN)" if np.isnan(vectors).any() else "infinite")
        self.products += np.matmul(vectors.transpose(0, 2, 1), vectors)
        self.sums += vectors.sum(axis=1, dtype=np.float64)
        self.count += vectors.shape[1]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """E[x], [groups, K]; 0 where nothing was added."""
        return self.sums / max(self.count, 1)

    @property
    def moment(self) -> npt.NDArray[np.float64]:
        """E[x x^T], [groups, K, K]: for a layer whose bias stays as it is."""
        return self.products / max(self.count, 1)

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """E[(x - E[x]) (x - E[x])^T], [groups, K, K]: for a layer whose bias is then fitted."""
        return self.moment - self.mean[:, :, None] * self.mean[:, None, :]


def collect_grams(
    model: "ir.Model",
    samples: Samples,
    layers: Mapping[str, Columns],
    *,
    positions: int = POSITIONS,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Iterator[tuple[str, Gram]]:
    """Run a model over all samples and yield the Gram matrix of each layer.

    Layers that read the same share one matrix. Where all matrices together take more than ``most_bytes``, the samples
    are read again for the next layers; a consumer that keeps none of them never holds more than that, or one matrix.

    Args:
        model: Not changed.
        samples: What it is run on.
        layers: How each layer reads its input, by any name.
        positions: Vectors per layer at most, of all runs together (at least one per run).
        most_bytes: Of the matrices that are summed up at once.
        seed: Draws the positions.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of runs done and the total, where that is known.

    Raises:
        ModelError: A layer's input takes a NaN or an infinity, or the model does not run.
        DataError: There are no samples, or they do not fit.
        KeyError: The graph has no such tensor.
    """
    if not layers:
        return
    total = samples.length if samples.length is not None else sum(1 for _ in samples)
    if not total:
        raise DataError(f"{samples.description}: no samples to calibrate on")
    share = -(-positions // total)
    for batch in _batches(dict.fromkeys(layers.values()), most_bytes):
        grams = {columns: Gram.empty(columns) for columns in batch}
        tensors = list(dict.fromkeys(columns.tensor for columns in batch))
        for index, values in enumerate(runs(model, samples, tensors, threads=threads)):
            for number, (columns, gram) in enumerate(grams.items()):
                rng = np.random.default_rng((seed, index, number))
                try:
                    gram.add(columns.take(np.asarray(values[columns.tensor], np.float32), share, rng))
                except ValueError as err:
                    raise ModelError(f"tensor {columns.tensor} is {err} on calibration sample {index}") from err
            if progress:
                progress(index + 1, total)
        yield from ((name, grams[columns]) for name, columns in layers.items() if columns in grams)


class GramStore:
    """Gram matrices of one model, collected on demand and kept, as far as they fit into memory together.

    Args:
        model: Whose layers are measured. It is not changed.
        samples: What it is run on.
        most_bytes: Of the matrices that are kept, and of those that are summed up at once.
        seed: Draws the positions.
        threads: Intra-op threads; 0 is all cores.
    """

    def __init__(
        self, model: "ir.Model", samples: Samples, *, most_bytes: int = MOST_BYTES, seed: int = 0, threads: int = 0
    ) -> None:
        self._model, self._samples = model, samples
        self._most_bytes, self._seed, self._threads = most_bytes, seed, threads
        self._kept: dict[Columns, Gram] = {}
        self._bytes = 0

    def grams(
        self, layers: Mapping[str, Columns], progress: Callable[[int, int | None], None] | None = None
    ) -> Iterator[tuple[str, Gram]]:
        """Yield the Gram matrix of each layer; those that are not kept cost a run over the samples.

        Raises:
            As `collect_grams`.
        """
        missing = {name: columns for name, columns in layers.items() if columns not in self._kept}
        yield from ((name, self._kept[columns]) for name, columns in layers.items() if name not in missing)
        found = collect_grams(
            self._model,
            self._samples,
            missing,
            most_bytes=self._most_bytes,
            seed=self._seed,
            threads=self._threads,
            progress=progress,
        )
        for name, gram in found:
            if missing[name] not in self._kept and self._bytes + gram.products.nbytes <= self._most_bytes:
                self._kept[missing[name]] = gram
                self._bytes += gram.products.nbytes
            yield name, gram


def _batches(layers: Mapping[Columns, None], most_bytes: int) -> Iterator[list[Columns]]:
    """Deal layers out, in order, so that the matrices of a batch keep to the bound; a larger one is alone."""
    batch: list[Columns] = []
    used = 0
    for columns in layers:
        size = 8 * columns.groups * columns.length**2
        if batch and used + size > most_bytes:
            yield batch
            batch, used = [], 0
        batch.append(columns)
        used += size
    yield batch
