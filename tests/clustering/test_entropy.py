"""Entropy-constrained quantization: the rate that is asked for, and less error than k-means at that rate."""

import numpy as np
import pytest

from onnxcomp.clustering import entropy_clusters, kmeans, tally

RNG = np.random.default_rng(0)
NUMBERS = {
    "gauss": RNG.normal(size=100_000),
    "laplace": RNG.laplace(size=100_000),
    "heavy tails": RNG.standard_t(3, 100_000),
    "few": RNG.normal(size=2000),
}


@pytest.mark.parametrize("bits", [1.5, 2, 3, 4.25, 5])
@pytest.mark.parametrize("name", NUMBERS)
def test_the_entropy_is_what_is_asked_for(name: str, bits: float) -> None:
    numbers = NUMBERS[name].astype(np.float32)
    cells = tally(numbers)
    book = entropy_clusters(cells, bits)
    assert len(book) <= 256
    assert (np.diff(book.centroids) > 0).all()
    assert (np.diff(book.thresholds) >= 0).all()
    counts = np.bincount(book.indices(numbers).reshape(-1))
    shares = counts[counts > 0] / len(numbers)
    assert -(shares * np.log2(shares)).sum() == pytest.approx(book.bits(cells), abs=0.01)
    assert book.bits(cells) == pytest.approx(bits, abs=0.05)
    assert book.bits(cells) <= bits + 1e-9


@pytest.mark.parametrize("k", [4, 16, 64])
def test_the_error_is_less_than_that_of_kmeans_at_its_entropy(k: int) -> None:
    cells = tally(NUMBERS["laplace"].astype(np.float32))
    clusters = kmeans(cells, k)
    book = entropy_clusters(cells, clusters.bits(cells))
    assert book.error(cells) < clusters.error(cells)


def test_the_error_is_near_the_known_one() -> None:
    """A Gaussian at high rate: 6.02 bits - 1.53 dB under the rate-distortion bound (Gish and Pierce 1968)."""
    cells = tally(NUMBERS["gauss"].astype(np.float32))
    book = entropy_clusters(cells, 4)
    decibel = 10 * np.log10(cells.counts.sum() / book.error(cells))
    assert decibel == pytest.approx(6.0206 * book.bits(cells) - 1.533, abs=0.05)


def test_zeros_stay_zeros() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.normal(0.5, 1, 20_000).astype(np.float32)
    numbers[rng.random(20_000) < 0.3] = 0
    for bits in (1, 2, 4):
        book = entropy_clusters(tally(numbers), bits, zero=True)
        assert (book.centroids[book.indices(numbers[numbers == 0])] == 0).all()


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_one_number(value: float) -> None:
    book = entropy_clusters(tally(np.full(10, value, np.float32)), 2)
    np.testing.assert_array_equal(book.centroids, [value])


def test_long_tails_do_not_cost_the_middle() -> None:
    """With as many bits as there can be, an outlier widens no step: the error is about that of k-means."""
    numbers = np.append(NUMBERS["gauss"], 500).astype(np.float32)
    cells = tally(numbers)
    assert entropy_clusters(cells, 8).error(cells) < 1.2 * kmeans(cells, 256).error(cells)
