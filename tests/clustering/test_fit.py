"""Centroids by least squares: no others change the outputs of a layer less."""

import numpy as np
import pytest

from onnxcomp.clustering import fitted_centroids


def problem(groups: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, which of 5 centroids stands for each (never the last), and a second moment."""
    rng = np.random.default_rng(0)
    weights, inputs = rng.normal(size=(groups, 30, 12)), rng.normal(size=(groups, 100, 12)).cumsum(axis=2)
    return weights, rng.integers(0, 4, weights.shape).astype(np.uint8), inputs.transpose(0, 2, 1) @ inputs


def error(weights: np.ndarray, shared: np.ndarray, moment: np.ndarray) -> float:
    change = weights - shared
    return float(np.einsum("grk,gkl,grl->", change, moment, change))


@pytest.mark.parametrize("zero", [False, True])
def test_they_are_the_minimum(zero: bool) -> None:
    weights, indices, moment = problem()
    first = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    found = fitted_centroids(weights, indices, moment, first, zero=zero)
    assert found[4] == 2, "nothing told about it"
    assert (found[1] == 0) is np.bool_(zero)
    least = error(weights, found[indices], moment)
    assert least < error(weights, first[indices], moment)
    for index in [0, 2, 3] if zero else range(4):
        for step in (-0.01, 0.01):
            other = found.copy()
            other[index] += step
            assert error(weights, other[indices], moment) > least


def test_a_centroid_for_all_is_the_weighted_mean() -> None:
    weights, indices, _ = problem(groups=1)
    moment = np.diag(np.arange(1.0, 13))[None]
    found = fitted_centroids(weights, np.zeros_like(indices), moment, np.array([7.0]))
    mean = np.average(weights, weights=np.broadcast_to(np.arange(1.0, 13), weights.shape))
    assert found[0] == pytest.approx(mean, abs=1e-4)
