import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.thresholds import damped, damping_for, magnitude_mask, removal_costs, rounding_error, sparsify

SEEDS = st.integers(0, 10_000)


def problem(seed: int, rows: int = 6, size: int = 24, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the second moment of correlated inputs."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, size, size)) * np.exp(rng.normal(size=(groups, size, 1)))
    inputs = rng.normal(size=(groups, 300, size)) @ mixing
    return rng.normal(size=(groups, rows, size)), damped(inputs.transpose(0, 2, 1) @ inputs / 300, 0.01)


def best_fit(weights: np.ndarray, hessian: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The best values of the weights that stay, row by row, by least squares."""
    found = np.zeros_like(weights)
    for group, row in np.ndindex(weights.shape[:2]):
        stay = ~gone[group, row]
        h = hessian[group]
        found[group, row, stay] = np.linalg.solve(h[np.ix_(stay, stay)], h[stay] @ weights[group, row])
    return found


@given(seed=SEEDS, share=st.floats(0, 0.95), groups=st.sampled_from([1, 3]), size=st.sampled_from([5, 24, 150]))
@settings(max_examples=30)
def test_exactly_so_many_go(seed: int, share: float, groups: int, size: int) -> None:
    weights, hessian = problem(seed, size=size, groups=groups)
    zeros = round(share * weights.size)
    for mask in (None, magnitude_mask(weights, zeros)):
        found = sparsify(weights, hessian, zeros, mask=mask)
        assert int((found == 0).sum()) == zeros
        more = sparsify(found, hessian, min(zeros + 7, weights.size))
        assert not more[found == 0].any()
        assert int((more == 0).sum()) == min(zeros + 7, weights.size)


@given(seed=SEEDS, pattern=st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 3), (5, 6)]), groups=st.sampled_from([1, 2]))
@settings(max_examples=30)
def test_n_of_m_neighbours_stay(seed: int, pattern: tuple[int, int], groups: int) -> None:
    weights, hessian = problem(seed, size=24 * 6, groups=groups)
    kept, of = pattern
    for found in (
        sparsify(weights, hessian, 0, pattern=pattern),
        np.where(magnitude_mask(weights, 0, pattern), 0, weights),
    ):
        assert (np.count_nonzero(found.reshape(-1, of), axis=1) == kept).all()


@given(seed=SEEDS)
@settings(max_examples=20)
def test_what_one_weight_costs_and_what_the_rest_becomes(seed: int) -> None:
    weights, hessian = problem(seed, rows=2, size=8)
    costs = removal_costs(weights, hessian)
    for row, column in np.ndindex(2, 8):
        gone = np.zeros(weights.shape, bool)
        gone[0, row, column] = True
        by_hand = rounding_error(weights, best_fit(weights, hessian, gone), hessian)
        assert costs[0, row, column] == pytest.approx(by_hand[0, row])
    for found in (sparsify(weights, hessian, 9), sparsify(weights, hessian, 9, mask=magnitude_mask(weights, 9))):
        np.testing.assert_allclose(found, best_fit(weights, hessian, found == 0), atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_error_is_less_than_that_of_the_smallest_weights(share: float) -> None:
    ratios, excess = [], []
    for seed in range(30):
        weights, hessian = problem(seed)
        zeros = round(share * weights.size)
        mask = magnitude_mask(weights, zeros)
        plain = rounding_error(weights, np.where(mask, 0, weights), hessian).sum()
        found = sparsify(weights, hessian, zeros)
        error = rounding_error(weights, found, hessian).sum()
        assert error < plain
        assert rounding_error(weights, sparsify(weights, hessian, zeros, mask=mask), hessian).sum() < plain
        ratios.append(error / plain)
        excess.append(error / rounding_error(weights, best_fit(weights, hessian, found == 0), hessian).sum())
    assert np.median(ratios) < 0.4
    assert np.median(excess) < 1.01  # of the best values for the same zeros


@given(seed=SEEDS)
@settings(max_examples=10)
def test_independent_inputs_lose_the_smallest_products(seed: int) -> None:
    weights, hessian = problem(seed)
    alone = hessian * np.eye(24)
    found = sparsify(weights, alone, 70)
    expected = magnitude_mask(weights * np.sqrt(np.diagonal(alone, axis1=1, axis2=2))[:, None, :], 70)
    np.testing.assert_array_equal(found, np.where(expected, 0, weights))


def test_damping_follows_the_number_of_vectors() -> None:
    assert damping_for(100, 100_000) == 0.01
    assert damping_for(800, 400) == pytest.approx(0.1)
    assert damping_for(800, 1) == 0.3
