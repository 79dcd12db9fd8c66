"""Least squares from sums, held against numpy's on the vectors themselves."""

import numpy as np
import pytest

from onnxcomp.passes.prune.fit import Change, Sums, affine, least_squares, mean_shift


def problem(*, groups: int, outputs: int, length: int, count: int = 80) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng((groups, outputs, length))
    x = rng.normal(size=(groups, count, length)) @ rng.normal(size=(groups, length, length)) + 2
    weight = rng.normal(size=(groups, outputs, length))
    y = x @ rng.normal(size=(groups, length, outputs)) + rng.normal(size=(groups, count, outputs)) + 3
    return x, weight, y


def summed(x: np.ndarray, r: np.ndarray, y: np.ndarray) -> Sums:
    sums = Sums.empty(len(x), r.shape[2], x.shape[2])
    for part in np.array_split(np.arange(x.shape[1]), 7):
        sums.add(x[:, part], r[:, part], y[:, part])
    return sums


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("damping", [1e-9, 0.1])
@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 2, 4), (6, 1, 9), (1, 2, 70)])
def test_it_is_the_damped_least_squares_solution(shape: tuple[int, int, int], damping: float, bias: bool) -> None:
    x, weight, y = problem(groups=shape[0], outputs=shape[1], length=shape[2])
    residual = y - x @ weight.transpose(0, 2, 1)
    sums = summed(x, residual, y)
    found = least_squares(sums, damping, bias=bias)
    left = 0.0
    for group in range(shape[0]):
        count, length = x[group].shape
        middle = x[group].mean(axis=0) if bias else 0
        level = np.square(x[group] - middle).mean()  # of the diagonal
        rows = np.hstack([x[group], np.ones((count, int(bias)))])
        ridge = np.hstack([np.sqrt(damping * level * count) * np.eye(length), np.zeros((length, int(bias)))])
        right = np.vstack([residual[group], np.zeros((length, shape[1]))])
        expected = np.linalg.lstsq(np.vstack([rows, ridge]), right, rcond=None)[0]
        np.testing.assert_allclose(found.weight[group].T, expected[:length], rtol=1e-5, atol=1e-7)
        if bias:
            np.testing.assert_allclose(found.bias[group], expected[length], rtol=1e-5, atol=1e-7)
        left += np.square(residual[group] - rows @ expected).mean(axis=0).sum()
    np.testing.assert_allclose(sums.error(found), left, rtol=1e-6)
    np.testing.assert_allclose(sums.error(), np.square(residual).mean(axis=1).sum())


def test_shift_and_scale_are_the_regressions_of_each_output() -> None:
    x, weight, y = problem(groups=2, outputs=3, length=4)
    now = x @ weight.transpose(0, 2, 1)
    sums = summed(x, y - now, y)
    np.testing.assert_allclose(mean_shift(sums).bias, (y - now).mean(axis=1))
    for bias in (True, False):
        found = affine(sums, weight, bias=bias)
        for group, output in np.ndindex(2, 3):
            columns = [now[group, :, output]] + [np.ones(x.shape[1])] * bias
            expected = np.linalg.lstsq(np.stack(columns, axis=1), y[group, :, output], rcond=None)[0]
            scaled = weight[group, output] + found.weight[group, output]
            np.testing.assert_allclose(scaled, expected[0] * weight[group, output], rtol=1e-9)
            np.testing.assert_allclose(found.bias[group, output], expected[1] if bias else 0, rtol=1e-7)


@pytest.mark.parametrize("length", [6, 80])
def test_inputs_that_depend_on_each_other_or_never_change_do_no_harm(length: int) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(1, 40, length // 2)), 2, axis=2).astype(np.float32)
    x[..., -1] = 1000.0
    x[..., 0] = 0.0
    y = x[:, :, :2] * 3 + 1
    sums = summed(x, y, y)
    found = least_squares(sums, 1e-12, bias=True)
    assert np.isfinite(found.weight).all()
    assert sums.error(found) < 1e-4 * sums.error()
    nothing = least_squares(Sums.empty(1, 2, length), 0.1, bias=True)
    assert not nothing.weight.any()


def test_sums_of_parts_are_those_of_all_and_refuse_what_is_no_number() -> None:
    x, _, y = problem(groups=1, outputs=2, length=3)
    sums, rest = summed(x[:, :50], y[:, :50], y[:, :50]), summed(x[:, 50:], y[:, 50:], y[:, 50:])
    sums += rest
    np.testing.assert_allclose(sums.xx, summed(x, y, y).xx)
    np.testing.assert_allclose(sums.error(Change(np.zeros((1, 2, 3)), np.zeros((1, 2)))), sums.error())
    x[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        sums.add(x, y, y)
