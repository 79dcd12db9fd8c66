"""The action for GitHub and the Dockerfile: their steps are run, or compared with what they need."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

from onnxcomp.cli.app import build_app
from onnxcomp.cli.configuration import read_configuration
from onnxcomp.cli.signature import commands

ROOT = Path(__file__).parent.parent
SOURCES = ("onnxcomp", "passes", "pyproject.toml", "README.md", "LICENSE")
OWN_INPUTS = {"model", "options", "python", "working-directory"}


class Step(NamedTuple):
    """A step of the action: its script, and the inputs that its variables are set from."""

    script: str
    inputs: dict[str, str]


def read_inputs() -> dict[str, str]:
    """Return the defaults of the action's inputs; where there is none, whether it is required."""
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^inputs:\n(.*?)^runs:", text, flags=re.M | re.S)
    return {
        name: default.strip('"')
        for name, default in re.findall(r"^  ([\w-]+):\n(?:    .*\n)*?    (?:default|required): (.*)\n", block, re.M)
    }


def read_steps() -> list[Step]:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    steps = []
    for step in text.split("\n    - name: ")[1:]:
        (script,) = re.findall(r"^      run: \|\n((?:        .*\n|\n)+)", f"{step}\n", flags=re.M)
        (block,) = re.findall(r"^      env:\n((?:        .*\n)+)", step, flags=re.M)
        variables = re.findall(r"^        (\w+): \$\{\{ inputs\.([\w-]+) \}\}$", block, flags=re.M)
        assert len(variables) == len(block.splitlines())
        assert "shell: bash\n" in step
        steps.append(Step(re.sub(r"^        ", "", script, flags=re.M), dict(variables)))
    return steps


class Runner:
    """Runs steps as the runner of GitHub Actions does, in a folder of a job of its own."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self.workspace = folder / "workspace"
        self.summary = folder / "summary.md"
        for made in (self.temporary, self.workspace):
            made.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(source),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            # No network here: what onnxcomp needs, and builds with, is taken from where the tests run
            "PYTHONPATH": sysconfig.get_paths()["purelib"],
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_IGNORE_INSTALLED": "1",
        }

    def run(self, step: Step, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
        inputs = read_inputs() | given
        script = self.temporary / "step.sh"
        script.write_text(step.script, encoding="utf-8")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            env=self.environment | {variable: inputs[name] for variable, name in step.inputs.items()},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, sample_models: Path) -> Runner:
    """A job in which the action is installed, from a copy of the sources: the build leaves files beside them."""
    source = tmp_path_factory.mktemp("action")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    made = Runner(tmp_path_factory.mktemp("job"), source)
    install, _ = read_steps()
    done = made.run(install, {"python": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(sample_models / "lenet5" / "model.onnx", made.workspace / "model.onnx")
    return made


@pytest.fixture
def check() -> Step:
    _, found = read_steps()
    return found


def test_each_input_is_an_option_of_the_command() -> None:
    (command,) = (command for command in commands(build_app()) if command.name == "check")
    options = {parameter.key for parameter in command.parameters if parameter.key}
    inputs = read_inputs()
    assert set(inputs) - OWN_INPUTS <= options
    assert {"baseline", "eval", "max-size", "max-latency-ratio", "against", "junit"} <= set(inputs)
    _, step = read_steps()
    assert set(step.inputs.values()) == set(inputs) - {"python", "working-directory"}
    (loop,) = re.findall(r"for option in (.*?); do", step.script, flags=re.S)
    assert set(loop.replace("\\\n", " ").split()) == set(inputs) - OWN_INPUTS


def test_no_input_is_part_of_a_script() -> None:
    assert [step for step in read_steps() if "${{" in step.script] == []


def test_it_is_installed_from_the_action_itself(runner: Runner) -> None:
    installed = list((runner.temporary / "onnxcomp").glob("lib/*/site-packages/onnxcomp/__init__.py"))
    assert len(installed) == 1


def test_a_model_inside_its_budget(runner: Runner, check: Step) -> None:
    given = {
        "model": "model.onnx",
        "baseline": "model.onnx",
        "max-size": "5MB",
        "min-agreement": "1",
        "junit": "gates.xml",
        "options": "--strict\n\n--seed=3\n",
    }
    done = runner.run(check, given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED: 2 of 2 gates passed" in done.stdout
    assert "synthetic (seed 3)" in done.stdout
    assert "<testsuites" in (runner.workspace / "gates.xml").read_text(encoding="utf-8")
    assert "### onnxcomp check: passed" in runner.summary.read_text(encoding="utf-8")


def test_a_model_over_its_budget_fails_the_step(runner: Runner, check: Step) -> None:
    done = runner.run(check, {"model": "model.onnx", "max-size": "1kB"})
    assert done.returncode == 1
    assert "::error title=onnxcomp check%3A max-size failed::model.onnx" in done.stderr
    assert "### onnxcomp check: FAILED" in runner.summary.read_text(encoding="utf-8")


def test_options_may_come_from_the_file_of_the_project(runner: Runner, check: Step) -> None:
    configuration = runner.workspace / "onnxcomp.toml"
    configuration.write_text('[check]\nmax-size = "1kB"\n', encoding="utf-8")
    try:
        assert runner.run(check, {"model": "model.onnx"}).returncode == 1
        assert runner.run(check, {"model": "model.onnx", "max-size": "5MB"}).returncode == 0
    finally:
        configuration.unlink()


@pytest.mark.parametrize("text", ["$(touch made)", "`touch made`", '"; touch made; "', "a b\ntouch made", "--help"])
@pytest.mark.parametrize("name", ["model", "baseline", "max-size", "report"])
def test_inputs_are_never_commands(runner: Runner, check: Step, name: str, text: str) -> None:
    done = runner.run(check, {"model": "model.onnx", "max-size": "5MB", name: text})
    assert done.returncode == 2, done.stdout
    assert "error: " in done.stderr
    assert not (runner.workspace / "made").exists()


def test_the_page_shows_inputs_and_options_that_there_are(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.M | re.S)
    (block,) = re.findall(r"uses: \S*onnxcomp\S*\n        with:\n((?:          .*\n)+)", workflow)
    named = re.findall(r"^          ([\w-]+):", block, flags=re.M)
    assert "model" in named
    assert set(named) <= set(read_inputs())
    (table,) = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.M | re.S)
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    found = read_configuration(tmp_path, commands(build_app()))
    assert found is not None
    assert found.values["check"]["max_latency_ratio"] == 0.8


def test_the_dockerfile_copies_what_an_installation_is_built_from() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, flags=re.M) for name in line.split()}
    assert copied == set(SOURCES)
    kept = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.M)
    assert set(kept) == copied
    assert "has not been built" in text
