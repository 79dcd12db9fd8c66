"""Intervals of paired differences: against the published example, and by how often they hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.metrics import bootstrap_difference, hit_difference


def table(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of a reference and a candidate with so many pairs of each kind."""
    kinds = [both, gained, lost, neither]
    return np.repeat([True, False, True, False], kinds), np.repeat([True, True, False, False], kinds)


def test_newcombes_example() -> None:
    assert hit_difference(*table(36, 12, 2, 0)) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


@given(st.lists(st.integers(0, 200), min_size=4, max_size=4).filter(any))
def test_intervals_hold_the_difference_and_are_odd(counts: list[int]) -> None:
    both, gained, lost, neither = counts
    found, turned = (
        hit_difference(*table(both, gained, lost, neither)),
        hit_difference(*table(both, lost, gained, neither)),
    )
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))


@pytest.mark.parametrize(("n", "flips"), [(60, 0.1), (400, 0.05)])
def test_intervals_cover_the_truth(n: int, flips: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        reference = rng.random(n) < 0.9
        candidate = reference ^ (rng.random(n) < flips)
        found = hit_difference(reference, candidate)
        held += found.low <= flips * (0.1 - 0.9) <= found.high
    assert held >= 940


def test_the_bootstrap_of_a_mean_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(400)
    found = bootstrap_difference(lambda runs: float(values[runs].mean()), 400, resamples=2000, rng=rng)
    assert found.difference == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
