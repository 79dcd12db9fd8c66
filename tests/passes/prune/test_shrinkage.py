"""How far moments of few samples are moved towards a multiple of the identity."""

import numpy as np
import pytest

from onnxcomp.passes.prune.shrinkage import shrunk
from onnxcomp.statistics import Columns, Gram


def grams(vectors: np.ndarray) -> list[Gram]:
    """Deal runs, [runs, vectors, K], out as `collect_parts` does."""
    half = len(vectors) // 2
    found = []
    for part in (vectors[:half], vectors[half:]):
        for first in (0, 1):
            found.append(Gram.empty(Columns("x", vectors.shape[-1])))
            found[-1].add(part[first::2].reshape(1, -1, vectors.shape[-1]))
    return found


def mixing(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=(size, size)) * np.linspace(0.1, 2, size)


@pytest.mark.parametrize("order", ["one after the other", "in turns"])
def test_runs_of_few_sources_are_trusted_less_than_as_many_that_are_independent(order: str) -> None:
    size, rng = 24, np.random.default_rng(0)
    mix = mixing(rng, size)
    places = np.repeat(np.arange(8), 8) if order == "one after the other" else np.tile(np.arange(8), 8)
    dependent = rng.normal(size=(8, 1, size))[places] + 0.1 * rng.normal(size=(64, 10, size))
    independent = rng.normal(size=(64, 10, size))
    assert error(dependent @ mix, mix) < 0.8  # halves tell what the number of vectors does not
    assert error(independent @ mix, mix) == pytest.approx(1, abs=0.1)


def error(vectors: np.ndarray, mix: np.ndarray) -> float:
    """Return how far from the moment of all the found one is, against what the number of vectors alone tells."""
    parts = grams(vectors)
    found, simple = (np.square(shrunk(each, centred=False) - mix.T @ mix).sum() for each in (parts, [sum_of(parts)]))
    return float(found / simple)


def sum_of(parts: list[Gram]) -> Gram:
    return Gram(
        np.sum([gram.products for gram in parts], axis=0),
        np.sum([gram.sums for gram in parts], axis=0),
        sum(gram.count for gram in parts),
    )


def test_with_many_vectors_the_measured_moment_stays() -> None:
    vectors = np.random.default_rng(0).normal(size=(64, 2000, 8)) @ mixing(np.random.default_rng(1), 8) + 3
    parts = grams(vectors)
    assert shrunk(parts, centred=True) == pytest.approx(sum_of(parts).covariance, abs=0.01 * 4)
    assert shrunk(parts, centred=False) == pytest.approx(sum_of(parts).moment, abs=0.01 * 40)


def test_the_sum_of_energies_stays() -> None:
    parts = grams(np.random.default_rng(0).normal(size=(4, 2, 16)) * np.arange(16))
    assert np.trace(shrunk(parts, centred=True)[0]) == pytest.approx(np.trace(sum_of(parts).covariance[0]))


def test_of_zeros_zeros_come() -> None:
    assert not shrunk(grams(np.zeros((8, 4, 3))), centred=True).any()
