"""Options from a file of the project."""

import json
import re
from pathlib import Path

import pytest

from onnxcomp.cli.app import build_app, run
from onnxcomp.cli.configuration import read_configuration
from onnxcomp.cli.signature import commands
from onnxcomp.errors import UsageError

ROOT = Path(__file__).parents[2]
KNOWN = tuple(commands(build_app()))


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def model(sample_models: Path) -> Path:
    return sample_models / "resnet8" / "model.onnx"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top folder of a repository; a folder inside is the current one."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def values(folder: Path) -> dict[str, dict[str, object]]:
    found = read_configuration(folder, KNOWN)
    assert found is not None
    return {name: dict(entries) for name, entries in found.values.items() if entries}


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(
    project: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(project / "onnxcomp.toml", '[inspect]\nformat = "json"\nbatch = 2\n')
    assert call("inspect", model) == 0
    assert json.loads(capfd.readouterr().out)["run_shapes"].startswith("image 2x")
    assert call("inspect", model, "--format", "text", "--batch", 3) == 0
    first, *others = capfd.readouterr().out.splitlines()
    assert first == f" config  {project / 'onnxcomp.toml'}"
    assert any("image 3x" in line for line in others)
    assert call("--no-config", "inspect", model) == 0
    out = capfd.readouterr().out
    assert "image 1x" in out
    assert "config" not in out


def test_the_environment_switches_it_off(
    project: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(project / "onnxcomp.toml", "nonsense = 1")
    monkeypatch.setenv("ONNXCOMP_NO_CONFIG", "1")
    assert call("inspect", model) == 0
    assert "config" not in capfd.readouterr().out


def test_one_table_for_all_and_one_for_a_command(project: Path) -> None:
    write(project / "onnxcomp.toml", "threads = 2\nseed = 1\n[optimize]\nthreads = 1\n")
    found = values(project / "inner")
    assert found["optimize"] == {"threads": 1, "seed": 1}
    assert found["bench"]["threads"] == 2
    assert found["inspect"] == {"seed": 1}
    assert "doctor" not in found


def test_a_file_that_says_nothing_of_a_command_is_not_named(
    project: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(project / "onnxcomp.toml", "[optimize]\nthreads = 1\n")
    assert call("inspect", model) == 0
    assert "config" not in capfd.readouterr().out


def test_the_nearest_file_counts_and_the_repository_is_the_limit(project: Path) -> None:
    write(project / "pyproject.toml", "[tool.onnxcomp.optimize]\nseed = 1\n")
    assert values(project / "inner") == {"optimize": {"seed": 1}}
    write(project / "onnxcomp.toml", "[optimize]\nseed = 2\n")
    assert values(project / "inner") == {"optimize": {"seed": 2}}
    write(project / "inner" / "pyproject.toml", "[project]\nname = 'x'\n")  # says nothing of onnxcomp
    assert values(project / "inner") == {"optimize": {"seed": 2}}
    write(project / "inner" / "pyproject.toml", "[tool.onnxcomp.optimize]\nseed = 3\n")
    assert values(project / "inner") == {"optimize": {"seed": 3}}
    (project / "inner" / "pyproject.toml").unlink()
    (project / "inner" / ".git").mkdir()
    assert read_configuration(project / "inner", KNOWN) is None


def test_paths_are_read_from_the_folder_of_the_file(project: Path) -> None:
    write(project / "metric.py", "")
    text = 'output = "o.onnx"\nmetric = "metric.py:score"\neval = "no.npz"\nreport = ["r.json"]\nmax-size = "1.5MB"\n'
    write(project / "onnxcomp.toml", f"[optimize]\n{text}")
    assert values(project / "inner")["optimize"] == {
        "output": str(project / "o.onnx"),
        "metric": f"{project / 'metric.py'}:score",
        "evaluation": "no.npz",
        "report": [str(project / "r.json")],
        "max_size": "1.5MB",
    }


MISTAKES = {
    "syntax": ("seed = ", "not valid TOML", "--no-config"),
    "unknown option": ("[optimize]\nmax-drp = 1", "'optimize.max-drp'", "'optimize.max-drop'"),
    "unknown command": ("[optimise]\nseed = 1", "'optimise'", "'optimize'"),
    "unknown everywhere": ("zzz = 1", "'zzz'", "--help"),
    "underscores": ("[optimize]\nmax_drop = 1", "'optimize.max_drop'", "'optimize.max-drop'"),
    "an argument": ("[optimize]\nmodel = 'm.onnx'", "'optimize.model' can't be set here", "from the command line"),
    "text for a number": ("[optimize]\nseed = '1'", "optimize.seed must be a whole number, got '1'", "--seed"),
    "fraction for a whole number": ("seed = 1.5", "seed must be a whole number, got 1.5", "--seed"),
    "truth for a number": ("seed = true", "seed must be a whole number, got True", "--seed"),
    "number for truth": ("[optimize]\noverwrite = 1", "optimize.overwrite must be true or false", "--overwrite"),
    "number for a text": ("[optimize]\neval = 1", "optimize.eval must be a text", "--eval"),
    "no such choice": ("[optimize]\ngoal = 'speed'", "one of latency, size, balanced, got 'speed'", "--goal"),
    "too small": ("[optimize]\nbatch = 0", "optimize.batch must be at least 1", "--batch"),
    "no list": ("[optimize]\nreport = 'r.json'", "optimize.report must be a list", "["),
    "no table": ("optimize = 1", "optimize must be a table", "[optimize]"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, project: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, says, hint = MISTAKES[name]
    write(project / "onnxcomp.toml", text)
    assert call("inspect", model) == 2
    out, err = capfd.readouterr()
    error, advice = err.splitlines()
    assert out == ""
    assert str(project / "onnxcomp.toml") in error
    assert says in error
    assert hint in advice


def test_a_file_that_is_no_text(project: Path) -> None:
    (project / "onnxcomp.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"cannot read .*onnxcomp\.toml"):
        read_configuration(project, KNOWN)


def test_a_value_that_only_the_command_can_judge_is_traced_to_the_file(
    project: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(project / "onnxcomp.toml", "[optimize]\nmax-drop = 7\n")
    assert call("optimize", model) == 2
    assert capfd.readouterr().err.splitlines()[-1] == f"note: options were also taken from {project / 'onnxcomp.toml'}"


def test_help_needs_no_file_that_is_right(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(project / "onnxcomp.toml", "nonsense = 1")
    assert call("optimize", "--help") == 0
    assert "--max-drop" in capfd.readouterr().out


def test_the_example_of_the_documentation_is_right(project: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs" / "configuration.md").read_text(), re.M | re.S)
    write(project / "onnxcomp.toml", text)
    assert values(project)["optimize"]["max_drop"] == 0.005
    assert values(project)["inspect"] == {"output_format": "json"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--show-completion", shell) == 0
    assert "_ONNXCOMP_COMPLETE" in capfd.readouterr().out
