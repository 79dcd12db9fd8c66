"""Extremes by channel: of all runs together, measured once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.errors import DataError, ModelError, PassError
from onnxcomp.model import load
from onnxcomp.statistics import RangeStore

GRAPH = "g (float[N, C, L] x) => (float[N, C, L] y) { t = Neg(x) y = Neg(t) }"


@pytest.fixture
def model(parse: Callable[..., onnx.ModelProto]) -> Any:
    return load(parse(GRAPH).SerializeToString())


def feed(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": values.astype(np.float32)}


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_extremes_are_those_of_all_runs(model: Any, samples: Any, axis: int) -> None:
    runs = [np.random.default_rng(seed).normal(size=(3, 5, 4)) for seed in range(4)]
    found = RangeStore(model, samples(map(feed, runs))).channels({"x": axis, "t": axis})
    together = np.moveaxis(np.stack(runs).astype(np.float32), axis + 1 if axis >= 0 else axis, 0)
    together = together.reshape(together.shape[0], -1)
    np.testing.assert_array_equal(found["x"].low, together.min(1))
    np.testing.assert_array_equal(found["x"].high, together.max(1))
    np.testing.assert_array_equal(found["t"].high, -together.min(1))
    np.testing.assert_array_equal(found["t"].largest, np.abs(together).max(1))


def test_lengths_may_differ_and_runs_may_be_empty(model: Any, samples: Any) -> None:
    runs = [np.zeros((1, 2, 0)), np.array([[[1, 2, 3], [-4, 5, -6]]]), np.array([[[0.5], [9]]])]
    found = RangeStore(model, samples(map(feed, runs))).channels({"t": 1})["t"]
    assert (found.low.tolist(), found.high.tolist()) == ([-3, -9], [-0.5, 6])
    empty = RangeStore(model, samples([feed(runs[0])])).channels({"t": 1})["t"]
    assert (empty.low.tolist(), empty.high.tolist()) == ([0, 0], [0, 0])


def test_a_tensor_is_measured_once_per_axis(model: Any, samples: Any) -> None:
    data = samples([feed(np.ones((1, 2, 3)))])
    store = RangeStore(model, data)
    for axes in ({"t": 1}, {"t": 1}, {"t": 1, "x": 1}, {"t": 2}):
        store.channels(axes)
    assert data.readings == 3


def test_tensors_that_only_another_model_has(model: Any, samples: Any) -> None:
    other = model.clone()
    other.graph[0].outputs[0].name = "renamed"
    store = RangeStore(model, samples([feed(np.array([[[1.0], [2.0]]]))]))
    assert store.channels({"t": 1, "renamed": 1}, other)["renamed"].low.tolist() == [-1, -2]
    with pytest.raises(KeyError):
        store.channels({"nothing": 1}, other)


def test_infinite_values_are_kept_and_said(model: Any, samples: Any) -> None:
    found = RangeStore(model, samples([feed(np.array([[[np.inf], [2.0]]]))])).channels({"x": 1})["x"]
    assert not found.finite
    assert found.high[1] == 2


@pytest.mark.parametrize(
    ("runs", "axis", "error"),
    [
        ([np.array([[[np.nan]]])], 1, (ModelError, "NaN.*sample 0")),
        ([np.ones((1, 2, 1)), np.ones((1, 3, 1))], 1, (ModelError, "had 2 channels and has 3.*sample 1")),
        ([np.ones((1, 2, 1))], 3, (ModelError, "no axis 3")),
        ([], 1, (DataError, "no samples")),
    ],
)
def test_what_can_not_be_measured(
    model: Any, samples: Any, runs: list[np.ndarray], axis: int, error: tuple[type[Exception], str]
) -> None:
    with pytest.raises(error[0], match=error[1]):
        RangeStore(model, samples(map(feed, runs))).channels({"t": axis})


def test_without_samples_it_says_what_to_do(model: Any) -> None:
    with pytest.raises(PassError, match="tensor t") as caught:
        RangeStore(model, None).channels({"t": 1})
    assert "--calibration" in str(caught.value.hint)
