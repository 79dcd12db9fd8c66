from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.thresholds import Grid, Range, solve
from onnxcomp.thresholds.extremes import ema, minmax, percentile

GRID = Grid()
counted = hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 1000))


@given(counted, st.floats(1e-6, 1.0))
def test_percentile_cuts_no_more_than_its_share_and_all_it_may(
    lab: SimpleNamespace, counts: np.ndarray, share: float
) -> None:
    values = np.repeat(np.arange(len(counts)) - 7.5, counts)
    found = percentile(lab.of_counts(counts, start=-8.0), GRID, share)
    if not values.size:
        assert found == Range(0, 0)
        return
    allowed = (1 - share) / 2 * values.size
    slack = 1e-9 * values.size
    assert {found.low, found.high} <= set(values)
    assert (values < found.low).sum() <= allowed + slack
    assert (values > found.high).sum() <= allowed + slack
    assert (values <= found.low).sum() >= allowed - slack  # the next bin would be too much
    assert (values >= found.high).sum() >= allowed - slack


@given(counted)
def test_a_percentile_of_everything_is_minmax(lab: SimpleNamespace, counts: np.ndarray) -> None:
    histogram = lab.of_counts(counts, start=-8.0)
    assert percentile(histogram, GRID, 1.0) == minmax(histogram, GRID)


@pytest.mark.parametrize("kind", ["gauss", "laplace", "relu", "silu", "far from zero"])
@pytest.mark.parametrize("share", [0.9, 0.999, 0.9999, 0.99999])
def test_percentile_of_the_values_themselves(lab: SimpleNamespace, kind: str, share: float) -> None:
    values = np.sort(lab.draw(kind, 50_000))
    histogram = lab.histogram(values)
    tail = (1 - share) / 2
    wanted = [values[int(tail * values.size)], values[-1 - int(tail * values.size)]]
    found = solve("percentile", histogram, share=share)
    assert [found.low, found.high] == pytest.approx(wanted, abs=1.001 * histogram.width)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none(lab: SimpleNamespace, share: float) -> None:
    with pytest.raises(ValueError, match="share of values"):
        solve("percentile", lab.histogram(np.ones(3)), share=share)


def test_ema_follows_the_extremes_of_each_run(lab: SimpleNamespace) -> None:
    runs = [np.array(run) for run in ([-1.0, 2.0], [-3.0, 0.5, 4.0], [5.0])]
    low, high = -1.0, 2.0
    for run in runs[1:]:
        low, high = 0.99 * low + 0.01 * run.min(), 0.99 * high + 0.01 * run.max()
    found = ema(lab.histogram(*runs), GRID)
    assert (found.low, found.high) == pytest.approx((low, high))
