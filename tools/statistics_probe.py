"""The measurement of `memory_of_statistics`, taken inside a process that does nothing else."""

import ctypes
import gc
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from onnxcomp import pipeline
from onnxcomp.data import Feed, Samples, open_samples
from onnxcomp.errors import EnvironmentUnavailable
from onnxcomp.facts import input_specs
from onnxcomp.measure import peak_rss
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.candidates import cleanup
from onnxcomp.statistics import Histogram, RangeStore
from onnxcomp.target import get_target

__all__ = ["measure"]

_RECORD = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)
_MINIMUM_OPSET = 13


def measure(model: Path, data: Path, count: int | None) -> dict[str, Any]:
    """Return baseline and peak in bytes, as the docstring of `memory_of_statistics` defines them.

    Args:
        model: The ONNX file.
        data: Calibration samples.
        count: How many of them to run, repeated where there are fewer; None: all.
    """
    original = load(model)
    samples = open_samples(data, input_specs(original))
    if count is not None:
        samples = _Repeated(samples, count)
    ctx = PassContext(target=get_target("auto"), samples=samples)
    verifier = pipeline.Verifier(original, samples.take(1))
    prepared = Recipe((*cleanup().steps, Step("upgrade-opset", {"minimum": _MINIMUM_OPSET})))
    cleaned, _ = pipeline.run_recipe(original, prepared, ctx, verifier)
    del original, verifier
    baseline = _resident()
    ranges = _WatchedRanges(cleaned, samples)
    ctx.ranges = ranges
    Step("quantize-static", {"method": "percentile"}).make().run(cleaned, ctx)
    return {
        "baseline": baseline,
        "peak": ranges.peak,
        "tensors": ranges.tensors,
        "runs": ranges.runs,
        "seconds": ranges.seconds,
    }


def _resident() -> int:
    """Return the resident set of what is in use: what was freed before goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _reset_peak()
    return _peak()


class _WatchedRanges(RangeStore):
    """Ranges that note the peak while they are collected.

    Attributes:
        peak: Bytes, the largest of all collections.
        tensors: How many tensors were measured.
        runs: How often the model was run.
        seconds: Spent collecting.
    """

    def __init__(self, model: Any, samples: Samples) -> None:
        super().__init__(model, samples, progress=self._count)
        self.peak = self.tensors = self.runs = 0
        self.seconds = 0.0

    def histograms(self, names: Iterable[str], model: Any = None) -> dict[str, Histogram]:
        """See `RangeStore.histograms`."""
        start = time.perf_counter()
        _reset_peak()
        found = super().histograms(names, model)
        self.peak = max(self.peak, _peak())
        self.seconds += time.perf_counter() - start
        self.tensors = max(self.tensors, len(found))
        return found

    def _count(self, _done: int, _of: int | None) -> None:
        self.runs += 1


class _Repeated(Samples):
    """Samples in an endless circle, cut off after so many."""

    def __init__(self, source: Samples, count: int) -> None:
        self._source = source
        self._total = count

    def __iter__(self) -> Iterator[Feed]:
        return islice(chain.from_iterable(repeat(self._source)), self._total)

    @property
    def length(self) -> int:
        """See `Samples.length`."""
        return self._total

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        return f"{self._source.description}, repeated to {self._total} runs"

    def labels(self) -> list[np.ndarray] | None:
        """Return None: calibration asks for no labels."""
        return None


def _reset_peak() -> None:
    gc.collect()
    try:
        _RECORD.write_text(_RESET_PEAK, encoding="ascii")
    except OSError as err:
        raise EnvironmentUnavailable("this system can't set a process's peak memory back") from err


def _peak() -> int:
    peak = peak_rss()
    if peak is None:
        raise EnvironmentUnavailable("this system does not tell a process's peak memory")
    return peak
