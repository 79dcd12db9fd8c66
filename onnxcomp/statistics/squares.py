"""Mean squares of what layers read: the diagonal of their Gram matrices, in the memory of a vector."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.statistics.columns import Columns
from onnxcomp.statistics.gram import POSITIONS
from onnxcomp.statistics.tap import runs

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["collect_squares"]


def collect_squares(
    model: "ir.Model",
    samples: Samples,
    layers: Mapping[str, Columns],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Run a model over all samples and return E[x^2] of the vectors that each layer reads.

    Args:
        model: Not changed.
        samples: What it is run on.
        layers: How each layer reads its input, by any name.
        positions: Vectors per layer at most, of all runs together (at least one per run).
        seed: Draws the positions.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of runs done and the total, where that is known.

    Returns:
        [groups, K] by layer.

    Raises:
        ModelError: A layer's input takes a NaN or an infinity, or the model does not run.
        DataError: There are no samples, or they do not fit.
        KeyError: The graph has no such tensor.
    """
    if not layers:
        return {}
    total = samples.length if samples.length is not None else sum(1 for _ in samples)
    if not total:
        raise DataError(f"{samples.description}: no samples to calibrate on")
    share = -(-positions // total)
    sums = {columns: np.zeros((columns.groups, columns.length)) for columns in layers.values()}
    counts = dict.fromkeys(sums, 0)
    tensors = list(dict.fromkeys(columns.tensor for columns in sums))
    for index, values in enumerate(runs(model, samples, tensors, threads=threads)):
        for number, columns in enumerate(sums):
            rng = np.random.default_rng((seed, index, number))
            vectors = columns.take(np.asarray(values[columns.tensor], np.float32), share, rng)  # [groups, n, K]
            if not np.isfinite(vectors).all():
                raise ModelError(f"tensor {columns.tensor} is not finite on calibration sample {index}")
            sums[columns] += np.einsum("gnk,gnk->gk", vectors, vectors, dtype=np.float64)
            counts[columns] += vectors.shape[1]
        if progress:
            progress(index + 1, total)
    return {name: sums[columns] / max(counts[columns], 1) for name, columns in layers.items()}
