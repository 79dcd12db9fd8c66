"""The measurement of `memory_of_statistics`, taken inside a process that does nothing else."""

import ctypes
import gc
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Repeated", "measure", "peak", "prepared", "reset_peak", "resident"]

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
    samples = open_samples(data, input_specs(load(model)))
    if count is not None:
        samples = Repeated(samples, count)
    cleaned = prepared(model, samples)
    ctx = PassContext(target=get_target("auto"), samples=samples)
    baseline = resident()
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


def prepared(model: Path, samples: Samples) -> "ir.Model":
    """Load a model and clean it up as `optimize` does before it calibrates."""
    original = load(model)
    ctx = PassContext(target=get_target("auto"), samples=samples)
    steps = Recipe((*cleanup().steps, Step("upgrade-opset", {"minimum": _MINIMUM_OPSET})))
    cleaned, _ = pipeline.run_recipe(original, steps, ctx, pipeline.Verifier(original, samples.take(1)))
    return cleaned


def resident() -> int:
    """Return the resident set of what is in use: what was freed before goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    return peak()


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
        reset_peak()
        found = super().histograms(names, model)
        self.peak = max(self.peak, peak())
        self.seconds += time.perf_counter() - start
        self.tensors = max(self.tensors, len(found))
        return found

    def _count(self, _done: int, _of: int | None) -> None:
        self.runs += 1


class Repeated(Samples):
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


def reset_peak() -> None:
    """Set this process's record of its largest resident set back."""
    gc.collect()
    try:
        _RECORD.write_text(_RESET_PEAK, encoding="ascii")
    except OSError as err:
        raise EnvironmentUnavailable("this system can't set a process's peak memory back") from err


def peak() -> int:
    """Return this process's largest resident set since then, bytes."""
    found = peak_rss()
    if found is None:
        raise EnvironmentUnavailable("this system does not tell a process's peak memory")
    return found
