"""`doctor` here, and on machines where something is wrong."""

import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from onnxcomp import doctor, runtime
from onnxcomp.api import diagnosis
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import EnvironmentUnavailable, ModelError


def test_this_machine_works() -> None:
    found = doctor()
    assert found.works
    assert found.self_test == ""
    assert found.providers["CPUExecutionProvider"] == ""
    assert found.target in found.render()
    assert found.to_dict()["kind"] == "doctor"


def test_extras_are_those_of_the_project_file() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, (package, _) in diagnosis.EXTRAS.items():
        assert any(line.startswith(package) for line in project["optional-dependencies"][name])
    assert set(project["optional-dependencies"]) - set(diagnosis.EXTRAS) == {
        "cpu",
        "gpu",
        "dev",
        "docs",
        "fast",
        "train",
    }


def _versions(monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    real = diagnosis.version

    def version(package: str) -> str:
        found = changed.get(package.replace("-", "_"))
        if found is None:
            return real(package)
        if not found:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(diagnosis, "version", version)
    monkeypatch.setattr(diagnosis, "requires", lambda _: ["onnx>=1.21", "onnxruntime>=1.23; extra == 'cpu'"])


def test_both_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    _versions(monkeypatch, onnxruntime="1.30.0", onnxruntime_gpu="1.30.0")
    (problem,) = doctor().problems
    assert "over each other" in problem.message
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problem.hint
    assert not problem.fatal


@pytest.mark.parametrize(("package", "found"), [("onnx", "1.9.0"), ("onnx", ""), ("onnxruntime", "1.22.1")])
def test_packages_that_are_too_old_or_missing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], package: str, found: str
) -> None:
    _versions(monkeypatch, **{package: found})
    assert run(build_app(), ["doctor"]) == 4
    out, err = capfd.readouterr()
    assert "does not work here" in out
    assert package in err
    assert "hint: pip install" in err


def test_without_a_runtime(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise EnvironmentUnavailable("onnxruntime is not installed")

    _versions(monkeypatch, onnxruntime="", onnxruntime_gpu="")
    monkeypatch.setattr(runtime, "_onnxruntime", missing)
    runtime.limits.cache_clear()
    assert run(build_app(), ["doctor", "--format", "json"]) == 4
    assert '"works": false' in capfd.readouterr().out


def test_a_runtime_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ModelError("no kernel")

    monkeypatch.setattr(diagnosis, "open_session", broken)
    found = doctor()
    assert not found.works
    assert found.self_test == "ModelError: no kernel"


def test_a_provider_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "providers", lambda: {"CUDAExecutionProvider": "no device"})
    found = doctor()
    assert found.works
    assert [problem.message for problem in found.problems] == ["CUDAExecutionProvider does not work: no device"]


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_can_write_temporary", lambda: False)
    found = doctor()
    assert not found.works
    assert "TMPDIR" in found.problems[0].hint
