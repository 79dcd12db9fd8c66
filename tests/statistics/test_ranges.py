import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, ModelError
from onnxcomp.model import load, serialized
from onnxcomp.runtime import Session
from onnxcomp.statistics import Range, RangeStore

Parse = Callable[..., onnx.ModelProto]
UNARY = ["Relu", "Neg", "Sigmoid", "Tanh", "Elu", "Abs", "Softmax"]


def floats(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


def chain(parse: Parse, ops: list[str]) -> tuple[ir.Model, list[str]]:
    """Apply the operators one after the other; every third also adds the input. Returns all tensor names."""
    names = ["x"]
    lines = []
    for index, op in enumerate(ops):
        lines.append(f"t{index} = {op}({names[-1]})")
        names.append(f"t{index}")
        if index % 3 == 2:
            lines.append(f"s{index} = Add({names[-1]}, x)")
            names.append(f"s{index}")
    text = f"g (float[N, M] x) => (float[N, M] out) {{ {' '.join(lines)} out = Identity({names[-1]}) }}"
    return load(parse(text).SerializeToString()), [*names, "out"]


@settings(max_examples=20)
@given(ops=st.lists(st.sampled_from(UNARY), min_size=1, max_size=7), seed=st.integers(0, 2**32 - 1))
def test_equals_brute_force(parse: Parse, samples: Any, ops: list[str], seed: int) -> None:
    model, names = chain(parse, ops)
    rng = np.random.default_rng(seed)
    shapes = [(1, 4), (3, 2), (2, 7)]  # ragged: every run has another shape
    feeds = [{"x": (rng.normal(size=shape) * 2).clip(-5, 5).astype(np.float32)} for shape in shapes]
    found = RangeStore(model, samples(feeds)).get(names)

    tapped = ir.to_proto(model)
    del tapped.graph.output[:]
    for name in names[1:]:
        tapped.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = Session(tapped.SerializeToString(), optimize=False)
    runs = [session.run(feed) | feed for feed in feeds]
    assert list(found) == names
    for name in names:
        values = np.concatenate([np.ravel(run[name]) for run in runs])
        assert found[name].low == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert found[name].high == pytest.approx(values.max(), rel=1e-5, abs=1e-6)


def test_the_model_stays_as_it_is(parse: Parse, samples: Any) -> None:
    model, names = chain(parse, ["Relu", "Neg"])
    before = serialized(model)
    RangeStore(model, samples([{"x": np.ones((1, 2), np.float32)}])).get(names)
    assert serialized(model) == before


def test_a_tensor_is_measured_once(parse: Parse, samples: Any) -> None:
    model, _ = chain(parse, ["Relu", "Neg"])
    data = samples([{"x": np.array([[-1, 2]], np.float32)}] * 3)
    store = RangeStore(model, data)
    assert store.get([]) == {}
    assert data.readings == 0
    first = store.get(["t0", "t1", "t0"])
    assert first == {"t0": Range(0, 2), "t1": Range(-2, 0)}
    assert store.get(["t1", "t0"]) == first
    assert data.readings == 1
    assert store.get(["x", "t0"]) == {"x": Range(-1, 2), "t0": Range(0, 2)}
    assert data.readings == 2


def test_progress(parse: Parse, samples: Any) -> None:
    model, _ = chain(parse, ["Relu"])
    seen: list[tuple[int, int | None]] = []
    data = samples([{"x": np.ones((1, 1), np.float32)}] * 3)
    RangeStore(model, data, progress=lambda done, of: seen.append((done, of))).get(["t0"])
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "values",
    [
        (np.nan, 1.0, 2.0, 3.0),
        (1.0, np.nan, 2.0, 3.0),
        (1.0, 2.0, 3.0, np.nan),
        (np.nan,) * 4,
        (np.nan, np.inf, -np.inf, 0.0),
    ],
)
def test_nan_is_an_error(parse: Parse, samples: Any, values: tuple[float, ...]) -> None:
    model = load(parse("g (float[4] x) => (float[4] y) { t = Neg(x) y = Abs(t) }").SerializeToString())
    data = samples([floats(1, 2, 3, 4), floats(*values)])
    with pytest.raises(ModelError, match=r"tensor t is not a number \(NaN\) on calibration sample 1"):
        RangeStore(model, data).get(["t"])


@pytest.mark.parametrize(("value", "want"), [(np.inf, Range(-np.inf, -1)), (-np.inf, Range(-4, np.inf))])
def test_infinite_values_are_told(parse: Parse, samples: Any, value: float, want: Range) -> None:
    model = load(parse("g (float[4] x) => (float[4] y) { t = Neg(x) y = Abs(t) }").SerializeToString())
    store = RangeStore(model, samples([floats(1, 2, 3, 4), floats(1, value, 2, 3)]))
    assert store.get(["t"]) == {"t": want}
    with pytest.raises(ValueError, match="t takes infinite values"):
        store.clipped(["t"], "percentile")


def test_nan_in_the_middle_of_a_large_tensor(parse: Parse, samples: Any) -> None:
    model = load(parse("g (float[N] x) => (float[N] y) { y = Neg(x) }").SerializeToString())
    values = np.zeros(10_000, np.float32)
    values[7_777] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        RangeStore(model, samples([{"x": values}])).get(["y"])


def test_large_values_are_finite(parse: Parse, samples: Any) -> None:
    """Their sum is not, which must not matter."""
    model = load(parse("g (float[4] x) => (float[4] y) { y = Neg(x) }").SerializeToString())
    found = RangeStore(model, samples([floats(3e38, 3e38, -3e38, -3e38)])).get(["x", "y"])
    assert found["y"].low == pytest.approx(-3e38)
    assert found["y"].high == pytest.approx(3e38)


def test_empty_tensors_have_no_say(parse: Parse, samples: Any) -> None:
    """A detector that finds nothing in an image gives tensors of no rows."""
    model, names = chain(parse, ["Relu", "Neg"])
    empty = {"x": np.zeros((0, 3), np.float32)}
    full = {"x": np.array([[-1, 5]], np.float32)}
    found = RangeStore(model, samples([empty, full, empty])).get(names)
    assert found["t0"] == Range(0, 5)
    assert RangeStore(model, samples([empty])).get(["t0"]) == {"t0": Range(0, 0)}


def test_no_samples(parse: Parse, samples: Any) -> None:
    model, _ = chain(parse, ["Relu"])
    with pytest.raises(DataError, match="no samples"):
        RangeStore(model, samples([])).get(["t0"])


def test_a_tensor_that_does_not_exist(parse: Parse, samples: Any) -> None:
    model, _ = chain(parse, ["Relu"])
    with pytest.raises(KeyError):
        RangeStore(model, samples([{"x": np.ones((1, 1), np.float32)}])).get(["nothing"])


def test_memory_does_not_grow_with_samples(parse: Parse, samples: Any) -> None:
    model, names = chain(parse, ["Relu", "Neg", "Tanh"])

    class Stream(samples):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Feed]:
            for index in range(self.feeds[0]):
                yield {"x": np.full((100, 100), index % 4, np.float32)}

    def peak(count: int) -> int:
        store = RangeStore(model, Stream([count]), threads=1)
        tracemalloc.start()
        store.get(names)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # imports and caches
    assert peak(200) < peak(10) + 40_000  # one sample, or one activation of it
