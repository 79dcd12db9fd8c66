"""What holds for all methods, and the signal-to-noise ratios that they are known for."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.thresholds import METHODS, Grid, Histogram, Range, noise, solve
from onnxcomp.thresholds.aciq import aciq
from onnxcomp.thresholds.kl import kl
from onnxcomp.thresholds.mmse import mmse

GRIDS = [Grid(), Grid(symmetric=True), Grid(4), Grid(2, symmetric=True), Grid(16)]
SQUARED = ["mmse", "octav"]  # what they minimise is the squared error
ids = str

floats = st.floats(-1e4, 1e4, width=32)
arrays = hnp.arrays(np.float32, st.integers(1, 200), elements=floats)
grids = st.builds(Grid, st.sampled_from([*range(2, 9), 16]), st.booleans())


@given(values=arrays, grid=grids, method=st.sampled_from(list(METHODS)))
def test_ranges_lie_inside_the_extremes(lab: SimpleNamespace, values: np.ndarray, grid: Grid, method: str) -> None:
    found = solve(method, lab.histogram(values), grid)
    assert min(values.min(), 0) <= found.low <= found.high <= max(values.max(), 0)


@given(values=arrays, grid=grids, method=st.sampled_from(list(METHODS)), exponent=st.integers(-20, 20))
def test_scaled_values_have_scaled_ranges(
    lab: SimpleNamespace, values: np.ndarray, grid: Grid, method: str, exponent: int
) -> None:
    values = values.astype(np.float64).round(3)
    once, scaled = lab.histogram(values), lab.histogram(values * 2.0**exponent)
    first, second = solve(method, once, grid), solve(method, scaled, grid)
    assert (second.low, second.high) == pytest.approx((first.low * 2.0**exponent, first.high * 2.0**exponent), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["gauss", "laplace", "relu", "silu"])
def test_any_factor_scales_the_range(lab: SimpleNamespace, method: str, kind: str) -> None:
    """The bins fall elsewhere then: nearly."""
    values = lab.draw(kind, 100_000)
    first, second = (solve(method, lab.histogram(factor * values), Grid(4)) for factor in (1.0, 0.3))
    assert (second.low, second.high) == pytest.approx((0.3 * first.low, 0.3 * first.high), rel=0.05, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_values_does_not_matter(lab: SimpleNamespace, method: str) -> None:
    values = lab.draw("student t3", 70_000)
    shuffled = np.random.default_rng(1).permutation(values)
    assert solve(method, lab.histogram(values)) == solve(method, lab.histogram(shuffled))


@pytest.mark.parametrize("grid", GRIDS, ids=ids)
@pytest.mark.parametrize("method", METHODS)
def test_tensors_that_say_little(lab: SimpleNamespace, method: str, grid: Grid) -> None:
    assert solve(method, lab.histogram(np.zeros(0)), grid) == Range(0, 0)
    assert solve(method, lab.histogram(np.zeros(5)), grid) == Range(0, 0)
    for value in (3.0, -3.0, 1e-30, 3e38):
        found = solve(method, lab.histogram(np.full(7, value)), grid)
        assert max(-found.low, found.high) == pytest.approx(abs(value), rel=0.02)  # all of it is at the bound


@pytest.mark.parametrize("method", METHODS)
def test_one_sided_tensors_stay_one_sided(lab: SimpleNamespace, method: str) -> None:
    found = solve(method, lab.histogram(lab.draw("relu", 50_000)))
    assert found.low == 0
    assert found.high > 3
    found = solve(method, lab.histogram(lab.draw("below zero", 50_000)))
    assert found.low < -4
    assert -1e-3 < found.high <= 0


def test_an_unknown_method(lab: SimpleNamespace) -> None:
    with pytest.raises(KeyError, match="guess"):
        solve("guess", lab.histogram(np.ones(1)))


@pytest.mark.parametrize("grid", GRIDS, ids=ids)
@pytest.mark.parametrize("kind", ["gauss", "relu", "silu", "lopsided", "far from zero"])
def test_noise_is_the_squared_error(lab: SimpleNamespace, kind: str, grid: Grid) -> None:
    histogram = lab.histogram(lab.draw(kind, 50_000))
    ranges = [Range(*(share * np.array([histogram.extremes.low, histogram.extremes.high]))) for share in (1, 0.7, 0.2)]
    wanted = [lab.error(histogram.centers, found, grid, histogram.counts) for found in ranges]
    found = noise(histogram, grid, ranges)
    if grid.bits == 16:  # finer than the bins: the rounding error of single points says nothing
        wanted, found = wanted[1:], found[1:]
        assert found == pytest.approx(wanted, rel=0.02)
    else:
        assert found == pytest.approx(wanted, rel=1e-6)


def least_error(lab: SimpleNamespace, histogram: Histogram, grid: Grid) -> float:
    """The least error of any range inside the extremes, from wide to a thousandth: a grid, then a finer one."""
    used = histogram.counts > 0
    values, counts = histogram.centers[used], histogram.counts[used]
    extremes = Range(min(histogram.extremes.low, 0.0), max(histogram.extremes.high, 0.0))

    def best(lows: np.ndarray, highs: np.ndarray) -> tuple[float, Range]:
        lows, highs = (np.unique(ends.clip(extremes.low, extremes.high)) for ends in (lows, highs))
        ranges = [Range(low, high) for low in lows for high in highs]
        errors = [lab.error(values, found, grid, counts) for found in ranges]
        return min(errors), ranges[int(np.argmin(errors))]

    shares = np.geomspace(1.0, 1e-3, 36)
    _, found = best(extremes.low * shares, extremes.high * shares)
    nearby = np.linspace(0.8, 1.2, 25)
    return best(found.low * nearby, found.high * nearby)[0]


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize(
    "kind", ["gauss", "laplace", "relu", "silu", "student t3", "one outlier", "lopsided", "far from zero"]
)
def test_mmse_is_near_the_best_of_all_ranges(lab: SimpleNamespace, kind: str, bits: int) -> None:
    whole = lab.histogram(lab.draw(kind, 5_000))
    grid = Grid(bits)
    found = mmse(whole, grid)
    ours = lab.error(whole.centers, found, grid, whole.counts)
    assert ours <= 1.03 * least_error(lab, whole, grid)


@pytest.mark.parametrize("grid", GRIDS[:4], ids=ids)
def test_auto_is_the_best_of_all(lab: SimpleNamespace, grid: Grid) -> None:
    for kind in lab.kinds:
        values = lab.draw(kind, 100_000)
        histogram = lab.histogram(values)
        errors = {method: lab.error(values, solve(method, histogram, grid), grid) for method in METHODS}
        assert errors["auto"] <= 1.01 * min(errors.values()), kind


@pytest.mark.parametrize("kind", ["gauss", "laplace", "relu", "silu"])
def test_mmse_and_octav_agree(lab: SimpleNamespace, kind: str) -> None:
    values = lab.draw(kind, 200_000)
    histogram = lab.histogram(values)
    for grid in (Grid(), Grid(4), Grid(4, symmetric=True)):
        first, second = (lab.sqnr(values, solve(method, histogram, grid), grid) for method in SQUARED)
        assert first == pytest.approx(second, abs=0.5)


# MinMax, KL, OCTAV and ACIQ's Laplace fit, dB, of int8: symmetric, or one-sided with all levels
KNOWN = {"laplace": (32.8, 35.1, 35.2, 35.2), "gauss": (39.3, 39.6, 40.6, 39.3), "relu": (44.9, 45.9, 45.9, 45.6)}


@pytest.mark.parametrize("kind", KNOWN)
def test_known_signal_to_noise_ratios(lab: SimpleNamespace, kind: str) -> None:
    """Of a million values; the median of some seeds, because the extremes of a sample vary."""
    grid = Grid(symmetric=kind != "relu")
    found = []
    for seed in range(5):
        values = lab.draw(kind, 1_000_000, seed)
        histogram = lab.histogram(values)
        ranges = [solve("minmax", histogram, grid), kl(histogram, grid), solve("octav", histogram, grid)]
        ranges.append(aciq(histogram, grid, "laplace"))
        found.append([lab.sqnr(values, chosen, grid) for chosen in ranges])
    assert np.median(found, axis=0) == pytest.approx(KNOWN[kind], abs=0.7)


def test_heavy_tails_are_worth_clipping(lab: SimpleNamespace) -> None:
    """Where only the order is known: OCTAV is best of those that do not search."""
    values = lab.draw("student t3", 1_000_000)
    histogram = lab.histogram(values)
    found = {method: lab.sqnr(values, solve(method, histogram), Grid()) for method in METHODS}
    assert found["octav"] > max(found[method] for method in ("minmax", "percentile", "kl", "aciq")) + 1


def test_fewer_levels_clip_more(lab: SimpleNamespace) -> None:
    histogram = lab.histogram(lab.draw("gauss", 50_000))
    for method in ("mmse", "octav", "aciq"):
        widths = [solve(method, histogram, Grid(bits)).width for bits in (2, 4, 8)]
        assert widths[0] < 0.8 * widths[1] < 0.8**2 * widths[2]
