from typing import Any

import numpy as np
import pytest

from onnxcomp.search.spool import Spool

ARRAYS: list[Any] = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.float32(3),
    np.array(7, np.int64),
    np.zeros((0, 4), np.float32),
    np.array([True, False]),
    np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),
    np.array([np.nan, np.inf], np.float16),
    np.array(["text", "more"], dtype=object),
    [np.ones(2), np.zeros(3)],
]


@pytest.mark.parametrize("value", ARRAYS, ids=range(len(ARRAYS)))
def test_gives_back_what_it_got(value: Any) -> None:
    spool = Spool()
    spool.append({"first": np.ones(3, np.int8), "value": value})
    (run,) = spool
    assert list(run) == ["first", "value"]
    if isinstance(value, list):
        assert run["value"] is value
    else:
        assert run["value"].dtype == value.dtype
        assert np.shape(run["value"]) == np.shape(value)
        np.testing.assert_array_equal(run["value"], value)


def test_keeps_the_order_and_can_be_read_and_extended() -> None:
    spool = Spool()
    assert list(spool) == []
    for index in range(5):
        spool.append({"a": np.full((index + 1, 2), index)})
        assert len(spool) == index + 1
        for _ in range(2):
            assert [run["a"].shape for run in spool] == [(i + 1, 2) for i in range(index + 1)]
    assert [int(run["a"].max()) for run in spool] == list(range(5))


def test_does_not_hold_or_hand_out_the_arrays_it_got() -> None:
    spool = Spool()
    value = np.zeros(3)
    spool.append({"a": value})
    value[:] = 9
    (run,) = spool
    assert run["a"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        run["a"][0] = 1
