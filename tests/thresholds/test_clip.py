import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.statistics import Histogram
from onnxcomp.statistics.histograms import BINS, add_to_counts
from onnxcomp.thresholds import METHODS, affine, solve
from onnxcomp.thresholds.clip import minmax, mmse, percentile


def histogram(values: np.ndarray, bins: int = BINS) -> Histogram:
    values = values.astype(np.float32)
    found = Histogram(float(values.min()), float(values.max()), np.zeros(bins, np.int64))
    add_to_counts(found.counts, values, found.low, found.high)
    return found


def error(values: np.ndarray, low: float, high: float, counts: np.ndarray | int = 1) -> float:
    """Squared error of the quantizer that spans a range, written as QuantizeLinear is defined."""
    quantizer = affine(low, high, "uint8")
    scale, zero_point = float(quantizer.scale), int(quantizer.zero_point)
    levels = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    return float((counts * (values - scale * (levels - zero_point)) ** 2).sum())


def sqnr(values: np.ndarray, low: float, high: float) -> float:
    return float(10 * np.log10((values**2).sum() / error(values, low, high)))


def least_error(values: np.ndarray, counts: np.ndarray) -> float:
    """The least error of any range inside the extremes, from wide to a thousandth: a grid, then a finer one."""
    used = counts > 0
    values, counts = values[used], counts[used]
    lowest, highest = min(values[0], 0.0), max(values[-1], 0.0)

    def best(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float, float]:
        lows, highs = (np.unique(ends.clip(lowest, highest)) for ends in (lows, highs))
        return min((error(values, low, high, counts), low, high) for low in lows for high in highs)

    shares = np.geomspace(1.0, 1e-3, 36)
    _, low, high = best(lowest * shares, highest * shares)
    nearby = np.linspace(0.8, 1.2, 25)
    return best(low * nearby, high * nearby)[0]


def draw(kind: str, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = {
        "gauss": lambda: rng.normal(size=size),
        "laplace": lambda: rng.laplace(size=size),
        "relu": lambda: rng.normal(size=size).clip(0),
        "below zero": lambda: -rng.exponential(size=size),
        "silu": lambda: (x := rng.normal(size=size) * 3) / (1 + np.exp(-x)),
        "student t3": lambda: rng.standard_t(3, size=size),
        "one outlier": lambda: np.append(rng.normal(size=size - 1), 300),
        "lopsided": lambda: np.append(rng.normal(size=size - 9), rng.normal(30, 2, size=9)),
        "far from zero": lambda: rng.normal(50, 1, size=size),
    }
    return made[kind]().astype(np.float32).astype(np.float64)


KINDS = ["gauss", "laplace", "relu", "below zero", "silu", "student t3", "one outlier", "lopsided", "far from zero"]
counted = hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 1000))


@given(counted)
def test_minmax_is_the_outermost_bins_in_use(counts: np.ndarray) -> None:
    centers = np.arange(len(counts)) - 7.5
    used = [center for center, count in zip(centers, counts, strict=True) if count]
    assert minmax(centers, counts) == ((used[0], used[-1]) if used else (0, 0))


@given(counted, st.floats(0.0, 1.0))
def test_percentile_cuts_no_more_than_its_share_and_all_it_may(counts: np.ndarray, share: float) -> None:
    centers = np.arange(len(counts)) - 7.5
    values = np.repeat(centers, counts)
    low, high = percentile(centers, counts, share)
    if not values.size:
        assert (low, high) == (0, 0)
        return
    allowed = (1 - share) / 2 * values.size
    slack = 1e-9 * values.size
    assert {low, high} <= set(values)
    assert (values < low).sum() <= allowed + slack
    assert (values > high).sum() <= allowed + slack
    assert (values <= low).sum() >= allowed - slack  # the next bin would be too much
    assert (values >= high).sum() >= allowed - slack


@given(counted)
def test_a_percentile_of_everything_is_minmax(counts: np.ndarray) -> None:
    centers = np.arange(len(counts)) - 7.5
    assert percentile(centers, counts, 1.0) == minmax(centers, counts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.9, 0.999, 0.9999])
def test_percentile_of_the_values_themselves(kind: str, share: float) -> None:
    values = np.sort(draw(kind, 50_000))
    found = histogram(values)
    bin_width = (found.high - found.low) / BINS
    tail = (1 - share) / 2
    wanted = [values[int(tail * values.size)], values[-1 - int(tail * values.size)]]
    assert percentile(found.centers, found.counts, share) == pytest.approx(wanted, abs=1.001 * bin_width)


@pytest.mark.parametrize("kind", KINDS)
def test_mmse_is_near_the_best_of_all_ranges(kind: str) -> None:
    found = histogram(draw(kind, 50_000), bins=1024)
    low, high = mmse(found.centers, found.counts)
    assert error(found.centers, low, high, found.counts) <= 1.03 * least_error(found.centers, found.counts)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_best_on_the_histogram_is_best_on_the_values(kind: str) -> None:
    values = draw(kind, 200_000)
    found = histogram(values)
    errors = {method: error(values, *solve(method, found.centers, found.counts)) for method in METHODS}
    assert errors["mmse"] <= 1.01 * min(errors.values())


@settings(deadline=None)
@given(counted, st.floats(-60, 60))
def test_mmse_is_never_worse_than_no_clipping(counts: np.ndarray, start: float) -> None:
    centers = np.arange(len(counts)) + start
    low, high = mmse(centers, counts)
    widest = [min(0.0, minmax(centers, counts)[0]), max(0.0, minmax(centers, counts)[1])]
    assert widest[0] <= low <= 0 <= high <= widest[1]
    assert error(centers, low, high, counts) <= error(centers, *widest, counts) * 1.001 + 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_one_sided_tensors_stay_one_sided(method: str) -> None:
    found = histogram(draw("relu", 50_000))
    low, high = solve(method, found.centers, found.counts)
    assert 0 <= low <= found.high / BINS  # half a bin above 0, or 0 itself
    assert 3.5 < high <= found.high
    found = histogram(draw("below zero", 50_000))
    low, high = solve(method, found.centers, found.counts)
    assert found.low <= low < -5
    assert found.low / BINS <= high <= 0


@pytest.mark.parametrize("method", METHODS)
def test_histograms_that_say_little(method: str) -> None:
    assert solve(method, np.arange(5.0), np.zeros(5, np.int64)) == (0, 0)
    low, high = solve(method, np.array([3.0]), np.array([7]))
    assert (min(low, 0), high) == (0, 3)
    low, high = solve(method, np.array([-3.0]), np.array([7]))
    assert (low, max(high, 0)) == (-3, 0)
    assert solve(method, np.zeros(5), np.array([9, 0, 0, 0, 0])) == (0, 0)  # a tensor that is always 0


def test_an_unknown_method() -> None:
    with pytest.raises(KeyError, match="guess"):
        solve("guess", np.zeros(1), np.ones(1, np.int64))


@pytest.mark.parametrize(("kind", "known"), [("laplace", 32.8), ("gauss", 39.3), ("relu", 44.9)])
def test_known_signal_to_noise_ratios(kind: str, known: float) -> None:
    """Of 8 bits over all values, a million of them; the extremes of a Laplace sample move it by about 1 dB."""
    found = []
    for seed in range(3):
        values = draw(kind, 1_000_000, seed)
        bins = histogram(values)
        plain, best = (sqnr(values, *solve(method, bins.centers, bins.counts)) for method in ("minmax", "mmse"))
        assert best >= plain
        found.append(plain)
    assert np.median(found) == pytest.approx(known, abs=0.7)


def test_heavy_tails_are_worth_clipping() -> None:
    values = draw("student t3", 1_000_000)
    bins = histogram(values)
    assert sqnr(values, *mmse(bins.centers, bins.counts)) > sqnr(values, *minmax(bins.centers, bins.counts)) + 1


def test_fewer_levels_clip_more() -> None:
    bins = histogram(draw("gauss", 50_000))
    widths = [np.ptp(mmse(bins.centers, bins.counts, levels=levels)) for levels in (4, 16, 256)]
    assert widths[0] < 0.8 * widths[1] < 0.8**2 * widths[2]
