"""What the documents show is executed: the pass of CONTRIBUTING.md, the recipe and the Python of README.md."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run

pytestmark = pytest.mark.untraced

ROOT = Path(__file__).parent.parent
RESNET = ROOT / "sample_models" / "resnet8" / "model.onnx"
DATA = ROOT / "sample_models" / "fashion_mnist"
DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md"))


def _blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def _cut(folder: Path, **rows: int) -> None:
    """Write the first rows of the sample data."""
    for name, number in rows.items():
        with np.load(DATA / ("calibration.npz" if name == "calib" else "eval.npz")) as data:
            np.savez(folder / f"{name}.npz", **{key: data[key][:number] for key in data.files})


def test_the_pass_of_the_contributors_guide_passes_its_tests(tmp_path: Path) -> None:
    """Lay the guide's files out as an installed package, its entry point included, and run its test file."""
    code, test = _blocks("CONTRIBUTING.md", "python")
    (entry_points,) = _blocks("CONTRIBUTING.md", "toml")
    ((group, members),) = tomllib.loads(entry_points)["project"]["entry-points"].items()
    package, metadata = tmp_path / "my_passes", tmp_path / "my_passes-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    (package / "merge_relus.py").write_text(code, encoding="utf-8")
    (tmp_path / "test_merge_relus.py").write_text(test, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-passes\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in members.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")

    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_merge_relus.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_pass_of_the_contributors_guide_is_as_short_as_it_says() -> None:
    code, _ = _blocks("CONTRIBUTING.md", "python")
    assert len(code.splitlines()) <= 40


def test_the_recipe_of_the_readme_is_one() -> None:
    (text,) = _blocks("README.md", "toml")
    recipe = onnxcomp.Recipe.from_toml(text)
    assert onnxcomp.Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.slow
def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = _blocks("README.md", "python")
    shutil.copy(RESNET, tmp_path / "model.onnx")
    _cut(tmp_path, calib=64, eval=400)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "before" in capsys.readouterr().out
    assert (tmp_path / "model.opt.onnx").is_file()


def test_the_python_of_the_page_on_pruning_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = _blocks("docs/pruning.md", "python")
    shutil.copy(RESNET, tmp_path / "model.onnx")
    _cut(tmp_path, calib=20, eval=50)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "pruning.md", "exec"), {})
    assert "fewer" in capsys.readouterr().out
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size


@pytest.mark.slow
def test_the_loader_and_the_images_of_the_page_on_data_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    loader, code = _blocks("docs/data.md", "python")
    (tmp_path / "loader.py").write_text(loader, encoding="utf-8")
    shutil.copy(RESNET, tmp_path / "model.onnx")
    _cut(tmp_path, eval=400)
    (tmp_path / "images").mkdir()
    with np.load(DATA / "calibration.npz") as rows:
        for number, pixels in enumerate(rows["image"][:20]):
            image.fromarray(pixels[0]).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(code, "data.md", "exec"), {})
    sys.modules.pop("loader")
    printed = capsys.readouterr().out
    assert "images, 20 images in batches of 1, grey 28x28 (stretch), pixels as they are, NCHW" in printed
    assert "evaluation, 20 runs, top1" in printed
    assert run(build_app(), ["optimize", "model.onnx", "--eval", "loader.py:evaluation", "-o", "other.onnx"]) == 0
    assert "loader.py:evaluation, 20 runs, top1" in capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_links_to_exist(document: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
