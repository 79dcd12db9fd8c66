import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.measure import block_time, median_interval


def test_block_time_of_three_is_the_minimum():
    assert block_time([7.0, 5.0, 9.0], level=0.2) == pytest.approx(5.0)


def test_block_time_ignores_disturbed_runs():
    assert block_time([1.0] * 6 + [50.0] * 4, level=0.2) == 1.0


def test_block_time_does_not_favour_large_blocks():
    rng = np.random.default_rng(0)
    small = np.median([block_time(t, level=0.2) for t in rng.lognormal(0, 0.1, (4000, 3))])
    large = np.median([block_time(t, level=0.2) for t in rng.lognormal(0, 0.1, (4000, 30))])
    minima = np.median(rng.lognormal(0, 0.1, (4000, 30)).min(axis=1))

    assert large / small == pytest.approx(1.0, abs=0.01)
    assert minima / small < 0.9


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (9, 2, 8), (15, 4, 12), (20, 6, 15), (100, 40, 61)])
def test_median_interval_agrees_with_the_published_table(n: int, low: int, high: int):
    # Conover, Practical Nonparametric Statistics: the ranks of the 95 % interval
    assert median_interval(np.arange(1, n + 1)) == ((n + 1) / 2, low, high)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_median_interval_of_too_few_values_is_infinite(n: int):
    median, low, high = median_interval(np.ones(n))
    assert (median, low, high) == (1.0, -math.inf, math.inf)


def test_median_interval_covers_as_often_as_it_claims_with_heavy_tails():
    rng = np.random.default_rng(1)
    intervals = [median_interval(values)[1:] for values in rng.standard_cauchy((2000, 15))]
    assert np.mean([low <= 0.0 <= high for low, high in intervals]) >= 0.95


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60), st.floats(0.01, 0.999))
def test_median_interval_holds_the_median(values: list[float], confidence: float):
    median, low, high = median_interval(values, confidence=confidence)
    assert low <= median <= high


@given(st.lists(st.floats(0.1, 10.0), min_size=6, max_size=60))
def test_more_confidence_is_never_narrower(values: list[float]):
    _, low, high = median_interval(values, confidence=0.9)
    _, wide_low, wide_high = median_interval(values, confidence=0.99)
    assert wide_low <= low <= high <= wide_high
