import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.thresholds import damped, gptq, rounding_error

LEVELS = 7


def problem(seed: int, rows: int = 1, size: int = 8, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Weights in steps of the grid, and the second moment of strongly correlated inputs."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, size, size)) * np.exp(rng.normal(size=(groups, size, 1)))
    inputs = rng.normal(size=(groups, 200, size)) @ mixing
    weights = rng.uniform(-LEVELS, LEVELS, size=(groups, rows, size))
    return weights, inputs.transpose(0, 2, 1) @ inputs / 200


def literal_gptq(weights: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Optimal brain quantization in a fixed order, one row, with the inverse downdated element by element."""
    work, inverse = weights.copy(), np.linalg.inv(hessian)
    rounded = np.zeros_like(work)
    for column in range(len(work)):
        rounded[column] = np.clip(np.round(work[column]), -LEVELS, LEVELS)
        work -= (work[column] - rounded[column]) / inverse[column, column] * inverse[:, column]
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column, column] = 1  # done with it
    return rounded


@pytest.mark.parametrize("size", [1, 5, 64, 150])
def test_it_is_the_algorithm_of_the_paper(size: int) -> None:
    weights, moment = problem(size, rows=3, size=size, groups=2)
    hessian = damped(moment, 0.01)
    found = gptq(weights, hessian, levels=LEVELS, order=False)
    expected = [[literal_gptq(row, h) for row in rows] for rows, h in zip(weights, hessian, strict=True)]
    np.testing.assert_array_equal(found, expected)


def test_the_order_is_that_of_the_diagonal() -> None:
    weights, moment = problem(3, rows=4, size=20, groups=2)
    hessian = damped(moment, 0.01)
    found = gptq(weights, hessian, levels=LEVELS)
    for group, (w, h) in enumerate(zip(weights, hessian, strict=True)):
        ranks = np.argsort(-np.diag(h))
        sorted_ones = gptq(w[None, :, ranks], h[None][:, ranks][:, :, ranks], levels=LEVELS, order=False)
        np.testing.assert_array_equal(found[group][:, ranks], sorted_ones[0])


def test_it_is_close_to_the_best_of_all_roundings() -> None:
    excess, nearest_excess = [], []
    for seed in range(40):
        weights, moment = problem(seed)
        choices = np.floor(weights) + np.array(list(itertools.product((0, 1), repeat=8)))
        inside = choices[:, np.abs(choices).max(axis=(0, 2)) <= LEVELS]
        best = min(rounding_error(weights, row[None, None], moment).item() for row in inside[0])
        found = gptq(weights, damped(moment, 1e-9), levels=LEVELS)
        excess.append(rounding_error(weights, found, moment).item() / best)
        nearest_excess.append(rounding_error(weights, np.rint(weights), moment).item() / best)
    assert np.median(excess) < 2
    assert np.median(excess) < np.median(nearest_excess) / 3


@given(seed=st.integers(0, 1000))
def test_independent_inputs_are_rounded_to_nearest(seed: int) -> None:
    weights, moment = problem(seed, rows=2)
    found = gptq(weights, moment * np.eye(8), levels=LEVELS)
    np.testing.assert_array_equal(found, np.rint(weights))


@given(seed=st.integers(0, 1000))
def test_the_result_is_on_the_grid_and_what_is_fixed_is_rounded_to_nearest(seed: int) -> None:
    weights, moment = problem(seed, rows=3, size=12, groups=2)
    fixed = np.random.default_rng(seed).random(weights.shape) < 0.3
    found = gptq(weights, damped(moment, 0.01), levels=LEVELS, fixed=fixed)
    np.testing.assert_array_equal(found, np.rint(found))
    assert np.abs(found).max() <= LEVELS
    np.testing.assert_array_equal(found[fixed], np.rint(weights[fixed]))


def test_the_error_is_that_of_the_outputs() -> None:
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(2, 50, 6)), rng.normal(size=(2, 3, 6))
    rounded = np.rint(weights)
    moment = inputs.transpose(0, 2, 1) @ inputs / 50
    outputs = np.einsum("gpk,grk->grp", inputs, rounded - weights)
    np.testing.assert_allclose(rounding_error(weights, rounded, moment), (outputs**2).mean(axis=2))


def test_damping() -> None:
    moment = np.stack([np.zeros((2, 2)), np.diag([1.0, 3.0])])
    np.testing.assert_array_equal(damped(moment, 0.5), [np.eye(2), np.diag([2.0, 4.0])])
