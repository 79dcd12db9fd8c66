import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.thresholds import Groups, quantize_groups, quantize_weights

GROUPS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.floats(-1e4, 1e4, width=32)
)


def restored(found: Groups) -> np.ndarray:
    return (found.levels - found.zero_point[:, None].astype(np.float64)) * found.scale[:, None]


def errors(weights: np.ndarray, found: Groups) -> np.ndarray:
    return np.asarray(((restored(found) - weights) ** 2).sum(axis=1))


def brute_force(weights: np.ndarray, *, bits: int, symmetric: bool) -> np.ndarray:
    """Return, per group, the least squared error over a fine grid of scales, with every zero point."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    least = np.full(len(weights), np.inf)
    for row, group in enumerate(weights.astype(np.float64)):
        for scale in np.linspace(0.02, 1.2, 300) * np.ptp(np.append(group, 0)) / (high - low) * (1 + symmetric):
            for zero_point in [0] if symmetric else range(low, high + 1):
                levels = np.clip(np.rint(group / scale) + zero_point, low, high) - zero_point
                least[row] = min(least[row], ((levels * scale - group) ** 2).sum())
    return least


@given(GROUPS, st.sampled_from([2, 4, 8]), st.booleans())
def test_minmax_rounds_to_the_nearest_level(weights: np.ndarray, bits: int, symmetric: bool) -> None:
    found = quantize_groups(weights, bits=bits, symmetric=symmetric, method="minmax")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    assert found.levels.min() >= low
    assert found.levels.max() <= high
    assert (found.scale > 0).all()
    # a zero point that had to be rounded moves the span by half a step at most
    bound = (0.5 if symmetric else 1.0) * found.scale.astype(np.float64)[:, None] * (1 + 1e-4)
    assert (np.abs(restored(found) - weights) <= bound).all()
    assert (restored(found)[weights == 0] == 0).all()


@given(GROUPS, st.sampled_from([2, 4, 8]), st.booleans())
def test_mmse_is_never_worse_than_minmax(weights: np.ndarray, bits: int, symmetric: bool) -> None:
    plain, best = (quantize_groups(weights, bits=bits, symmetric=symmetric, method=m) for m in ("minmax", "mmse"))
    slack = 1e-6 * (weights.astype(np.float64) ** 2).sum(axis=1)  # scales are float32
    assert (errors(weights, best) <= errors(weights, plain) * (1 + 1e-3) + slack).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "lognormal"])
def test_mmse_is_close_to_brute_force(draw: str, symmetric: bool) -> None:
    weights = getattr(np.random.default_rng(3), draw)(size=(6, 64)).astype(np.float32)
    found = quantize_groups(weights, bits=4, symmetric=symmetric, method="mmse")
    least = brute_force(weights, bits=4, symmetric=symmetric)
    assert (errors(weights, found) <= 1.1 * least).all()
    assert errors(weights, found).sum() <= 1.04 * least.sum()


def test_an_outlier_is_clipped() -> None:
    weights = np.random.default_rng(0).normal(size=(1, 4096)).astype(np.float32)
    weights[0, 7] = 12.0
    plain, best = (quantize_groups(weights, bits=4, method=m) for m in ("minmax", "mmse"))
    assert best.scale[0] < 0.5 * plain.scale[0]
    assert errors(weights, best)[0] < 0.5 * errors(weights, plain)[0]


def test_groups_of_zeros() -> None:
    for symmetric in (True, False):
        found = quantize_groups(np.zeros((2, 3), np.float32), bits=4, symmetric=symmetric)
        assert (restored(found) == 0).all()
        assert found.scale.tolist() == [1, 1]


def test_groups_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantize_groups(np.array([[1, np.nan]]), bits=8)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_clipped_weights_of_kernels(axis: int | None) -> None:
    """For static quantization: the same levels as ever, a smaller error, scales of the same shape."""
    weights = np.random.default_rng(0).laplace(size=(4, 900)).astype(np.float32)
    found = {m: quantize_weights(weights, axis=axis, bits=4, method=m) for m in ("minmax", "mmse")}

    def noise(method: str) -> float:
        levels, scale = found[method]
        steps = scale if axis is None else np.expand_dims(scale, 1 - axis)
        return float(((levels * steps - weights) ** 2).sum())

    assert found["mmse"][1].shape == found["minmax"][1].shape
    assert np.abs(found["mmse"][0]).max() <= 7
    assert noise("mmse") < (0.7 if axis != 1 else 0.95) * noise("minmax")
