import math
from types import SimpleNamespace

import numpy as np
import pytest

from onnxcomp.thresholds import Grid, Range
from onnxcomp.thresholds.kl import BINS, divergences, kl


def literal(bins: list[float], i: int, levels: int) -> float:
    """One candidate of Migacz's search, loop by loop as in his slides; remainders are spread evenly over groups."""
    p = list(bins[:i])
    p[i - 1] += sum(bins[i:])
    q = [0.0] * i
    for level in range(levels):
        group = range(level * i // levels, (level + 1) * i // levels)
        used = [k for k in group if bins[k] != 0]
        for k in used:
            q[k] = sum(bins[k] for k in used) / len(used)
    sum_p, sum_q = sum(p), sum(q)
    divergence = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            divergence += math.inf if b == 0 else a / sum_p * math.log((a / sum_p) / (b / sum_q))
    return divergence


@pytest.mark.parametrize("kind", ["gauss", "laplace", "relu", "student t3", "one outlier"])
@pytest.mark.parametrize("levels", [8, 32])
def test_equals_the_literal_search(lab: SimpleNamespace, kind: str, levels: int) -> None:
    bins = lab.histogram(lab.draw(kind, 3_000)).magnitudes(160)
    bins[0] = bins[1]
    ours = divergences(bins, levels)
    slow = [literal(bins.tolist(), i, levels) for i in range(levels, len(bins) + 1)]
    np.testing.assert_allclose(ours, slow, rtol=1e-9, atol=1e-12)
    assert np.argmin(ours) == np.argmin(slow)


def test_equals_the_literal_search_in_full_size(lab: SimpleNamespace) -> None:
    histogram = lab.histogram(lab.draw("laplace", 200_000))
    bins = histogram.magnitudes(BINS)
    bins[0] = bins[1]
    ours = divergences(bins, 128)
    for kept in (*range(128, BINS, 97), BINS):
        assert ours[kept - 128] == pytest.approx(literal(bins.tolist(), kept, 128), rel=1e-9, abs=1e-12)


def test_the_smallest_threshold_does_not_always_win(lab: SimpleNamespace) -> None:
    """It would, with the outliers in Q too; nor does the largest, as it does where only one threshold is tried."""
    values = lab.draw("laplace", 200_000)
    found = kl(lab.histogram(values), Grid())
    largest = float(np.abs(values).max())
    assert 128 / BINS * largest * 1.5 < found.high < 0.98 * largest


def test_what_relu_cut_off_does_not_count(lab: SimpleNamespace) -> None:
    values = lab.draw("relu", 100_000)
    few, many = (lab.histogram(np.append(values[values > 0], np.zeros(zeros))) for zeros in (1, 1_000_000))
    assert kl(few, Grid()) == kl(many, Grid())


def test_one_sided_tensors_have_all_levels(lab: SimpleNamespace) -> None:
    bins = (histogram := lab.histogram(lab.draw("relu", 100_000))).magnitudes(BINS)
    bins[0] = bins[1]
    for grid, levels in ((Grid(), 256), (Grid(symmetric=True), 128), (Grid(4), 16)):
        kept = levels + int(np.argmin(divergences(bins, levels)))
        wanted = min((kept + 0.5) / BINS, 1.0) * histogram.extremes.high
        assert kl(histogram, grid).high == pytest.approx(wanted)


def test_finer_quantizers_than_the_bins_keep_all(lab: SimpleNamespace) -> None:
    histogram = lab.histogram(lab.draw("gauss", 1_000))
    assert kl(histogram, Grid(16)) == histogram.extremes


def test_both_signs_get_the_threshold(lab: SimpleNamespace) -> None:
    found = kl(lab.histogram(lab.draw("laplace", 100_000)), Grid())
    assert found.low == -found.high
    skewed = lab.histogram(np.append(lab.draw("laplace", 100_000).clip(-0.5), -0.5))
    assert kl(skewed, Grid()).low == -0.5
    assert kl(lab.histogram(np.zeros(4)), Grid()) == Range(0, 0)
