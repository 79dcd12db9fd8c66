"""Means of activations per channel, from one run over the samples: sums in float64, no activation is kept."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.statistics.tap import runs

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MeanStore", "collect_means"]


class MeanStore:
    """Channel means of one model's tensors, collected on demand and kept: a tensor is measured once, whoever asks.

    Args:
        model: Not changed.
        samples: What it is run on.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of runs done and the total, where that is known.

    Attributes:
        model: The model.
    """

    def __init__(
        self,
        model: "ir.Model",
        samples: Samples,
        *,
        threads: int = 0,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self.model = model
        self._samples = samples
        self._threads = threads
        self._progress = progress
        self._known: dict[tuple[str, int, int], npt.NDArray[np.float64]] = {}

    def get(self, axes: Mapping[str, int], runs: int) -> dict[str, npt.NDArray[np.float64]]:
        """Return the mean of each tensor along all axes but one, over so many runs at most, as `collect_means` does."""
        missing = {name: axis for name, axis in axes.items() if (name, axis, runs) not in self._known}
        if missing:
            samples = self._samples.spread(runs)
            found = collect_means(self.model, samples, missing, threads=self._threads, progress=self._progress)
            self._known |= {(name, axis, runs): found[name] for name, axis in missing.items()}
        return {name: self._known[name, axis, runs] for name, axis in axes.items()}


def collect_means(
    model: "ir.Model",
    samples: Samples,
    axes: Mapping[str, int],
    *,
    threads: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Run a model over all samples and return the mean of each tensor along all axes but one.

    Args:
        model: Not changed.
        samples: What it is run on.
        axes: The axis that is kept, by name of a float tensor of the main graph.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of runs done and the total, where that is known.

    Returns:
        [channels] by tensor; every value counts as much as any other, also where runs differ in size.

    Raises:
        ModelError: A tensor takes a NaN or an infinity, or the model does not run.
        DataError: There are no samples, or they do not fit.
        KeyError: The graph has no such tensor.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts = dict.fromkeys(axes, 0)
    index = -1
    for index, values in enumerate(runs(model, samples, axes, threads=threads)):
        for name, kept in axes.items():
            value = values[name]
            others = tuple(axis for axis in range(value.ndim) if axis != kept % value.ndim)
            found = value.sum(axis=others, dtype=np.float64)
            if not np.isfinite(found).all():
                kind = "not a number (NaN)" if np.isnan(value).any() else "infinite"
                raise ModelError(f"tensor {name} is {kind} on calibration sample {index}")
            sums[name] = sums.get(name, 0.0) + found
            counts[name] += value.size // max(len(found), 1)
        if progress:
            progress(index + 1, samples.length)
    if index < 0:
        raise DataError(f"{samples.description}: no samples to calibrate on")
    return {name: found / max(counts[name], 1) for name, found in sums.items()}
