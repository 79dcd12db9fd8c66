"""Several models at once: where results go, and what a model that fails does to the others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import onnxcomp
from onnxcomp.errors import EnvironmentUnavailable, GateFailed, ModelError, OutputError, UsageError
from onnxcomp.model import load
from onnxcomp.report import ModelResult, OptimizeManyReport
from tests.cli.bad_files import make


@pytest.fixture(autouse=True)
def _times(times: Callable[[float], None]) -> None:
    times(0.5)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a model, one of the same name below it, a hidden one, and what is no model."""
    folder = tmp_path / "models"
    (folder / "inner").mkdir(parents=True)
    make("m.onnx", folder)
    shutil.copyfile(folder / "m.onnx", folder / "inner" / "m.onnx")
    shutil.copyfile(folder / "m.onnx", folder / ".m.onnx")
    (folder / "notes.txt").write_text("none", encoding="utf-8")
    return folder


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_form(models: Path, tmp_path: Path) -> None:
    told: list[str] = []
    report = onnxcomp.optimize_many([models], tmp_path / "out", progress=lambda stage, _: told.append(stage))
    assert [Path(one.model) for one in report.models] == [models / "inner" / "m.onnx", models / "m.onnx"]
    assert written(tmp_path / "out") == ["inner/m.onnx", "m.onnx"]
    assert report.exit_code == 0
    report.check()
    for one in report.models:
        assert one.output is not None
        assert one.report is not None
        assert one.report["kind"] == "optimize"
        assert one.report["winner"] == one.winner
        assert load(one.output.path)
    assert told[0].startswith("inner/m.onnx (1 of 2), ")
    assert told[-1].startswith("m.onnx (2 of 2), ")


def test_a_result_is_that_of_the_model_alone(models: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=rows)
    report = onnxcomp.optimize_many([models / "m.onnx"], tmp_path / "out", calibration=tmp_path / "calibration.npz")
    alone = onnxcomp.optimize(models / "m.onnx", calibration=tmp_path / "calibration.npz")
    (one,) = report.models
    assert one.winner == alone.report.outcome.winner
    alone.save(tmp_path / "alone.onnx")
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "out" / "m.onnx").read_bytes()


def test_one_that_fails_does_not_stop_the_others(models: Path, tmp_path: Path) -> None:
    (models / "a.onnx").write_bytes(b"no model")
    report = onnxcomp.optimize_many([models, tmp_path / "missing.onnx"], tmp_path / "out")
    assert [one.exit_code for one in report.models] == [3, 0, 0, 2]
    assert [Path(one.model).name for one in report.failed] == ["a.onnx", "missing.onnx"]
    assert all(one.failure and one.output is None for one in report.failed)
    assert written(tmp_path / "out") == ["inner/m.onnx", "m.onnx"]
    with pytest.raises(ModelError, match=r"2 of 4 models failed: .*a\.onnx"):
        report.check()
    assert "2 of 4 models written" in str(report)
    assert str(report.failed[0].failure) in str(report)
    assert str(report.failed[0].failure) in report.markdown()


def test_a_missed_gate_keeps_its_report(models: Path, tmp_path: Path) -> None:
    report = onnxcomp.optimize_many([models / "m.onnx"], tmp_path / "out", budget=onnxcomp.Budget(max_size=10))
    (one,) = report.models
    assert one.exit_code == 1
    assert one.report is not None
    assert one.report["missed"] == one.failure
    assert written(tmp_path / "out") == []
    with pytest.raises(GateFailed):
        report.check()


def test_a_bug_of_ours_does_not_stop_the_others(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxcomp.api import many

    def broken(model: Path, **settings: object) -> object:
        if model.parent == models:
            raise ZeroDivisionError("nothing left")
        return onnxcomp.optimize(model, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(many, "optimize", broken)
    report = onnxcomp.optimize_many([models], tmp_path / "out")
    assert [one.exit_code for one in report.models] == [0, 70]
    assert "ZeroDivisionError: nothing left" in str(report)
    assert "Traceback" in str(report)
    with pytest.raises(onnxcomp.OnnxCompError) as caught:
        report.check()
    assert caught.value.exit_code == 70


@pytest.mark.parametrize(
    ("codes", "kind"),
    [((1, 2), UsageError), ((2, 1), UsageError), ((4, 3), EnvironmentUnavailable), ((0, 1), GateFailed)],
)
def test_the_largest_code_counts(codes: tuple[int, ...], kind: type[onnxcomp.OnnxCompError]) -> None:
    models = tuple(ModelResult(f"{code}.onnx", code, f"failed with {code}" if code else None) for code in codes)
    report = OptimizeManyReport(models, "out", 1.0, {}, {}, "")
    with pytest.raises(kind) as caught:
        report.check()
    assert caught.value.exit_code == max(codes)


def test_two_of_one_place_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would both be written to") as caught:
        onnxcomp.optimize_many([models / "inner", models / "m.onnx"], tmp_path / "out")
    assert "the folder that holds both" in str(caught.value.hint)
    with pytest.raises(UsageError, match="would both be written to") as caught:
        onnxcomp.optimize_many([models, models / "m.onnx"], tmp_path / "out")
    assert caught.value.hint == "name it once"
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_keep_what_tells_them_apart(models: Path, tmp_path: Path) -> None:
    report = onnxcomp.optimize_many([models / "m.onnx", models / "inner" / "m.onnx"], tmp_path / "out")
    assert report.exit_code == 0
    assert written(tmp_path / "out") == ["inner/m.onnx", "m.onnx"]


def test_what_is_there_is_kept(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "inner").mkdir(parents=True)
    (out / "inner" / "m.onnx").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        onnxcomp.optimize_many([models], out)
    assert written(out) == ["inner/m.onnx"]
    assert (out / "inner" / "m.onnx").read_bytes() == b"old"
    assert onnxcomp.optimize_many([models], out, overwrite=True).exit_code == 0
    assert load(out / "inner" / "m.onnx")


def test_inputs_are_never_written(models: Path) -> None:
    before = (models / "m.onnx").read_bytes()
    with pytest.raises(OutputError, match="the input itself"):
        onnxcomp.optimize_many([models / "m.onnx"], models, overwrite=True)
    assert (models / "m.onnx").read_bytes() == before


def test_results_inside_the_folder_are_no_models(models: Path) -> None:
    for _ in range(2):
        report = onnxcomp.optimize_many([models], models / "small", overwrite=True)
        assert len(report.models) == 2
    assert written(models / "small") == ["inner/m.onnx", "m.onnx"]


def test_fronts_and_states_are_folders_of_their_own(models: Path, tmp_path: Path) -> None:
    front, state = tmp_path / "front", tmp_path / "state"
    report = onnxcomp.optimize_many([models], tmp_path / "out", pareto=front, work_dir=state)
    assert report.exit_code == 0
    assert (state / "inner" / "m" / "run.json").is_file()
    assert (state / "m" / "run.json").is_file()
    assert (front / "inner" / "m").is_dir()
    again = onnxcomp.optimize_many([models], tmp_path / "out", overwrite=True, work_dir=state, pareto=front)
    assert again.models[0].report is not None
    assert any("known from an earlier start" in note for note in again.models[0].report["notes"])


def test_no_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.onnx file in this folder"):
        onnxcomp.optimize_many([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="there are no models"):
        onnxcomp.optimize_many([], tmp_path / "out")
    with pytest.raises(UsageError, match="must be a list"):
        onnxcomp.optimize_many(str(tmp_path), tmp_path / "out")


def test_a_folder_that_is_a_file(models: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "inner").write_bytes(b"")
    with pytest.raises(OutputError, match="is no folder"):
        onnxcomp.optimize_many([models], tmp_path / "out")


def test_each_model_can_have_data_of_its_own(models: Path, tmp_path: Path) -> None:
    for count, folder in ((3, models), (5, models / "inner")):
        np.savez(folder / "m.rows.npz", x=np.ones((count, 8), np.float32))
    report = onnxcomp.optimize_many([models], tmp_path / "out", eval="{folder}/{name}.rows.npz")
    assert report.exit_code == 0
    evaluations = [one.report["settings"]["evaluation"] for one in report.models if one.report]
    assert [f"{count} " in text for text, count in zip(evaluations, (5, 3), strict=True)] == [True, True], evaluations
