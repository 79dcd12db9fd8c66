import io
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.data import InputSpec, Samples, open_samples, synthetic
from onnxcomp.errors import DataError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
X = InputSpec("x", F32, (None, 3))
IDS = InputSpec("ids", I64, (None, None))
MASK = InputSpec("mask", I64, (None, None), optional=True)


def rows(n, *shape, dtype=np.float32):
    return np.arange(n * int(np.prod(shape)), dtype=dtype).reshape(n, *shape)


def save(path, *, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def save_raw(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape, descr="<f4", data=b"", fortran=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return file.getvalue() + data


def folder(path, *files):
    path.mkdir()
    for number, arrays in enumerate(files):
        save(path / f"{number:04}.npz", **arrays)
    return path


def stacked(samples, name="x"):
    return np.concatenate([feed[name] for feed in samples])


# --- rows of one file


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# --- memory


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


# --- a folder of runs


def test_each_file_is_a_run(tmp_path):
    specs = [InputSpec("x", F32, (None, None)), InputSpec("rate", I64, ())]
    runs = [{"x": rows(n, 2), "rate": np.int64(n), "labels": np.array(["a"] * n)} for n in (3, 1, 2)]
    path = folder(tmp_path / "runs", *runs)
    (path / "README.txt").write_text("not a sample")
    (path / ".0000.npz").write_text("left by an archive program")
    samples = open_samples(path, specs, batch=5)
    assert samples.length == 3
    assert samples.description == "runs, 3 files, one run each"
    for feed, run, labels in zip(samples, runs, samples.labels(), strict=True):
        assert set(feed) == {"x", "rate"}
        np.testing.assert_array_equal(feed["x"], run["x"])
        assert feed["rate"].shape == ()
        assert feed["rate"] == run["rate"]
        np.testing.assert_array_equal(labels, run["labels"])


def test_files_take_fortran_order_and_scalar_labels(tmp_path):
    x = np.asfortranarray(rows(4, 3))
    samples = open_samples(folder(tmp_path / "runs", {"x": x, "labels": 3}), [InputSpec("x", F32, (4, 3))])
    (feed,) = samples
    np.testing.assert_array_equal(feed["x"], x)
    assert feed["x"].flags.c_contiguous
    assert [label.item() for label in samples.labels()] == [3]
    assert samples.description == "runs, 1 file, one run each"


def test_files_without_labels(tmp_path):
    assert open_samples(folder(tmp_path / "runs", {"x": rows(1, 3)}), [X]).labels() is None


def test_only_files_that_are_wanted_are_read(tmp_path):
    path = folder(tmp_path / "runs", *[{"x": rows(1, 3) + n} for n in range(4)])
    samples = open_samples(path, [X])
    (path / "0001.npz").unlink()
    assert [feed["x"][0, 0] for feed in samples.pick([0, 2, 3])] == [0, 2, 3]
    with pytest.raises(DataError, match=r"0001\.npz: can't be read: No such file"):
        list(samples)


# --- parts


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


# --- what is refused


IMAGE = InputSpec("image", F32, (None, 3, 8, 8))
BAD_ROWS = {
    "missing input": ([X, IDS], {"x": rows(2, 3)}, "no array for the input 'ids' (it has 'x')"),
    "only labels": ([X], {"labels": np.arange(2)}, "no array for the input 'x'"),
    "unknown array": ([X], {"x": rows(2, 3), "label": np.arange(2)}, "the model has no input 'label'"),
    "float64": ([X], {"x": rows(2, 3, dtype=np.float64)}, "input 'x' takes float32, the array is float64"),
    "int32 for int64": ([IDS], {"ids": rows(2, 3, dtype=np.int32)}, "takes int64, the array is int32"),
    "strings": ([X], {"x": np.array([["a"] * 3])}, "takes float32, the array is str"),
    "records": ([X], {"x": np.zeros(2, [("a", "f4"), ("b", "f4")])}, "holds records"),
    "objects": ([X], {"x": np.array([{}, []], dtype=object)}, "holds Python objects"),
    "objects in labels": ([X], {"x": rows(2, 3), "labels": np.array(["a", None])}, "holds Python objects"),
    "rank": ([IMAGE], {"image": rows(2, 3, 8)}, "takes [?, 3, 8, 8], the array is [2, 3, 8]"),
    "fixed dimension": ([IMAGE], {"image": rows(2, 8, 8, 3)}, "takes [?, 3, 8, 8], the array is [2, 8, 8, 3]"),
    "scalar": ([X], {"x": np.float32(1)}, "'x' has no axis that counts samples"),
    "scalar input": ([InputSpec("x", F32, ())], {"x": rows(3)}, "takes [], which has no axis for samples"),
    "no batch axis": ([InputSpec("x", F32, (3, 8))], {"x": rows(5, 3, 8)}, "which has no axis for samples"),
    "unlike lengths": ([X, IDS], {"x": rows(2, 3), "ids": rows(3, 3, dtype=np.int64)}, "x 2, ids 3"),
    "unlike labels": ([X], {"x": rows(2, 3), "labels": np.arange(3)}, "x 2, labels 3"),
    "one label": ([X], {"x": rows(2, 3), "labels": 3}, "'labels' is one value"),
    "no rows": ([X], {"x": rows(0, 3)}, "no samples in it (0 rows)"),
    "no full batch": ([InputSpec("x", F32, (4, 3))], {"x": rows(3, 3)}, "3 rows, the model takes batches of 4"),
    "batch of none": ([InputSpec("x", F32, (0, 3))], {"x": rows(3, 3)}, "batches of 0"),
    "unlike batches": (
        [InputSpec("x", F32, (1, 3)), InputSpec("h", F32, (2, 3))],
        {"x": rows(2, 3), "h": rows(2, 3)},
        "fixed to different sizes: 'x' 1, 'h' 2",
    ),
    "fortran": ([X], {"x": np.asfortranarray(rows(2, 3))}, "is in Fortran order"),
    "no input": ([], {"labels": np.arange(3)}, "no array for any input"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_do_not_fit(tmp_path, case):
    specs, arrays, message = BAD_ROWS[case]
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        open_samples(path, specs)
    assert str(path) in str(caught.value) or "fixed to different sizes" in message
    assert caught.value.hint


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_values_that_are_not_finite_are_named(tmp_path, value, word):
    x = rows(7, 3)
    x[5, 1] = value
    samples = open_samples(save(tmp_path / "s.npz", x=x), [X], batch=3)
    with pytest.raises(DataError, match=f"s.npz, row 5: input 'x' holds {word}"):
        list(samples)
    path = folder(tmp_path / "runs", {"x": x[:2]}, {"x": x})
    with pytest.raises(DataError, match=f"0001.npz: input 'x' holds {word}"):
        list(open_samples(path, [X]))


BAD_FILES = {
    "missing input": ({"y": rows(1, 3)}, "0001.npz: no array for the input 'x' (it has 'y')"),
    "float64": ({"x": rows(1, 3, dtype=np.float64)}, "takes float32, the array is float64"),
    "first dimension": ({"x": rows(3, 3)}, "takes [2, 3], the array is [3, 3]"),
    "rank": ({"x": rows(2)}, "takes [2, 3], the array is [2]"),
    "objects": ({"x": np.array([[None] * 3] * 2)}, "holds Python objects"),
    "labels on one": ({"x": rows(2, 3), "labels": np.arange(2)}, "0000.npz: no 'labels', though 1 other files have"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_do_not_fit(tmp_path, case):
    arrays, message = BAD_FILES[case]
    path = folder(tmp_path / "runs", {"x": rows(2, 3)}, arrays)
    with pytest.raises(DataError, match=re.escape(message)):
        open_samples(path, [InputSpec("x", F32, (2, 3))])


def test_paths_that_hold_no_samples(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "x.npy").write_bytes(b"")
    for name, message in {
        "gone.npz": "no such file or folder",
        "mymodule:load": "no such file or folder",
        "a\0b": "no such file or folder|can't be read",
        "empty": "an empty folder",
        "images": "neither .npz files nor images",
        "x.npy": "not a form of samples",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            open_samples(tmp_path / name, [X])
        assert "samples are an .npz file" in caught.value.hint
    with pytest.raises(DataError, match="not a form of samples"):
        open_samples(os.devnull, [X])


def test_batch_must_be_positive(tmp_path):
    with pytest.raises(DataError, match="batch must be 1 or more"):
        open_samples(save(tmp_path / "s.npz", x=rows(2, 3)), [X], batch=0)


HUGE = 1 << 40
DAMAGED = {
    "no zip": (b"hello", "no .npz file"),
    "nothing": (b"", "no .npz file"),
    "no array": ({"readme.txt": b"x"}, "'readme.txt' is no array"),
    "no npy": ({"x.npy": b"not an array at all"}, "array 'x': can't be read"),
    "no header": ({"x.npy": b""}, "array 'x': can't be read"),
    "cut header": ({"x.npy": npy((2, 3))[:40]}, "array 'x': can't be read"),
    "version": ({"x.npy": b"\x93NUMPY\x03\x00" + npy((2, 3))[8:]}, "version 3.0"),
    "claims more": ({"x.npy": npy((HUGE, 3), data=bytes(24))}, f"claims {HUGE * 12 + 128} bytes, the file holds 152"),
    "claims beyond 64 bits": ({"x.npy": npy((HUGE, HUGE, HUGE), data=bytes(24))}, "its header claims"),
    "claims less": ({"x.npy": npy((1, 3), data=bytes(24))}, "claims 140 bytes, the file holds 152"),
    "negative": ({"x.npy": npy((-2, -3), data=bytes(24))}, r"claims the shape \(-2, -3\)"),
    "data type": ({"x.npy": npy((2, 3), "<q99", bytes(24))}, "array 'x': can't be read"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, case):
    content, message = DAMAGED[case]
    path = tmp_path / "bad.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_raw(path, content)
    with pytest.raises(DataError, match=message) as caught:
        open_samples(path, [X])
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x.npy", npy((2, 3), data=bytes(24)))
        archive.writestr("x.npy", npy((2, 3), data=bytes(24)))
    with pytest.raises(DataError, match="'x' is there twice"):
        open_samples(tmp_path / "bad.npz", [X])


def test_other_compression_is_refused(tmp_path):
    save_raw(tmp_path / "bad.npz", {"x.npy": npy((2, 3), data=bytes(24))}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="zip compression 12 is not read"):
        open_samples(tmp_path / "bad.npz", [X])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_that_lies_about_sizes_allocates_nothing(tmp_path, compression):
    count = 1 << 30  # 4 GiB of float32 less what the 32-bit size field still holds
    shape = (1, count - 64)
    content = npy(shape, data=bytes(1000))
    path = save_raw(tmp_path / "bad.npz", {"x.npy": content}, compression)
    raw = path.read_bytes()
    true, false = (len(content)).to_bytes(4, "little"), (len(npy(shape)) + 4 * shape[1]).to_bytes(4, "little")
    at = raw.index(b"PK\x01\x02")  # the central directory: compressed size at 20, size at 24
    assert raw[at + 24 : at + 28] == true
    path.write_bytes(raw[: at + 24] + false + raw[at + 28 :])
    tracemalloc.start()
    with pytest.raises(DataError, match="can't hold"):
        list(open_samples(path, [InputSpec("x", F32, (None, None))]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("compressed", [True, False])
def test_a_flipped_bit_is_noticed(tmp_path, compressed):
    path = save(tmp_path / "s.npz", compressed=compressed, x=np.random.default_rng(0).random((50, 3), np.float32))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="array 'x': can't be read"):
        list(open_samples(path, [X]))  # a small array is read, and its checksum compared, with its header


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short(tmp_path, compressed, keep):
    path = save(tmp_path / "s.npz", compressed=compressed, x=rows(50, 3))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match=r"s\.npz"):
        open_samples(path, [X])


def test_a_file_that_changes_while_it_is_in_use(tmp_path):
    samples = open_samples(save(tmp_path / "s.npz", x=rows(5, 3)), [X])
    save(tmp_path / "s.npz", x=rows(4, 3))
    with pytest.raises(DataError, match="changed while it was in use"):
        list(samples)
    save(tmp_path / "s.npz", y=rows(4, 3))
    with pytest.raises(DataError, match="array 'x'"):
        list(samples)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compressed=st.booleans(), labelled=st.booleans())
def test_no_damage_escapes_as_a_foreign_error(tmp_path, data, compressed, labelled):
    extra = {"labels": np.array(["ab", "c", "d"])} if labelled else {}
    path = save(tmp_path / "s.npz", compressed=compressed, x=rows(3, 3), **extra)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    try:
        samples = open_samples(path, [X])
        list(samples)
        samples.labels()
    except DataError as err:
        assert str(err)  # noqa: PT017 - both outcomes are fine: a comment of the zip may be what changed


# --- synthetic


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


# --- the floor


def test_the_package_needs_numpy_only():
    code = "import sys, onnxcomp.data; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"onnx", "onnx_ir", "onnxruntime", "scipy", "sympy"} & set(loaded)


# --- real models


ZOO = Path(os.environ.get("ONNXCOMP_ZOO", "zoo"))
ZOO_NAMES = (
    "ddddocr_captcha",
    "doc_orientation",
    "efficientnet_lite0",
    "fmnist_resnet8",
    "magika",
    "minilm_l3",
    "ppocrv6_rec",
    "silero_vad_seq",
)


def zoo_inputs(model):
    onnx = pytest.importorskip("onnx")
    specs = []
    for value in onnx.load(model).graph.input:
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
        specs.append(InputSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape))
    return specs


@pytest.mark.zoo
@pytest.mark.skipif(not ZOO.is_dir(), reason="ONNXCOMP_ZOO names no folder")
@pytest.mark.parametrize("name", ZOO_NAMES)
def test_zoo(name):
    specs = zoo_inputs(ZOO / name / "model.onnx")
    for part in ("calibration", "eval"):
        file = ZOO / name / f"{part}.npz"
        source = file if file.is_file() else ZOO / name / part
        samples = open_samples(source, specs, batch=8)
        labels = samples.labels()
        assert (labels is None) == (part == "calibration")
        files = [file] if file.is_file() else sorted(source.iterdir())
        wanted = [np.load(path)[specs[0].name] for path in files]
        np.testing.assert_array_equal(
            np.concatenate([array.ravel() for array in wanted]),
            np.concatenate([feed[specs[0].name].ravel() for feed in samples]),
        )
        if labels is not None:
            assert len(labels) == samples.length
    made_up = next(iter(synthetic(specs, count=1, seed=0)))
    assert set(made_up) == {spec.name for spec in specs}
