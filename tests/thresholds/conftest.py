"""Fixtures for the solvers: distributions to draw from, their histograms, and what a quantizer does to values."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from onnxcomp.statistics.histograms import Tally
from onnxcomp.thresholds import Grid, Histogram, Range

_SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gauss": lambda rng, size: rng.normal(size=size),
    "laplace": lambda rng, size: rng.laplace(size=size),
    "relu": lambda rng, size: rng.normal(size=size).clip(0),
    "below zero": lambda rng, size: -rng.exponential(size=size),
    "silu": lambda rng, size: (x := rng.normal(size=size) * 3) / (1 + np.exp(-x)),
    "student t3": lambda rng, size: rng.standard_t(3, size=size),
    "one outlier": lambda rng, size: np.append(rng.normal(size=size - 1), 300),
    "lopsided": lambda rng, size: np.append(rng.normal(size=size - 9), rng.normal(30, 2, size=9)),
    "far from zero": lambda rng, size: rng.normal(50, 1, size=size),
}


def _draw(kind: str, size: int, seed: int = 0) -> np.ndarray:
    return _SHAPES[kind](np.random.default_rng(seed), size).astype(np.float32).astype(np.float64)


def _histogram(*runs: np.ndarray) -> Histogram:
    tally = Tally()
    for values in runs:
        tally.add(np.asarray(values, np.float32))
    return tally.histogram()


def _of_counts(counts: np.ndarray, start: float = 0.0, width: float = 1.0) -> Histogram:
    """A histogram of values in the middle of given bins."""
    used = np.flatnonzero(counts)
    ends = (start + width * (used[[0, -1]] + 0.5)).tolist() if used.size else [0.0, 0.0]
    return Histogram(counts, start, width, Range(*ends), Range(*ends))


def _quantized(values: np.ndarray, found: Range, grid: Grid) -> np.ndarray:
    """Quantize and dequantize, written as the operators of ONNX are defined, in float64."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    if grid.symmetric:
        largest = 2 ** (grid.bits - 1) - 1
        scale = max(-low, high) / largest
        return scale * np.clip(np.rint(values / (scale or 1.0)), -largest, largest)
    scale = (high - low) / (2**grid.bits - 1)
    zero_point = np.rint(-low / (scale or 1.0))
    return scale * (np.clip(np.rint(values / (scale or 1.0)) + zero_point, 0, 2**grid.bits - 1) - zero_point)


def _error(values: np.ndarray, found: Range, grid: Grid, counts: np.ndarray | int = 1) -> float:
    return float((counts * (values - _quantized(values, found, grid)) ** 2).sum())


def _sqnr(values: np.ndarray, found: Range, grid: Grid) -> float:
    return float(10 * np.log10((values**2).sum() / _error(values, found, grid)))


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    return SimpleNamespace(
        kinds=list(_SHAPES), draw=_draw, histogram=_histogram, of_counts=_of_counts, error=_error, sqnr=_sqnr
    )
