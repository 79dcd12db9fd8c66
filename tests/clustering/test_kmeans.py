"""k-means of numbers, against brute force and an exact reference in float64."""

import builtins
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxcomp.clustering import INITS, Cells, Codebook, kmeans, segments, tally
from onnxcomp.errors import EnvironmentUnavailable

pytestmark = pytest.mark.untraced


def brute_force(numbers: np.ndarray, weights: np.ndarray, k: int) -> float:
    """Least weighted squared error over all cuts of the sorted numbers into k runs, by the O(k n^2) recurrence."""
    order = np.argsort(numbers, kind="stable")
    x, w = numbers[order].astype(np.float64), weights[order]
    n = len(x)
    error = np.zeros((n + 1, n + 1))
    for first, end in itertools.combinations(range(n + 1), 2):
        part, heavy = x[first:end], w[first:end]
        mean = np.average(part, weights=heavy)
        error[first, end] = (heavy * (part - mean) ** 2).sum()
    best = error[0].copy()
    best[0] = np.inf
    for _ in range(k - 1):
        best = np.array([np.inf, *((best[:end] + error[:end, end]).min() for end in range(1, n + 1))])
    return float(best[n])


def error(book: Codebook, numbers: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    found = book.centroids[book.indices(numbers)]
    return float((weights * (numbers.astype(np.float64) - found) ** 2).sum())


def real_weights(sample_models: Path) -> list[np.ndarray]:
    found = []
    for name in ("lenet_300_100", "lenet5", "resnet8"):
        proto = onnx.load(sample_models / name / "model.onnx")
        arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
        found += [array for array in arrays if array.dtype == np.float32 and array.size > 5000]
    return found


@settings(max_examples=60)
@given(st.data())
def test_it_is_the_optimum(data: Any) -> None:
    seed, n = data.draw(st.integers(0, 10**6)), data.draw(st.integers(2, 40))
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(seed)
    numbers = np.round(rng.standard_t(3, n), 2).astype(np.float32)  # some come twice
    weights = rng.uniform(0.1, 10, n)
    book = kmeans(tally(numbers, weights), k)
    assert len(book) <= k
    least = brute_force(numbers, weights, min(k, n))
    assert error(book, numbers, weights) == pytest.approx(least, rel=1e-6, abs=1e-9 * float((numbers**2).sum()))


@pytest.mark.parametrize(("k", "most"), [(2, 40_000), (4, 40_000), (16, 40_000), (64, 20_000), (256, 10_000)])
def test_real_tensors_are_within_a_thousandth_of_the_optimum(sample_models: Path, k: int, most: int) -> None:
    """The reference cuts the sorted weights themselves, no cells."""
    tensors = real_weights(sample_models)
    assert len(tensors) > 5
    for weights in tensors:
        flat = np.sort(weights.reshape(-1).astype(np.float64))[:most]
        starts = segments.best_segments(np.ones(len(flat)), flat, k)
        reference = Codebook.nearest(np.add.reduceat(flat, starts) / np.diff(np.append(starts, len(flat))))
        found = kmeans(tally(flat.astype(np.float32)), k)
        assert error(found, flat) <= 1.001 * error(reference, flat)


def test_outliers_cost_no_precision() -> None:
    numbers = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    alone = error(kmeans(tally(numbers), 15), numbers)
    with_outlier = np.append(numbers, np.float32(1e6))
    assert error(kmeans(tally(with_outlier), 16), with_outlier) <= 1.001 * alone


@pytest.mark.parametrize("k", [2, 3, 16, 100])
def test_numpy_and_numba_find_the_same_to_the_bit(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(k)
    cells = tally(rng.standard_t(4, 100_000).astype(np.float32), rng.uniform(0, 1, 100_000))
    assert segments._compiled() is not None
    first = kmeans(cells, k)
    monkeypatch.setattr(segments, "_compiled", lambda: None)
    second = kmeans(cells, k)
    np.testing.assert_array_equal(first.centroids, second.centroids)


@pytest.mark.parametrize("init", INITS)
def test_initialisations(init: str) -> None:
    numbers = np.random.default_rng(1).laplace(size=30_000).astype(np.float32)
    cells = tally(numbers)
    book = kmeans(cells, 16, init=init, seed=3)
    assert len(book) == 16
    assert error(book, numbers) >= 0.9999 * error(kmeans(cells, 16), numbers)
    assert error(book, numbers) < 0.1 * float((numbers**2).sum())
    np.testing.assert_array_equal(book.centroids, kmeans(cells, 16, init=init, seed=3).centroids)


def test_initialisations_differ() -> None:
    cells = tally(np.random.default_rng(1).standard_t(3, 30_000).astype(np.float32))
    errors = {init: kmeans(cells, 16, init=init).error(cells) for init in INITS}
    assert min(errors.values()) == errors["exact"]
    assert len({round(found, 6) for found in errors.values()}) > 1


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    cells = tally(np.arange(100, dtype=np.float32))
    assert len(kmeans(cells, 4)) == 4
    with pytest.raises(EnvironmentUnavailable, match="scikit-learn") as caught:
        kmeans(cells, 4, init="linear")
    assert caught.value.hint


@pytest.mark.parametrize("k", [2, 4, 16])
def test_zeros_stay_zeros(k: int) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(1, 1, 10_000).astype(np.float32)
    numbers[rng.random(10_000) < 0.6] = 0
    assert 0 not in kmeans(tally(numbers), k).centroids
    book = kmeans(tally(numbers), k, zero=True)
    assert len(book) == k
    assert (book.centroids[book.indices(numbers[numbers == 0])] == 0).all()


def test_fewer_numbers_than_clusters() -> None:
    numbers = np.array([3, 1, 1, -2], np.float32)
    np.testing.assert_array_equal(kmeans(tally(numbers), 16).centroids, [-2, 1, 3])
    np.testing.assert_array_equal(kmeans(tally(numbers), 16, zero=True).centroids, [-2, 0, 1, 3])
    np.testing.assert_array_equal(kmeans(tally(np.zeros(9, np.float32)), 4, zero=True).centroids, [0])


def test_weights_pull_centroids() -> None:
    numbers = np.array([0.0, 1.0], np.float32)
    assert kmeans(tally(numbers, np.array([1.0, 3.0])), 1).centroids == pytest.approx([0.75])


@pytest.mark.parametrize("size", [1000, 300_000])
def test_cells_lose_nothing(size: int) -> None:
    rng = np.random.default_rng(size)
    numbers = rng.standard_t(2, size).astype(np.float32)
    numbers[:10] = -0.0
    weights = rng.uniform(0.5, 2, size)
    cells = tally(numbers, weights)
    assert cells.counts.sum() == size
    assert cells.zeros == 10
    assert cells.weights.sum() == pytest.approx(weights.sum())
    assert cells.sums.sum() == pytest.approx((weights * numbers).sum(), abs=1e-6 * size)
    assert (np.diff(cells.means) > 0).all()
    few = cells.reduced(100)
    assert len(few) <= 100
    assert few.counts.sum() == size
    both = Cells.joined([tally(numbers[: size // 2]), tally(numbers[size // 2 :])])
    assert both.counts.sum() == size
    assert (np.diff(both.means) >= 0).all()


@pytest.mark.parametrize("numbers", [[], [1.0, np.nan], [np.inf]])
def test_what_is_no_histogram(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="number"):
        tally(np.array(numbers, np.float32))
