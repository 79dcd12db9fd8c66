"""Steps of a descent: matrices move along all their directions alike, groups by themselves, all else by Adam."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from onnxcomp.passes.prune.descent import Descent, orthogonal


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))
def test_singular_values_come_near_1_and_vectors_stay(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = min(rows, columns)
    left, right = ortho_group(rows, seed).rvs()[:, :size], ortho_group(columns, seed + 1).rvs()[:, :size]
    values = 10 ** rng.uniform(-1, 0, size)
    found = left.T @ orthogonal(left * values @ right.T) @ right
    np.testing.assert_allclose(np.diag(found), 1, atol=0.4)
    np.testing.assert_allclose(found - np.diag(np.diag(found)), 0, atol=1e-9)


def test_several_matrices_are_worked_on_each_by_itself() -> None:
    matrices = np.random.default_rng(0).normal(size=(3, 4, 6))
    together = orthogonal(matrices * np.array([1.0, 10.0, 100.0])[:, None, None])
    for found, matrix in zip(together, matrices, strict=True):
        np.testing.assert_allclose(found, orthogonal(matrix), atol=1e-9)


@pytest.mark.parametrize(("parts", "like"), [(1, False), (3, False), (12, True)])
def test_single_rows_step_as_vectors_do(parts: int, like: bool) -> None:
    rng = np.random.default_rng(0)
    weight, slope = rng.normal(size=(12, 1, 3, 3)), rng.normal(size=(12, 1, 3, 3))
    state = Descent({"w": weight, "v": weight.reshape(-1)}, {"w": parts}, 0.1, 5)
    for _ in range(2):
        state.step({"w": slope, "v": slope.reshape(-1)})
    assert np.allclose(state.weights["w"].reshape(-1), state.weights["v"]) == like


def test_what_is_zero_stays_and_steps_are_a_share_of_the_size() -> None:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((8, 6)) < 0.5, 0.0, rng.normal(size=(8, 6)))
    state = Descent({"w": weight, "b": np.zeros(8)}, {}, 0.1, 3)
    state.step({"w": rng.normal(size=(8, 6)), "b": np.ones(8)})
    assert ((state.weights["w"] == 0) == (weight == 0)).all()
    assert (state.weights["b"] < 0).all()
    away = np.abs(state.weights["w"] - weight).max()
    assert 0 < away < 0.1 * np.sqrt(np.square(weight).mean())


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_it_comes_down_where_slopes_differ_a_thousandfold(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    read = rng.normal(size=(200, shape[1])) * 10 ** rng.uniform(-1.5, 0, shape[1])
    aim = rng.normal(size=shape)
    state = Descent({"w": np.zeros(shape) + 0.3}, {}, 0.5, 200)

    def loss(weight: np.ndarray) -> float:
        return float(np.square(read @ (weight - aim).T).mean())

    first = loss(state.weights["w"])
    for _ in range(200):
        state.step({"w": 2 * ((state.weights["w"] - aim) @ read.T @ read) / len(read)})
    assert loss(state.weights["w"]) < 1e-3 * first
