import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.data import Feed, open_samples
from onnxcomp.facts import input_specs
from onnxcomp.model import load, serialized
from onnxcomp.runtime import Session
from onnxcomp.statistics import Histogram, Range, RangeStore
from onnxcomp.statistics.histograms import BINS, Tally, collect_histograms
from onnxcomp.statistics.tap import float_tensors
from onnxcomp.thresholds import METHODS, Grid

Parse = Callable[..., onnx.ModelProto]
GRAPH = """g (float[N, M] x, float[N, M] z) => (float[N, M] out) {
    relu = Relu(x)  sum = Add(relu, z)  never = Mul(x, zero)  same = Cos(never)  out = Tanh(sum)
}"""
NAMES = ["x", "z", "relu", "sum", "never", "same", "out"]


def tally(*runs: np.ndarray) -> Histogram:
    counted = Tally()
    for values in runs:
        counted.add(values)
    return counted.histogram()


def check(histogram: Histogram, values: np.ndarray) -> None:
    """Compare with counting by hand: each bin holds its right edge and not its left."""
    values = values.reshape(-1).astype(np.float64)
    assert histogram.extremes == Range(values.min(), values.max())
    edges = histogram.start + histogram.width * np.arange(len(histogram.counts) + 1)
    wanted = np.diff(np.searchsorted(np.sort(values), edges, "right"))
    np.testing.assert_array_equal(histogram.counts, wanted)
    assert histogram.counts.sum() == values.size
    assert np.frexp(histogram.width)[0] == 0.5  # a power of two
    assert histogram.start % histogram.width == 0
    assert edges[0] <= 0 <= edges[-1]
    assert len(histogram.counts) <= BINS


numbers = st.floats(-1e5, 1e5, width=32, allow_subnormal=False)
runs_of_values = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=20), elements=numbers),
    min_size=1,
    max_size=4,
)


@given(runs=runs_of_values)
def test_every_value_is_in_its_bin(runs: list[np.ndarray]) -> None:
    check(tally(*runs), np.concatenate([run.reshape(-1) for run in runs]))


@given(runs=runs_of_values)
def test_the_order_of_runs_does_not_matter(runs: list[np.ndarray]) -> None:
    forth, back = tally(*runs), tally(*runs[::-1])
    assert (forth.start, forth.width, forth.extremes) == (back.start, back.width, back.extremes)
    np.testing.assert_array_equal(forth.counts, back.counts)


@pytest.mark.parametrize("size", [2, 65_535, 65_536, 65_537, 200_001])
@pytest.mark.parametrize("factor", [1e-30, 1.0, 3e30])
def test_more_values_than_are_counted_at_once(size: int, factor: float) -> None:
    rng = np.random.default_rng(size)
    runs = [(rng.normal(size=size) * factor * scale).astype(np.float32) for scale in (0.01, 1, 100, 1)]
    found = tally(*runs)
    check(found, np.concatenate(runs))
    assert len(found.counts) > BINS / 2 - 1


def test_zeros_of_a_relu_have_a_bin_of_their_own() -> None:
    values = np.random.default_rng(0).normal(size=1000).clip(0).astype(np.float32)
    found = tally(values)
    assert found.centers[0] == 0
    assert found.counts[0] == (values == 0).sum()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.bool_])
def test_other_types_are_counted_too(dtype: Any) -> None:
    check(tally(np.array([0, 1, 1], dtype)), np.array([0, 1, 1]))


def test_values_too_small_to_tell_apart() -> None:
    tiny = np.array([0, 1e-45, 1e-40, 2e-40], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tally(tiny)
    assert found.counts.sum() == 4
    assert found.extremes.high == tiny[-1]


def test_the_largest_values_there_are() -> None:
    check(tally(np.array([-3.4e38, 0, 3.4e38], np.float32)), np.array([-3.4e38, 0, 3.4e38], np.float32))


def test_no_values() -> None:
    found = tally(np.zeros((0, 3), np.float32))
    assert found.extremes == Range(0, 0)
    assert found.counts.sum() == 0


def test_the_average_of_extremes() -> None:
    found = tally(*(np.array(run, np.float32) for run in ([0, 1], [-1, 3], [])))
    assert found.average.low == pytest.approx(-0.01)
    assert found.average.high == pytest.approx(0.99 + 0.03)


def test_the_centers_of_the_bins() -> None:
    found = Histogram(np.ones(4, np.int64), -1.0, 1.0, Range(-0.9, 2.2), Range(0, 0))
    assert found.centers.tolist() == [-0.5, 0.5, 1.5, 2.2]


@given(values=hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32)))
def test_magnitudes_count_all_values(values: np.ndarray) -> None:
    found = tally(values)
    folded = found.magnitudes(64)
    assert folded.shape == (64,)
    if values.any():
        assert folded.sum() == pytest.approx(values.size)
        edges = np.linspace(0, np.abs(values).max(), 65)
        wanted = np.histogram(np.abs(values.astype(np.float64)), edges)[0]
        near = [np.sum(np.abs(np.abs(values) - edge) <= found.width) for edge in edges]
        assert (np.abs(np.cumsum(folded) - np.cumsum(wanted)) <= np.array(near[1:]) + 1e-9).all()


def graph(parse: Parse) -> ir.Model:
    return load(parse(GRAPH, {"zero": np.zeros(1)}).SerializeToString())


def feeds(seed: int, shapes: list[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(np.float32) for name in ("x", "z")} for shape in shapes]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=5),
)
def test_equals_brute_force(parse: Parse, samples: Any, seed: int, shapes: list[tuple[int, int]]) -> None:
    """Ragged and empty runs; graph inputs, inner tensors and outputs; tensors that never change."""
    model = graph(parse)
    before = serialized(model)
    data = samples(feeds(seed, shapes))
    found = collect_histograms(model, data, NAMES)
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
        assert histogram.counts.sum() == elements
        if elements and name not in ("sum", "out"):  # the last bit of what is computed depends on fusion
            check(histogram, values)
    assert found["never"].extremes == Range(0, 0)
    assert found["same"].extremes == (Range(1, 1) if elements else Range(0, 0))


def test_an_input_left_at_its_default(parse: Parse, samples: Any) -> None:
    text = "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }"
    model = load(parse(text, {"w": np.array([1.0, 2.0])}).SerializeToString())
    row = np.array([1, 2], np.float32)
    data = samples([{"x": row}, {"x": row, "w": np.array([5, 2], np.float32)}])
    found = collect_histograms(model, data, ["x", "w", "y"])
    assert {name: histogram.counts.sum() for name, histogram in found.items()} == {"x": 4, "w": 4, "y": 4}
    check(found["w"], np.array([1, 2, 5, 2]))  # the default, then the sample


def test_inputs_alone(parse: Parse, samples: Any) -> None:
    data = samples(feeds(0, [(2, 3), (1, 4)]))
    found = collect_histograms(graph(parse), data, ["x"])
    assert found["x"].counts.sum() == 10


def test_all_methods_together_cost_one_run(parse: Parse, samples: Any) -> None:
    data = samples(feeds(0, [(50, 50)] * 3))
    store = RangeStore(graph(parse), data)
    exact = store.get(NAMES)
    for method in METHODS:
        ranges = store.clipped(NAMES, method)
        assert list(ranges) == NAMES
        for name, clipped in ranges.items():
            assert min(exact[name].low, 0) <= clipped.low <= clipped.high <= max(exact[name].high, 0)
    assert data.readings == 1
    assert store.clipped(NAMES, "minmax") == exact
    assert store.clipped(["x"], "percentile", share=0.999)["x"].width < exact["x"].width
    again = RangeStore(graph(parse), data, known=store.known)
    assert again.clipped(NAMES, "kl") == store.clipped(NAMES, "kl")
    assert data.readings == 1


def test_the_number_of_threads_does_not_matter(parse: Parse, samples: Any) -> None:
    data = samples(feeds(0, [(300, 300), (7, 5), (0, 4)]))
    one, many = (collect_histograms(graph(parse), data, ["x", "z", "relu", "same"], threads=n) for n in (1, 4))
    for name, histogram in one.items():
        other = many[name]
        np.testing.assert_array_equal(histogram.counts, other.counts)
        assert (histogram.start, histogram.extremes, histogram.average) == (other.start, other.extremes, other.average)


def test_the_grid_and_the_share_are_handed_on(parse: Parse, samples: Any) -> None:
    store = RangeStore(graph(parse), samples(feeds(0, [(50, 50)] * 3)))
    few = store.clipped(["x"], "mmse", grid=Grid(bits=3, symmetric=True))["x"]
    assert few.low == -few.high
    assert few.width < 0.8 * store.clipped(["x"], "mmse")["x"].width
    assert store.clipped(["x"], "percentile", share=0.9)["x"].width < 3.5


def test_memory_does_not_grow_with_samples(parse: Parse, samples: Any) -> None:
    model = graph(parse)

    class Stream(samples):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Feed]:
            for index in range(self.feeds[0]):
                yield {name: np.full((100, 100), index % 4, np.float32) for name in ("x", "z")}

    def peak(count: int) -> int:
        tracemalloc.start()
        collect_histograms(model, Stream([count]), NAMES, threads=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # imports and caches
    assert peak(100) < peak(5) + 400_000  # ten activations: 95 more samples have 190


def test_what_is_measured_of_a_tensor_does_not_depend_on_what_else_is_asked_for(
    data: dict[str, Path], resnet: Path
) -> None:
    """Else a recipe alone would give other thresholds than in company, and so another model."""
    model = load(resnet)
    found = open_samples(data["calibration"], input_specs(model))
    names = float_tensors(model)
    together = collect_histograms(model, found, names)
    for name in names[::3]:
        (alone,) = collect_histograms(model, found, [name]).values()
        assert alone.extremes == together[name].extremes
        np.testing.assert_array_equal(alone.counts, together[name].counts)
