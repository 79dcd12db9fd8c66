"""Distributions of activations from one run over the samples: exact extremes and a histogram that grows with them.

A bin's width is a power of two and its edges are whole multiples of it. Where a value lies outside the bins, neighbours
are merged in pairs, which is exact: the result depends on all values and not on their order. Memory is two runs'
activations and the bins, however many samples there are. Every value counts; nothing is sampled.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.statistics.tap import runs
from onnxcomp.thresholds import Histogram, Range

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["BINS", "Tally", "collect_histograms"]

# At most, and over half of it as soon as there are two values: 2048 leave too few for the bulk of a tensor whose
# outliers are a hundred times larger
BINS = 1 << 14
_CHUNK = 1 << 16  # values counted at once: as many as the processor's cache holds
_MOMENTUM = 0.99  # of the average of extremes (Jacob et al. 2018, section 3.1: "close to 1")
_LEAST_EXPONENT = -126  # 2**-that is the largest power of two of float32 whose inverse is one, too


class Tally:
    """Counts one tensor's values, run by run.

    Attributes:
        extremes: Smallest and largest value so far; infinite and the wrong way round before there is any.
    """

    def __init__(self) -> None:
        self.extremes = Range(math.inf, -math.inf)
        self._average: Range | None = None
        self._exponent = _LEAST_EXPONENT
        self._first = 0  # the bin i holds ((i - 1) * width, i * width]
        self._counts = np.zeros(1, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count the values of one run, any shape; none at all are fine.

        After an infinite value only the extremes are kept.

        Raises:
            ValueError: One is not a number.
        """
        flat = values.reshape(-1)
        found = Range(math.inf, -math.inf)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK].astype(np.float32, copy=False)
            new = Range(float(part.min()), float(part.max()))
            if math.isnan(new.low):
                raise ValueError("not a number")
            found |= new
            self.extremes |= new
            if self.extremes.finite:
                self._make_room()
                self._count(part)
        if flat.size:
            self._average = _averaged(self._average, found)

    def histogram(self) -> Histogram:
        """Return what was counted; a tensor without values is said to be always 0."""
        empty = self._average is None
        width = math.ldexp(1.0, self._exponent)
        return Histogram(
            counts=self._counts.copy(),
            start=(self._first - 1) * width,
            width=width,
            extremes=Range(0.0, 0.0) if empty else self.extremes,
            average=self._average or Range(0.0, 0.0),
        )

    def _make_room(self) -> None:
        """Widen the bins until they reach from extreme to extreme, and to 0."""
        low, high = min(self.extremes.low, 0.0), max(self.extremes.high, 0.0)
        exponent = self._exponent
        if high > low:  # begin with the largest power of two that surely is too small, or just enough
            exponent = max(exponent, math.frexp((high - low) / BINS)[1] - 1)
        while (ends := _bins_of(low, high, exponent))[1] - ends[0] >= BINS:
            exponent += 1
        first, last = ends
        if (exponent, first, last) == (self._exponent, self._first, self._first + len(self._counts) - 1):
            return
        old = np.arange(self._first, self._first + len(self._counts))
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, -(-old >> (exponent - self._exponent)) - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts

    def _count(self, part: np.ndarray) -> None:
        scaled = part * np.float32(math.ldexp(1.0, -self._exponent))  # exact: a power of two
        np.ceil(scaled, out=scaled)
        scaled -= np.float32(self._first)
        counted = np.bincount(scaled.astype(np.int32))
        self._counts[: len(counted)] += counted


def collect_histograms(
    model: "ir.Model",
    samples: Samples,
    names: Iterable[str],
    *,
    threads: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Histogram]:
    """Run a model once over all samples and count the values of the named tensors.

    Args:
        model: Not changed.
        samples: What it is run on.
        names: Of float tensors of the main graph.
        threads: For running; 0 is all cores.
        progress: Called with the number of samples done and the total, where that is known.

    Raises:
        ModelError: A tensor takes a NaN, or the model does not run.
        DataError: There are no samples, or they do not fit.
        KeyError: The graph has no such tensor.
    """
    tallies = {name: Tally() for name in names}

    index = -1
    for index, values in enumerate(runs(model, samples, tallies, threads=threads)):
        for name, tally in tallies.items():
            try:
                tally.add(values.pop(name))
            except ValueError as err:
                raise ModelError(f"tensor {name} is {err} (NaN) on calibration sample {index}") from err
        if progress:
            progress(index + 1, samples.length)
    if index < 0:
        raise DataError(f"{samples.description}: no samples to calibrate on")
    return {name: tally.histogram() for name, tally in tallies.items()}


def _bins_of(low: float, high: float, exponent: int) -> tuple[int, int]:
    """Return the bins that two values fall into."""
    return math.ceil(math.ldexp(low, -exponent)), math.ceil(math.ldexp(high, -exponent))


def _averaged(average: Range | None, new: Range) -> Range:
    if average is None or not new.finite:
        return new
    rest = 1 - _MOMENTUM
    return Range(_MOMENTUM * average.low + rest * new.low, _MOMENTUM * average.high + rest * new.high)
