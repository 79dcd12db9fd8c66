"""`optimize` for another machine: its candidates in a bundle, and the choice by what was measured there."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import DataError, OnnxCompError
from onnxcomp.model import fingerprint, load
from onnxcomp.pipeline import recipe_of
from tests.api.elsewhere import change, measure

MODEL = Path(__file__).parent.parent.parent / "sample_models" / "lenet_300_100" / "model.onnx"


@pytest.fixture(scope="module")
def made(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of candidates, with what its script has found out."""
    folder = tmp_path_factory.mktemp("made") / "device"
    found = onnxcomp.bundle_candidates(MODEL, folder=folder, target="portable", **data)
    assert {model.model for model in found.models} >= {"original", "dynamic", "static"}
    assert not any(here.startswith("latency not measured") for here in found.notes)
    done = measure(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, (folder / "measurements.json").read_text(encoding="utf-8")


@pytest.fixture
def device(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the bundle, with the measurements as they were."""
    return Path(shutil.copytree(made[0], tmp_path / "device"))


def pretend(folder: Path, **ratios: float) -> Path:
    """Change what was measured: these ratios, and 1 for the others."""
    path = folder / "measurements.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for model in found["models"][1:]:
        ratio = ratios.get(model["model"], 1.0)
        model["ratio"] = {"ratio": ratio, "low": 0.999 * ratio, "high": 1.001 * ratio}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.fixture
def choose(device: Path, data: dict[str, Path]) -> Callable[..., onnxcomp.Result]:
    measurements = device / "measurements.json"
    return partial(onnxcomp.optimize, MODEL, eval=data["eval"], target="portable", measurements=measurements)


@pytest.mark.parametrize("winner", ["static", "dynamic"])
def test_what_is_fastest_there_is_delivered(
    winner: str,
    device: Path,
    data: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = pretend(device, **({"static": 0.6, "dynamic": 0.6} | {winner: 0.4}))
    out = tmp_path / "out.onnx"
    asked = ["optimize", str(MODEL), "--eval", str(data["eval"]), "--target", "portable", "-o", str(out)]
    assert run(build_app(), [*asked, "--measurements", str(path)]) == 0
    printed = capfd.readouterr().out
    assert "portable (measured there)" in printed
    assert f"times are from {path}" in printed
    assert "2.50x faster" in printed
    delivered = load(out)
    ours = [model for model in json.loads(path.read_text(encoding="utf-8"))["models"] if model["model"] == winner]
    assert fingerprint(delivered) == ours[0]["fingerprint"]
    assert {step.name for step in recipe_of(delivered).steps} & {"quantize-static", "quantize-dynamic"}


def test_what_is_slower_there_is_not(device: Path, choose: Callable[..., onnxcomp.Result]) -> None:
    pretend(device, static=1.3, dynamic=1.2)
    outcome = choose().report.outcome
    assert outcome.winner in (None, "cleanup")
    rejected = {candidate.name: candidate.rejected for candidate in outcome.candidates}
    assert "slower than allowed: 1.300" in (rejected["static"] or "")


def test_the_budget_holds_here(device: Path, choose: Callable[..., onnxcomp.Result]) -> None:
    pretend(device, static=0.4, dynamic=0.5)
    assert choose(budget=onnxcomp.Budget(min_sqnr=200.0)).report.outcome.winner in (None, "cleanup")


def test_the_front_of_what_was_measured(device: Path, choose: Callable[..., onnxcomp.Result], tmp_path: Path) -> None:
    pretend(device, static=0.4, dynamic=0.5)
    front = choose(pareto=tmp_path / "front").report.outcome.front
    found = {model.name: model.latency for model in front or ()}
    assert found["static"] is not None
    assert found["static"].ratio == 0.4


def edit(folder: Path, where: str, value: Any) -> None:
    name, _, place = where.partition(":")
    path = folder / name
    found = json.loads(path.read_text(encoding="utf-8"))
    change(found, place, value)
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("measurements.json:models.1.fingerprint", "0", "is not the model that was measured"),
        ("measurements.json:models.0.fingerprint", "0", "was not measured with the bundle"),
        ("measurements.json:models.1.ratio", None, "is not the model that was measured"),
        ("measurements.json:models.1.ratio.low", 7.0, "is damaged"),
        ("bundle.json:models.0.fingerprint", "0", "of another model than this"),
        ("bundle.json:models.1.file", "../outside.onnx", "its models are not in models/"),
        ("bundle.json:models.1.file", "models/none.onnx", "none.onnx"),
        ("bundle.json:models", [], "its models are not in models/"),
        ("bundle.json:models", 3, "it is damaged"),
    ],
)
def test_what_does_not_belong_together(
    where: str, value: Any, says: str, device: Path, choose: Callable[..., onnxcomp.Result]
) -> None:
    edit(device, where, value)
    with pytest.raises(OnnxCompError, match=says) as caught:
        choose()
    assert caught.value.exit_code in (2, 3)


def test_a_candidate_that_did_not_run_there(device: Path, choose: Callable[..., onnxcomp.Result]) -> None:
    edit(device, "measurements.json:models.1.model", "other")
    names = [entry["model"] for entry in json.loads((device / "bundle.json").read_text(encoding="utf-8"))["models"]]
    assert [candidate.name for candidate in choose().report.outcome.candidates] == names[2:]


def test_measurements_without_their_bundle(made: tuple[Path, str], data: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "alone.json"
    path.write_text(made[1], encoding="utf-8")
    with pytest.raises(DataError, match=r"bundle\.json") as caught:
        onnxcomp.optimize(MODEL, eval=data["eval"], measurements=path)
    assert "beside its models" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("{dense} --bundle {folder} --measurements m.json", "comes from it"),
        ("{dense} {dense} -o {folder} --bundle b", "about one model"),
        ("{dense} --dry-run --measurements m.json", "about one model"),
        ("{dense} --bundle {folder} --work-dir {folder}", "delivers nothing"),
        ("{dense} --measurements nowhere.json", "nowhere.json"),
        ("{dense} --target portable", "can't be measured"),
    ],
)
def test_wrong_use(arguments: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = arguments.format(dense=MODEL, folder=tmp_path / "device")
    assert run(build_app(), ["optimize", *text.split(), "--overwrite"]) == 2
    assert says in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
