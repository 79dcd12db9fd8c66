"""`onnxcomp quantize` as users meet it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxcomp.api.modes import MODES
from onnxcomp.cli.app import build_app, run
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.model import load
from onnxcomp.pipeline import recipe_of
from onnxcomp.search import race
from onnxcomp.thresholds import METHODS


@pytest.fixture
def folder(sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a model and samples the current one, and make up times: half of the original's."""
    shutil.copyfile(sample_models / "lenet_300_100" / "model.onnx", tmp_path / "model.onnx")
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        np.savez(tmp_path / "eval.npz", image=rows["image"][:40], labels=rows["labels"][:40])
        np.savez(tmp_path / "calib.npz", image=rows["image"][40:60])
    (tmp_path / "old.onnx").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)

    def interleave(contenders: dict[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
        timings = tuple(Timing(name, 0.001, 0.002, 0.003, 10, 0.001) for name in contenders)
        ratios = {name: Ratio(0.5, 0.499, 0.501) for name in contenders if name != baseline}
        return Comparison(timings, ratios, rounds=10, seconds=9.0, settled=True)

    monkeypatch.setattr(race, "interleave", interleave)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(arguments: str) -> int:
    return run(build_app(), ["quantize", *arguments.split()])


def test_help_names_every_mode_and_method(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    words = capfd.readouterr().out.replace(",", " ").split()
    assert {*MODES, *METHODS} <= set(words)


ERRORS: dict[str, tuple[str, int, str]] = {
    # name: (arguments, exit code, what stderr must say)
    "no mode": ("model.onnx", 2, "--mode"),
    "unknown mode": ("model.onnx --mode magic", 2, "magic"),
    "static without samples": ("model.onnx --mode static", 2, "--calibration"),
    "unknown method": ("model.onnx --mode static --calibration calib.npz --method guess", 2, "minmax"),
    "a method where there is none": ("model.onnx --mode dynamic --method minmax", 2, "--method"),
    "unknown operator": ("model.onnx --mode dynamic --ops Conv", 2, "Conv"),
    "unknown node": ("model.onnx --mode dynamic --exclude nothing", 2, "nothing"),
    "unknown target": ("model.onnx --mode dynamic --target abacus", 2, "abacus"),
    "gate out of range": ("model.onnx --mode dynamic --min-agreement 2", 2, "min-agreement"),
    "a drop of no metric": ("model.onnx --mode dynamic --max-drop 0.1", 2, "--eval"),
    "a ratio that is not measured": ("model.onnx --mode dynamic --no-bench --max-latency-ratio 1", 2, "not measured"),
    "output exists": ("model.onnx --mode dynamic -o old.onnx", 2, "--overwrite"),
    "output is the input": ("model.onnx --mode dynamic -o model.onnx --overwrite", 2, "input itself"),
    "model missing": ("missing.onnx --mode dynamic", 2, "missing.onnx"),
    "samples missing": ("model.onnx --mode static --calibration no.npz", 2, "no.npz"),
    "gate missed": ("model.onnx --mode dynamic --min-sqnr 200", 1, "SQNR"),
    "size missed": ("model.onnx --mode dynamic --max-size 1kB", 1, "bytes"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, code, says = ERRORS[name]
    before = snapshot(folder)
    assert call(arguments) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert (out == "") == (code != 1)  # a missed gate shows what was measured
    assert snapshot(folder) == before


def test_writes_the_model_and_says_so(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    arguments = "model.onnx --mode static --calibration calib.npz --eval eval.npz"
    assert call(f"{arguments} --report out/r.json --report out/r.txt") == 0
    out = capfd.readouterr().out
    assert out.splitlines()[-1] == " wrote   model.quantized.onnx"
    assert "2.00x faster" in out
    after = snapshot(folder)
    assert after.keys() - before.keys() == {"model.quantized.onnx", "out/r.json", "out/r.txt"}
    assert {name: after[name] for name in before} == before
    found = json.loads(after["out/r.json"])
    assert found["kind"] == "quantize"
    assert found["size"] == len(after["model.quantized.onnx"])
    assert recipe_of(load(folder / "model.quantized.onnx")).steps[-1].name == "quantize-static"
    assert call(arguments) == 2  # it is there now
    assert call(f"{arguments} --overwrite -q") == 0


def test_a_missed_gate_writes_the_report_alone(folder: Path) -> None:
    before = snapshot(folder)
    assert call("model.onnx --mode dynamic --min-sqnr 200 --report out/r.json") == 1
    after = snapshot(folder)
    assert after.keys() - before.keys() == {"out/r.json"}
    assert "SQNR" in json.loads(after["out/r.json"])["missed"][0]


def test_a_dry_run_writes_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    assert call("model.onnx --mode dynamic --dry-run --report out/r.json --format json -o old.onnx") == 0
    assert json.loads(capfd.readouterr().out)["mode"] == "dynamic"
    assert snapshot(folder) == before


def test_options_reach_the_pass(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [node.name for node in load(folder / "model.onnx").graph if node.op_type in ("Gemm", "MatMul")]
    options = "--method mmse --per-tensor --ops Gemm,MatMul --no-bench --format json"
    assert call(f"model.onnx --mode static --calibration calib.npz {options} --exclude {names[0]}") == 0
    found = json.loads(capfd.readouterr().out)
    settings = {"method": "mmse", "per_channel": False, "anchors": ["Gemm", "MatMul"], "exclude": [names[0]]}
    assert found["settings"] == settings
    assert found["latency"] is None
