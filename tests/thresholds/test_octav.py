from types import SimpleNamespace

import numpy as np
import pytest

from onnxcomp.thresholds import Grid, Range
from onnxcomp.thresholds.octav import octav


def expected_error(values: np.ndarray, low: float, high: float, bits: int) -> float:
    """What OCTAV minimises, on the values themselves: rounding of what is inside and not 0, clipping of the rest."""
    inside = ((values >= low) & (values <= high) & (values != 0)).sum()
    clipped = np.where(values > high, values - high, np.where(values < low, values - low, 0.0))
    return float(inside * (high - low) ** 2 / 12 * 4.0**-bits + (clipped**2).sum())


@pytest.mark.parametrize("kind", ["gauss", "laplace", "student t3", "one outlier"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_equals_brute_force(lab: SimpleNamespace, kind: str, bits: int) -> None:
    values = lab.draw(kind, 20_000)
    found = octav(lab.histogram(values), Grid(bits, symmetric=True))
    threshold = max(-found.low, found.high)
    largest = np.abs(values).max()
    best = min(expected_error(values, -t, t, bits) for t in largest * np.geomspace(1e-2, 1, 400))
    assert expected_error(values, -threshold, threshold, bits) <= 1.01 * best


@pytest.mark.parametrize("kind", ["relu", "below zero"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unsigned_equals_brute_force(lab: SimpleNamespace, kind: str, bits: int) -> None:
    values = lab.draw(kind, 20_000)
    found = octav(lab.histogram(values), Grid(bits))
    sign = -1 if kind == "below zero" else 1
    bounds = np.abs(values).max() * np.geomspace(1e-2, 1, 400)
    best = min(expected_error(sign * values, 0, bound, bits) for bound in bounds)
    assert sorted(np.abs([found.low, found.high]))[0] == 0
    assert expected_error(values, found.low, found.high, bits) <= 1.01 * best


@pytest.mark.parametrize("kind", ["gauss", "laplace", "silu", "lopsided", "student t3"])
@pytest.mark.parametrize("bits", [4, 8])
def test_asymmetric_is_near_the_best_of_all_ranges(lab: SimpleNamespace, kind: str, bits: int) -> None:
    """By the squared error of the quantizer itself: bounds in the thick of the values are not what the model is for."""
    values = lab.draw(kind, 5_000)
    found = octav(lab.histogram(values), Grid(bits))
    shares = np.geomspace(2e-2, 1, 40)
    ranges = [Range(low, high) for low in values.min() * shares for high in values.max() * shares]
    best = min(lab.error(values, chosen, Grid(bits)) for chosen in ranges)
    assert lab.error(values, found, Grid(bits)) <= 1.05 * best


def test_a_mass_at_zero_does_not_count(lab: SimpleNamespace) -> None:
    """Zero is exact on every grid."""
    values = lab.draw("relu", 50_000)
    found = [octav(lab.histogram(np.append(values, np.zeros(zeros))), Grid(4)) for zeros in (0, 500_000)]
    assert found[0].high == pytest.approx(found[1].high, rel=1e-6)


def test_nothing_but_zeros(lab: SimpleNamespace) -> None:
    assert octav(lab.histogram(np.zeros(9)), Grid()) == Range(0, 0)
