"""Made-up samples."""

import numpy as np
import pytest

from onnxcomp.data import InputSpec, synthetic
from onnxcomp.errors import DataError
from tests.data.files import F32, I64, IDS, MASK, X


def test_synthetic_is_the_same_each_time():
    specs = [X, IDS, InputSpec("b", np.dtype(bool), (2,)), InputSpec("u", np.dtype(np.uint8), (50,)), MASK]
    samples = synthetic(specs, count=3, seed=7, batch=2, bounds={"ids": 1000})
    first, second = list(samples), list(samples)
    assert len(first) == samples.length == 3
    for a, b in zip(first, second, strict=True):
        assert set(a) == {"x", "ids", "b", "u"}  # a default is used
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(first[0]["x"], first[1]["x"])
    other = next(iter(synthetic(specs, count=3, seed=8, batch=2)))
    assert not np.array_equal(first[0]["x"], other["x"])
    assert samples.labels() is None
    assert samples.description == "synthetic (seed 7), 3 runs"
    (last,) = samples.pick([2, 5])
    np.testing.assert_array_equal(last["x"], first[2]["x"])


def test_synthetic_shapes():
    specs = [InputSpec("a", F32, (None, 3, None, None)), InputSpec("b", F32, ()), InputSpec("c", F32, (5, None))]
    (feed,) = synthetic(specs, count=1, seed=0, batch=2)
    assert {name: array.shape for name, array in feed.items()} == {"a": (5, 3, 64, 64), "b": (), "c": (5, 64)}
    (feed,) = synthetic(specs[:2], count=1, seed=0, batch=2)
    assert feed["a"].shape == (2, 3, 64, 64)
    assert all(isinstance(array, np.ndarray) for array in feed.values())


def test_synthetic_shapes_by_name():
    specs = [
        InputSpec("ids", I64, (None, None), names=("batch", "length")),
        InputSpec("mask", I64, (None, None), names=("batch", "past + length")),
        InputSpec("longer", F32, (None, None), names=(None, "length + 1")),
        InputSpec("keys", F32, (None, 4, None, 8), names=("batch", None, "past", None)),
        InputSpec("state", F32, (2, None, 128), names=(None, "batch", None)),
        InputSpec("cell", F32, (2, None, 128)),
        InputSpec("matrix", F32, (2, None)),
        InputSpec("rate", I64, ()),
    ]
    (feed,) = synthetic(specs, count=1, seed=0, batch=3, named=True, size=10)
    assert {name: array.shape for name, array in feed.items()} == {
        "ids": (3, 10),
        "mask": (3, 20),
        "longer": (3, 11),
        "keys": (3, 4, 10, 8),
        "state": (2, 3, 128),
        "cell": (2, 3, 128),
        "matrix": (2, 10),
        "rate": (),
    }


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
@pytest.mark.parametrize("bound", [None, 1, 100, 10**30])
def test_synthetic_values(dtype, bound):
    spec = InputSpec("x", np.dtype(dtype), (2000,))
    (feed,) = synthetic([spec], count=1, seed=0, bounds={} if bound is None else {"x": bound})
    x = feed["x"]
    assert x.dtype == dtype
    if x.dtype.kind in "fc":
        assert abs(x.mean()) < 0.1
        assert abs(x.real.std() - 1) < 0.1
    elif x.dtype.kind == "b":
        assert 0.4 < x.mean() < 0.6
    else:
        top = int(np.iinfo(x.dtype).max)
        limit = min((256 if dtype == "u1" else 2) if bound is None else bound, top + 1)
        assert 0 <= x.min() <= x.max() < limit
        assert x.max() >= (limit - 1) * 0.9


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4", "uint4"])
def test_synthetic_values_of_small_types(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name))
    (feed,) = synthetic([InputSpec("x", dtype, (100,))], count=1, seed=0)
    assert feed["x"].dtype == dtype
    assert len(np.unique(feed["x"].astype(np.float32))) > 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputSpec("t", None, (None,)), "'t' is no numeric tensor"),
        (InputSpec("t", F32, None), "'t' has no known rank"),
        (InputSpec("t", np.dtype("U4"), (1,)), "'t' is str128"),
    ],
)
def test_what_can_not_be_made_up(spec, message):
    with pytest.raises(DataError, match=message) as caught:
        synthetic([spec], count=1, seed=0)
    assert "--calibration" in caught.value.hint


def test_synthetic_settings_that_make_no_sense():
    for wrong in ({"count": 0}, {"batch": 0}, {"seed": -1}, {"bounds": {"x": 0}}):
        with pytest.raises(DataError, match="synthetic samples: the"):
            synthetic([X], **{"count": 1, "seed": 0, **wrong})
    with pytest.raises(DataError, match="can't be made up"):
        list(synthetic([InputSpec("x", F32, (1 << 31, 1 << 31))], count=1, seed=0))
