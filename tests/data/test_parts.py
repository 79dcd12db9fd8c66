"""Some of the samples: the first, evenly spread ones, two parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.data import Samples, open_samples
from onnxcomp.errors import DataError
from tests.data.files import X, save


@pytest.fixture
def hundred(tmp_path):
    x = np.repeat(np.arange(100, dtype=np.float32)[:, None], 3, axis=1)
    return open_samples(save(tmp_path / "s.npz", x=x, labels=np.arange(100)), [X])


def numbers(samples):
    read = [int(feed["x"][0, 0]) for feed in samples]
    assert read == [int(label[0]) for label in samples.labels()]
    assert len(read) == samples.length
    return read


def test_take(hundred):
    assert numbers(hundred.take(3)) == [0, 1, 2]
    assert numbers(hundred.take(1000)) == list(range(100))
    assert hundred.take(3).description == "s.npz, 100 rows in batches of 1, 3 of 100 runs"
    assert hundred.take(100).description == hundred.description


def test_spread(hundred):
    assert numbers(hundred.spread(4)) == [12, 37, 62, 87]
    assert numbers(hundred.spread(1)) == [50]
    assert numbers(hundred.spread(1000)) == list(range(100))


@given(total=st.integers(1, 300), n=st.integers(1, 300))
def test_spread_is_even(total, n):
    picked = [int(feed["x"][0]) for feed in Counted(total).spread(n)]
    assert len(picked) == len(set(picked)) == min(n, total)
    gaps = np.diff([-1, *picked, total])
    assert gaps.max() <= -(-total // len(picked)) + 1


def test_parts_of_parts(hundred):
    part = hundred.spread(10)
    assert numbers(part.take(3)) == [5, 15, 25]
    first, second = part.split(0.5, seed=1)
    assert sorted(numbers(first) + numbers(second)) == numbers(part)
    assert "10 of 100 runs, 5 of 10 runs" in first.description


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.77, 0.999])
def test_split(hundred, share):
    first, second = hundred.split(share, seed=3)
    a, b = numbers(first), numbers(second)
    assert (a, b) == (sorted(a), sorted(b))
    assert sorted(a + b) == list(range(100))
    assert len(a) == min(max(round(share * 100), 1), 99)
    assert sum(x + 1 not in a for x in a) <= 10  # few seams: neighbours stay together
    again, _ = hundred.split(share, seed=3)
    assert numbers(again) == a


def test_seeds_split_differently(hundred):
    assert len({tuple(numbers(hundred.split(0.5, seed=seed)[0])) for seed in range(5)}) > 1


@pytest.mark.parametrize("n", [0, -1])
def test_a_part_of_nothing_is_refused(hundred, n):
    for part in (hundred.take, hundred.spread):
        with pytest.raises(DataError, match="1 or more"):
            part(n)


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_shares_outside_are_refused(hundred, share):
    with pytest.raises(DataError, match="share"):
        hundred.split(share, seed=0)


def test_one_run_can_not_be_split(hundred):
    with pytest.raises(DataError, match="can't be split"):
        hundred.take(1).split(0.5, seed=0)


class Counted(Samples):
    """Runs that only reading counts, as a loader's."""

    description = "counted"

    def __init__(self, total, known=False):
        self.total = total
        self.read = 0
        self.known = known

    def __iter__(self):
        for i in range(self.total):
            self.read += 1
            yield {"x": np.array([i], np.float32)}

    @property
    def length(self):
        return self.total if self.known else None

    def labels(self):
        return None


def test_runs_of_unknown_number():
    source = Counted(20)
    part = source.take(3)
    assert [int(feed["x"][0]) for feed in part] == [0, 1, 2]
    assert source.read == 3  # none is read that isn't wanted
    assert part.length is None
    assert part.labels() is None
    assert len(list(source.take(50))) == 20
    assert len(list(source.take(50).spread(5))) == 5
    assert [len(list(side)) for side in source.split(0.25, seed=0)] == [5, 15]
    assert list(source.pick([])) == []
