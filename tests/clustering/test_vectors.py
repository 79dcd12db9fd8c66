"""Clusters of vectors: as good as scikit-learn's best of many, nearest by brute force, fitted ones a least square."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from onnxcomp.clustering import VectorBook, fitted_vectors, vector_kmeans

pytestmark = pytest.mark.untraced

RNG = np.random.default_rng(0)


def distances(vectors: np.ndarray, centroids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.asarray((counts[:, None, :] * (vectors[:, None, :] - centroids) ** 2).sum(axis=2))


def test_the_error_is_that_of_the_best_of_many_starts() -> None:
    vectors = RNG.normal(size=(400, 3))
    book = vector_kmeans(vectors, 8)
    error = distances(vectors, book.centroids, np.ones_like(vectors)).min(axis=1).sum()
    best = KMeans(8, n_init=20, random_state=1).fit(vectors).inertia_
    assert error < 1.06 * best
    assert (np.diff((book.centroids**2).sum(axis=1)) >= 0).all()


def test_few_different_vectors_are_kept() -> None:
    kinds = RNG.normal(size=(5, 4))
    book = vector_kmeans(kinds[RNG.integers(0, 5, 200)], 8)
    assert len(book) == 5
    np.testing.assert_array_equal(book.centroids[book.indices(kinds)], kinds)


def test_of_many_a_part_is_looked_at() -> None:
    vectors = RNG.normal(size=(3000, 2))
    first, second, other = (vector_kmeans(vectors, 4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.centroids, second.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


def test_what_counts_more_gets_less_error() -> None:
    vectors, counts = RNG.normal(size=(500, 2)), np.ones((500, 2))
    counts[:20] = 1000
    plain, weighted = (vector_kmeans(vectors, 8, counts=each) for each in (None, counts))
    errors = [distances(vectors[:20], book.centroids, np.ones((20, 2))).min(axis=1).sum() for book in (plain, weighted)]
    assert errors[1] < 0.8 * errors[0]
    nothing = vector_kmeans(vectors, 8, counts=np.zeros((500, 2)))
    np.testing.assert_array_equal(nothing.centroids, plain.centroids)


@pytest.mark.parametrize("length", [4, 3, 1])
@pytest.mark.parametrize("shared", [False, True])
def test_the_nearest(length: int, shared: bool) -> None:
    book = VectorBook.ordered(RNG.normal(size=(20, 4)))
    vectors, counts = RNG.normal(size=(100, length)), RNG.random((100, length)) + 0.1
    every = np.broadcast_to(counts[0], counts.shape) if shared else counts
    expected = distances(vectors, book.centroids[:, :length], every).argmin(axis=1)
    np.testing.assert_array_equal(book.indices(vectors, counts[0] if shared else counts), expected)


def test_fitted_vectors_are_the_least_squares() -> None:
    groups, rows, length, k, d = 2, 30, 10, 6, 4  # the last vector of a row has 2 numbers
    weights = RNG.normal(size=(groups, rows, length))
    indices = RNG.integers(0, k - 1, (groups, rows, 3)).astype(np.uint8)  # the last centroid stands for nothing
    inputs = RNG.normal(size=(groups, 200, length)).cumsum(axis=2)
    moment = inputs.transpose(0, 2, 1) @ inputs / 200
    first = RNG.normal(size=(k, d))

    def left(centroids: np.ndarray) -> np.ndarray:
        """What is left of the outputs, one root of the second moment per group."""
        change = weights - centroids[indices].reshape(groups, rows, -1)[:, :, :length]
        return np.asarray(
            np.concatenate([(c @ np.linalg.cholesky(m)).ravel() for c, m in zip(change, moment, strict=True)])
        )

    none = left(np.zeros((k, d)))
    design = np.stack([none - left(unit.reshape(k, d)) for unit in np.eye(k * d)], axis=1)
    least = ((design @ np.linalg.lstsq(design, none)[0] - none) ** 2).sum()
    found = fitted_vectors(weights, indices, moment, first)
    assert (left(found) ** 2).sum() == pytest.approx(least, rel=1e-3)
    assert (left(first) ** 2).sum() > 1.5 * least
    np.testing.assert_array_equal(found[-1], first[-1])
