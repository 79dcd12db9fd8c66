"""The tutorial as a reader would follow it: every block in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|python)(?: (\S+))?\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    commands = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join(commands),
        "CI": "1",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.xdist_group("tutorial")
def test_every_block_works_in_order(tmp_path: Path) -> None:
    (tmp_path / "sample_models").symlink_to(ROOT / "sample_models")
    assert len(BLOCKS) >= 10
    for language, mark, text in BLOCKS:
        if mark.startswith("file="):
            (tmp_path / mark.removeprefix("file=")).write_text(text, encoding="utf-8")
            continue
        expected = int(mark.removeprefix("exit=") or 0)
        if language == "python":
            (tmp_path / "block.py").write_text(text, encoding="utf-8")
            commands = ["python block.py"]
        else:
            commands = [line.removeprefix("$ ") for line in text.splitlines()]
        for command in commands:
            done = run(command, tmp_path)
            assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    assert {"bare.onnx", "small.onnx", "lenet5.onnx", "from_python.onnx"} <= {path.name for path in tmp_path.iterdir()}
