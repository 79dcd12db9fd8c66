"""Rows of one file, in batches, streamed."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.data import InputSpec, open_samples
from onnxcomp.errors import DataError
from tests.data.files import F32, I64, IDS, MASK, X, rows, save, stacked


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 10, 99])
def test_rows_come_in_batches(tmp_path, compressed, batch):
    x, labels = rows(10, 3), np.arange(10)
    samples = open_samples(save(tmp_path / "s.npz", compressed=compressed, x=x, labels=labels), [X], batch=batch)
    for _ in range(2):  # it can be read again
        feeds = list(samples)
        assert [set(feed) for feed in feeds] == [{"x"}] * samples.length
        assert all(len(feed["x"]) == batch for feed in feeds[:-1])
        np.testing.assert_array_equal(stacked(samples), x)
    assert samples.length == -(-10 // batch)
    assert [len(part) for part in samples.labels()] == [len(feed["x"]) for feed in feeds]
    np.testing.assert_array_equal(np.concatenate(samples.labels()), labels)
    assert samples.description == f"s.npz, 10 rows in batches of {batch}"


def test_inputs_stay_in_step_and_defaults_may_be_left_out(tmp_path):
    ids, mask = rows(4, 5, dtype=np.int64), rows(4, 5, dtype=np.int64) % 2
    samples = open_samples(save(tmp_path / "s.npz", ids=ids, mask=mask), [MASK, IDS])
    for i, feed in enumerate(samples):
        assert list(feed) == ["mask", "ids"]  # in the order of the model
        np.testing.assert_array_equal(feed["ids"], ids[i : i + 1])
        np.testing.assert_array_equal(feed["mask"], mask[i : i + 1])
    alone = open_samples(save(tmp_path / "t.npz", ids=ids), [MASK, IDS])
    assert [set(feed) for feed in alone] == [{"ids"}] * 4
    assert alone.labels() is None


def test_a_fixed_batch_leaves_an_incomplete_one_out(tmp_path):
    path = save(tmp_path / "s.npz", x=rows(10, 3), labels=np.arange(10))
    samples = open_samples(path, [InputSpec("x", F32, (4, 3))], batch=7)
    assert [feed["x"].shape for feed in samples] == [(4, 3), (4, 3)]
    assert [list(part) for part in samples.labels()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert samples.description == ("s.npz, 10 rows in batches of 4 (the last 2 left out: the model takes 4 at a time)")


def test_unknown_rank_takes_rows_of_any_shape(tmp_path):
    samples = open_samples(save(tmp_path / "s.npz", x=rows(2, 3, 4)), [InputSpec("x", F32, None)])
    assert [feed["x"].shape for feed in samples] == [(1, 3, 4)] * 2


def test_labels_may_be_a_model_input(tmp_path):
    path = save(tmp_path / "s.npz", x=rows(2, 3), labels=np.arange(2))
    samples = open_samples(path, [X, InputSpec("labels", I64, (None,))])
    assert [set(feed) for feed in samples] == [{"x", "labels"}] * 2
    assert samples.labels() is None


def test_feeds_are_native_contiguous_and_belong_to_the_reader(tmp_path):
    x = rows(3, 3).astype(">f4")
    (first, *_) = open_samples(save(tmp_path / "s.npz", x=x), [X])
    np.testing.assert_array_equal(first["x"], x[:1])
    assert first["x"].dtype == F32
    assert first["x"].dtype.isnative
    assert first["x"].flags.c_contiguous
    assert first["x"].flags.writeable


def test_one_row_in_fortran_order_is_fine(tmp_path):
    x = np.asfortranarray(rows(1, 3, 4))
    samples = open_samples(save(tmp_path / "s.npz", x=x[:1]), [InputSpec("x", F32, (None, 3, 4))])
    np.testing.assert_array_equal(stacked(samples), x)


def test_bfloat16_saved_by_numpy_as_bytes(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = rows(2, 3).astype(ml_dtypes.bfloat16)
    spec = InputSpec("x", x.dtype, (None, 3))
    samples = open_samples(save(tmp_path / "s.npz", x=x), [spec])
    assert stacked(samples).dtype == x.dtype
    assert (stacked(samples) == x).all()
    x[1, 2] = np.nan
    with pytest.raises(DataError, match="row 1: input 'x' holds NaN"):
        list(open_samples(save(tmp_path / "s.npz", x=x), [spec]))
    with pytest.raises(DataError, match="takes float32"):
        open_samples(tmp_path / "s.npz", [X])


def test_strings_go_to_inputs_that_are_no_numbers(tmp_path):
    path = save(tmp_path / "s.npz", text=np.array([["a"], ["bcd"]]))
    assert [feed["text"].item() for feed in open_samples(path, [InputSpec("text", None, (None, 1))])] == ["a", "bcd"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 9),
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from(["f2", "f4", ">f8", "u1", "i4", ">i8", "?"]),
    batch=st.integers(1, 10),
    wanted=st.sets(st.integers(0, 12)),
    compressed=st.booleans(),
)
def test_what_is_saved_is_what_is_read(tmp_path, *, n, shape, dtype, batch, wanted, compressed):
    x = (np.random.default_rng(0).standard_normal((n, *shape)) * 50).astype(np.int8).astype(dtype)
    path = save(tmp_path / "s.npz", compressed=compressed, x=x)
    spec = InputSpec("x", np.dtype(dtype).newbyteorder("="), (None, *shape))
    samples = open_samples(path, [spec], batch=batch)
    np.testing.assert_array_equal(stacked(samples), x)
    picked = [feed["x"] for feed in samples.pick(sorted(wanted))]
    expected = [x[i * batch : (i + 1) * batch] for i in sorted(wanted) if i < samples.length]
    assert len(picked) == len(expected)
    for got, want in zip(picked, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("compressed", [True, False])
def test_rows_are_streamed(tmp_path, compressed):
    x = np.zeros((64, 512, 512), np.float32)  # 64 MiB, 1 MiB a row
    x[:, ::7, ::3] = 1
    path = save(tmp_path / "s.npz", compressed=compressed, x=x)
    del x
    tracemalloc.start()
    samples = open_samples(path, [InputSpec("x", F32, (None, 512, 512))])
    total = sum(float(feed["x"].sum()) for feed in samples)
    total += sum(float(feed["x"].sum()) for feed in samples.spread(2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 66 * 74 * 171
    assert peak < 12 << 20


def test_a_reader_that_stops_early_leaves_no_open_file(tmp_path):
    path = save(tmp_path / "s.npz", x=rows(5, 3))
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("open files are counted in /proc")
    before = len(list(fds.iterdir()))
    reader = iter(open_samples(path, [X]))
    next(reader)
    reader.close()
    assert len(list(fds.iterdir())) == before


def test_the_package_needs_numpy_only():
    code = "import sys, onnxcomp.data; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"onnx", "onnx_ir", "onnxruntime", "scipy", "sympy"} & set(loaded)
