"""Histograms of activations: fixed bins between the extremes that a first run over the samples has found.

Memory is one run's activations and the bins, however many samples there are. Every value counts; nothing is sampled.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxcomp.data import Samples
from onnxcomp.model import open_session
from onnxcomp.statistics.tap import tapped

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["BINS", "Histogram", "Range", "add_to_counts", "collect_histograms"]

BINS = 8192  # 2048 leave too few for the bulk of a tensor whose outliers are a hundred times larger
_CHUNK = 1 << 17  # values counted at once: as many as the processor's cache holds
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value that a tensor took over all samples."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the bounds lie apart."""
        return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __or__(self, other: "Range") -> "Range":
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a tensor's values fell into each of equal bins between two edges.

    Attributes:
        low: Left edge of the first bin.
        high: Right edge of the last bin.
        counts: [bins].
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, [bins]."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


def collect_histograms(
    model: "ir.Model", samples: Samples, ranges: Mapping[str, Range], *, threads: int = 0
) -> dict[str, Histogram]:
    """Run a model over all samples and count the values of the named tensors.

    Args:
        model: Not changed.
        samples: The samples that the ranges were measured on.
        ranges: By tensor name; these tensors are counted, between these edges.
        threads: Intra-op threads; 0 is all cores.

    Raises:
        ModelError: The model does not run.
    """
    names = list(ranges)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    inputs = {str(value.name): value.const_value for value in model.graph.inputs}
    defaults = {name: tensor.numpy() for name, tensor in inputs.items() if tensor is not None and name in counts}
    inner = [name for name in names if name not in inputs]
    session = open_session(tapped(model, inner), threads=threads) if inner else None
    for feed in samples:
        values = {**defaults, **feed, **(session.run(feed, inner) if session else {})}
        for name in names:  # each is let go when it is counted: two runs' activations are never held at once
            add_to_counts(counts[name], np.asarray(values.pop(name)), ranges[name].low, ranges[name].high)
        values.clear()
    return {name: Histogram(ranges[name].low, ranges[name].high, counts[name]) for name in names}


def add_to_counts(counts: npt.NDArray[np.int64], values: np.ndarray, low: float, high: float) -> None:
    """Count values into equal bins between ``low`` and ``high``, in place; the edges belong to the outer bins."""
    flat = values.reshape(-1)
    if not high > low:
        counts[0] += flat.size
        return
    scale = np.float32(min(len(counts) / (high - low), _LARGEST))
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float32, copy=False)
        index = ((part - np.float32(low)) * scale).astype(np.int32)
        np.clip(index, 0, len(counts) - 1, out=index)
        counts += np.bincount(index, minlength=len(counts))
