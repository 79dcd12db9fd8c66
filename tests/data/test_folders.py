"""A folder with a file per run; the samples of real models."""

import os
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.data import InputSpec, open_samples, synthetic
from onnxcomp.errors import DataError
from tests.data.files import F32, I64, X, folder, rows


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
