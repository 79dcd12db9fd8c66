"""What is shipped: the wheel and the sdist, and what importing an installation finds. Builds without the network."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("onnxcomp", "passes", "pyproject.toml", "README.md", "LICENSE")


def _run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command; its output, or a failed test that shows it."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(source: Path, target: Path, kind: str) -> Path:
    _run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", target, source, cwd=target)
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built: a build leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(source, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(source, tmp_path_factory.mktemp("sdist"), "sdist")


def _modules() -> set[str]:
    """Every module of the tree, by its path in an installation."""
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "onnxcomp").rglob("*.py")}
    ours = {name for name in ours if not name.startswith("onnxcomp/passes/")}
    return ours | {f"onnxcomp/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "passes").rglob("*.py")}


def test_the_wheel_holds_every_module_once_and_nothing_else_at_the_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        # The upper half of the external attributes is the file's mode on Unix
        modes = [info.external_attr >> 16 & 0o170000 for info in archive.infolist()]
    assert 0o120000 not in modes  # a symbolic link
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {name for name in names if name.endswith(".py")} == _modules()
    assert {"onnxcomp/py.typed", "onnxcomp/report/html/page.css", "onnxcomp/report/html/page.js"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"onnxcomp", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4
        archive.extractall(tmp_path / "unpacked", **safely)
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert "LICENSE" in {Path(name).name for name in names}
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (tmp_path / "wheel").mkdir()
    again = _build(unpacked, tmp_path / "wheel", "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_an_installed_wheel_has_its_passes_and_no_package_called_passes(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    _run(*pip, "--no-deps", "--no-index", "--target", installed, wheel, cwd=tmp_path)
    program = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(installed)!r})\n"
        "import onnxcomp.passes.cleanup, onnxcomp.registry\n"
        "print(onnxcomp.passes.cleanup.__file__)\n"
        "[onnxcomp.registry.pass_class(name) for name in onnxcomp.registry.names()]\n"
        "print(importlib.util.find_spec('passes'))\n"
    )
    file, passes = _run(sys.executable, "-I", "-c", program, cwd=tmp_path).splitlines()
    assert Path(file) == installed / "onnxcomp" / "passes" / "cleanup" / "__init__.py"
    assert passes == "None"
    assert (installed / "bin" / "onnxcomp").is_file()
    assert not (installed / "passes").exists()


@pytest.fixture
def _installed() -> None:
    """Skip where the tests run on a bare checkout."""
    found = [d for d in distributions(name="onnxcomp") if d.locate_file("").name == "site-packages"]
    if not found:
        pytest.skip("onnxcomp is not installed in this environment")


@pytest.mark.usefixtures("_installed")
def test_this_installation_has_its_passes_and_no_package_called_passes(tmp_path: Path) -> None:
    program = (
        "import importlib.util\n"
        "import onnxcomp.passes.cleanup as cleanup\n"
        "print(cleanup.__name__)\n"
        "print(importlib.util.find_spec('passes'))\n"
    )
    assert _run(sys.executable, "-I", "-c", program, cwd=tmp_path).split() == ["onnxcomp.passes.cleanup", "None"]


@pytest.mark.usefixtures("_installed")
def test_the_command_is_installed(tmp_path: Path) -> None:
    command = shutil.which("onnxcomp", path=str(Path(sys.executable).parent))
    assert command is not None
    assert _run(command, "--version", cwd=tmp_path).startswith("onnxcomp ")


def test_the_folder_of_passes_is_no_package_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import passes"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ImportError: import this package as onnxcomp.passes" in done.stderr
