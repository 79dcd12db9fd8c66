"""Documents as a reader would follow them: every block in order, in one folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BUDGET = "[optimize]\ntime-budget = 20\n"  # what a longer search would find is no block's matter
ROWS = 500  # labelled samples: the documents name no more
BLOCK = re.compile(r"^```(console|python)(?: (\S+))?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    commands = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join(commands),
        "CI": "1",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def follow(text: str, folder: Path) -> int:
    """Do what the blocks of a document say; return how many there are."""
    shutil.copytree(ROOT / "sample_models", folder / "sample_models")
    data = folder / "sample_models" / "fashion_mnist" / "eval.npz"
    with np.load(data) as rows:
        cut = {name: rows[name][:ROWS] for name in rows.files}
    np.savez(data, **cut)
    (folder / "onnxcomp.toml").write_text(BUDGET, encoding="utf-8")
    blocks = BLOCK.findall(text)
    for language, mark, code in blocks:
        if mark.startswith("file="):
            (folder / mark.removeprefix("file=")).write_text(code, encoding="utf-8")
            continue
        expected = int(mark.removeprefix("exit=") or 0)
        if language == "python":
            (folder / "block.py").write_text(code, encoding="utf-8")
            commands = ["python block.py"]
        else:
            commands = [line.removeprefix("$ ") for line in code.splitlines()]
        for command in commands:
            done = run(command, folder)
            assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    return len(blocks)


@pytest.mark.slow
@pytest.mark.xdist_group("tutorial")
def test_every_block_of_the_tutorial_works_in_order(tmp_path: Path) -> None:
    assert follow((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), tmp_path) >= 10
    assert {"bare.onnx", "small.onnx", "lenet5.onnx", "from_python.onnx"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.xdist_group("tutorial")
def test_what_to_exclude_is_found_and_used(tmp_path: Path) -> None:
    _, _, section = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").partition("## What to exclude\n")
    assert follow(section.partition("\n## ")[0], tmp_path) == 3
    found = json.loads((tmp_path / "sensitivity.json").read_text(encoding="utf-8"))
    assert found["exclude"]
    assert (tmp_path / "resnet8.opt.onnx").stat().st_size < found["original_size"]
