import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.data import Feed
from onnxcomp.model import load, serialized
from onnxcomp.runtime import Session
from onnxcomp.statistics import Histogram, Range, RangeStore
from onnxcomp.statistics.histograms import BINS, add_to_counts, collect_histograms

Parse = Callable[..., onnx.ModelProto]
GRAPH = """g (float[N, M] x, float[N, M] z) => (float[N, M] out) {
    relu = Relu(x)  sum = Add(relu, z)  never = Mul(x, zero)  same = Cos(never)  out = Tanh(sum)
}"""
NAMES = ["x", "z", "relu", "sum", "never", "same", "out"]


def check_counts(counts: np.ndarray, values: np.ndarray, low: float, high: float) -> None:
    """Compare with exact bins: only values within float32's rounding of an edge may fall on its other side."""
    edges = np.linspace(low, high, len(counts) + 1)
    rounding = 4 * np.finfo(np.float32).eps * max(abs(low), abs(high), high - low)
    below = np.concatenate([[0], np.cumsum(counts)])
    ordered = np.sort(values.reshape(-1).astype(np.float64))
    assert below[-1] == values.size
    inner = slice(1, -1)
    assert (below[inner] >= np.searchsorted(ordered, edges[inner] - rounding, "left")).all()
    assert (below[inner] <= np.searchsorted(ordered, edges[inner] + rounding, "right")).all()


@settings(deadline=None)
@given(
    values=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=20), elements=st.floats(-1e5, 1e5, width=32)),
    bins=st.integers(1, 300),
)
def test_every_value_is_in_its_bin(values: np.ndarray, bins: int) -> None:
    low, high = float(values.min()), float(values.max())
    counts = np.zeros(bins, np.int64)
    add_to_counts(counts, values, low, high)
    if high > low:
        check_counts(counts, values, low, high)
    else:
        assert counts[0] == values.size


@pytest.mark.parametrize("size", [0, 1, 131_071, 131_072, 131_073, 400_001])
def test_equals_numpy(size: int) -> None:
    """Values in the middle of their bins, more than are counted at once; both ends are in the outer bins."""
    middles = np.random.default_rng(size).integers(0, 512, size)
    values = np.concatenate([(middles + 0.5) / 64 - 3, [-3, 5]]).astype(np.float32)
    counts = np.zeros(512, np.int64)
    add_to_counts(counts, values, -3, 5)
    np.testing.assert_array_equal(counts, np.histogram(values, 512, (-3, 5))[0])


def test_counts_add_up() -> None:
    counts = np.zeros(4, np.int64)
    for values in ([[0.5, 1.5]], [3.5], [], [[0.1], [9.0], [-9.0]]):
        add_to_counts(counts, np.array(values, np.float32), 0, 4)
    assert counts.tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.bool_])
def test_other_types_are_counted_too(dtype: Any) -> None:
    counts = np.zeros(2, np.int64)
    add_to_counts(counts, np.array([0, 1, 1], dtype), 0, 1)
    assert counts.tolist() == [1, 2]


def test_values_that_lie_too_close_for_float32() -> None:
    tiny = np.array([0, 1e-45, 1e-40, 2e-40], np.float32)
    counts = np.zeros(BINS, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_to_counts(counts, tiny, float(tiny.min()), float(tiny.max()))
    assert counts.sum() == 4
    assert counts[0] >= 1


def test_the_bins_of_a_histogram() -> None:
    found = Histogram(-1.0, 3.0, np.zeros(4, np.int64))
    assert found.centers.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert Histogram(2.0, 2.0, np.zeros(3, np.int64)).centers.tolist() == [2, 2, 2]


def graph(parse: Parse) -> ir.Model:
    return load(parse(GRAPH, {"zero": np.zeros(1)}).SerializeToString())


def feeds(seed: int, shapes: list[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(np.float32) for name in ("x", "z")} for shape in shapes]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=5),
)
def test_equals_brute_force(parse: Parse, samples: Any, seed: int, shapes: list[tuple[int, int]]) -> None:
    """Ragged and empty runs; graph inputs, inner tensors and outputs; tensors that never change."""
    model = graph(parse)
    before = serialized(model)
    data = samples(feeds(seed, shapes))
    ranges = RangeStore(model, data).get(NAMES)
    found = collect_histograms(model, data, ranges)
    assert serialized(model) == before
    assert list(found) == NAMES

    tapped = ir.to_proto(model)
    del tapped.graph.output[:]
    for name in NAMES[2:]:
        tapped.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = Session(tapped.SerializeToString())
    runs = [session.run(feed) | feed for feed in data.feeds]
    elements = sum(rows * columns for rows, columns in shapes)
    for name, histogram in found.items():
        values = np.concatenate([np.ravel(run[name]) for run in runs])
        assert (histogram.low, histogram.high) == (ranges[name].low, ranges[name].high)
        assert histogram.counts.sum() == elements
        if histogram.high > histogram.low:
            check_counts(histogram.counts, values, histogram.low, histogram.high)
    assert found["never"].counts[0] == found["same"].counts[0] == elements
    assert found["same"].centers[0] == (1 if elements else 0)


def test_an_input_left_at_its_default(parse: Parse, samples: Any) -> None:
    text = "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }"
    model = load(parse(text, {"w": np.array([1.0, 2.0])}).SerializeToString())
    row = np.array([1, 2], np.float32)
    data = samples([{"x": row}, {"x": row, "w": np.array([5, 2], np.float32)}])
    found = collect_histograms(model, data, RangeStore(model, data).get(["x", "w", "y"]))
    assert {name: histogram.counts.sum() for name, histogram in found.items()} == {"x": 4, "w": 4, "y": 4}
    assert (found["w"].counts[0], found["w"].counts[-1]) == (1, 1)  # 1 of the default, 5 of the sample


def test_inputs_alone(parse: Parse, samples: Any) -> None:
    data = samples(feeds(0, [(2, 3), (1, 4)]))
    found = collect_histograms(graph(parse), data, RangeStore(graph(parse), data).get(["x"]))
    assert found["x"].counts.sum() == 10


def test_thresholds_cost_one_more_run_for_all_methods(parse: Parse, samples: Any) -> None:
    data = samples(feeds(0, [(50, 50)] * 3))
    store = RangeStore(graph(parse), data)
    exact = store.clipped(NAMES, "minmax")
    assert data.readings == 1
    inside = {method: store.clipped(NAMES, method) for method in ("percentile", "mmse")}
    assert data.readings == 2
    assert exact == store.get(NAMES)
    assert exact["never"] == inside["mmse"]["never"] == Range(0, 0)
    for ranges in inside.values():
        assert list(ranges) == NAMES
        for name, clipped in ranges.items():
            assert min(exact[name].low, 0) <= clipped.low <= clipped.high <= exact[name].high
    assert inside["percentile"]["x"].width < exact["x"].width


def test_memory_does_not_grow_with_samples(parse: Parse, samples: Any) -> None:
    model = graph(parse)
    ranges = {name: Range(-1, 100) for name in NAMES}

    class Stream(samples):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Feed]:
            for index in range(self.feeds[0]):
                yield {name: np.full((100, 100), index, np.float32) for name in ("x", "z")}

    def peak(count: int) -> int:
        tracemalloc.start()
        collect_histograms(model, Stream([count]), ranges)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # imports and caches
    assert peak(100) < peak(5) + 40_000  # one activation
