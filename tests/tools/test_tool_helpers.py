"""The helpers that the other tools share: worker processes, generated samples, verdicts."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from memory_of_statistics import verdict as memory_verdict
from rivals import verdict as rival_verdict
from sample_files import write_random
from zoo_folder import read_model
from zoo_job import run_job
from zoo_recheck import CheckFailedError, recheck
from zoo_tables import Interval

SAMPLES = Path(__file__).parents[2] / "sample_models"
WORKER = f"""
import os, sys, time
sys.path.insert(0, {str(SAMPLES.parent / "tools")!r})
from zoo_job import serve

def work(job):
    if job["do"] == "crash":
        os.abort()
    if job["do"] == "sleep":
        time.sleep(60)
    return {{"answer": 1 / job["by"]}}

sys.exit(serve(sys.argv[1:], work))
"""


@pytest.fixture
def worker(tmp_path: Path) -> str:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    return str(script)


def test_a_job_gives_its_value_or_its_error(worker: str) -> None:
    assert run_job(worker, {"do": "divide", "by": 4}).value == {"answer": 0.25}
    failed = run_job(worker, {"do": "divide", "by": 0})
    assert (failed.value, failed.error) == (None, "ZeroDivisionError: division by zero")


def test_a_crash_and_a_timeout_are_errors(worker: str) -> None:
    assert run_job(worker, {"do": "crash"}).error == "the process was killed by signal SIGABRT"
    assert run_job(worker, {"do": "sleep"}, timeout=0.5).error == "killed after 0.5 s"


def test_generated_rows_are_stored_and_drawn_from_the_first_sample(tmp_path: Path) -> None:
    like = tmp_path / "like.npz"
    np.savez_compressed(like, x=np.arange(12, dtype=np.int64).reshape(3, 4), y=np.ones((3, 2), np.float32))
    path = write_random(like, tmp_path, size=100_000, seed=0)
    with np.load(path) as data:
        assert data["x"].shape == (2500, 4)
        assert data["y"].shape == (2500, 2)
        assert set(np.unique(data["x"])) == {0, 1, 2, 3}
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert 100_000 <= path.stat().st_size < 101_000


def test_generated_folders_hold_one_run_per_file(tmp_path: Path) -> None:
    like = tmp_path / "like"
    like.mkdir()
    np.savez(like / "0.npz", x=np.arange(6.0).reshape(2, 3), rate=np.int64(16), labels=np.arange(2))
    path = write_random(like, tmp_path, size=280, seed=0)
    files = sorted(path.iterdir())
    assert len(files) == 5
    with np.load(files[-1]) as data:
        assert sorted(data.files) == ["rate", "x"]
        assert (data["x"].shape, data["rate"]) == ((2, 3), 16)


def test_memory_verdicts() -> None:
    assert memory_verdict([[40e6, 42e6], [43e6, 44e6]]) == "flat within 10 %"
    assert memory_verdict([[40e6, 52e6], [50e6, 55e6]]) == "no growth beyond noise (12.0 MB)"
    assert memory_verdict([[1e6], [2e6]]) == "no growth beyond noise (4.0 MB)"
    assert memory_verdict([[40e6, 41e6], [60e6, 61e6]]) == "grows"
    assert memory_verdict([[7e6]]) == "flat within 10 %"


@pytest.mark.parametrize(("low", "high", "word"), [(0.8, 0.9, "faster"), (0.9, 1.1, "equal"), (1.01, 1.1, "slower")])
def test_rival_verdicts(low: float, high: float, word: str) -> None:
    assert rival_verdict(Interval((low + high) / 2, low, high)) == word


def check(output: Path) -> bool:
    entry = read_model(SAMPLES / "resnet8")
    return recheck(entry, output, threads=1, half_width=0.05, seconds=1, seed=0).identical


def test_recheck_knows_a_copy_and_refuses_another_model(tmp_path: Path) -> None:
    model = SAMPLES / "resnet8" / "model.onnx"
    assert check(model)
    other = tmp_path / "other.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(other)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    assert not check(other)
    other.write_bytes(b"no model")
    with pytest.raises(CheckFailedError, match="does not load"):
        check(other)
