"""What packing and unpacking takes in memory depends on the largest tensor, not on the model."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks for the largest resident set")
Run = Callable[..., subprocess.CompletedProcess[str]]


def above(done: subprocess.CompletedProcess[str]) -> list[float]:
    """Return the MB that packing and unpacking took."""
    assert done.returncode == 0, done.stderr
    _, *rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["pack", "unpack"]
    return [float(row.split()[3]) for row in rows]


def test_memory_does_not_grow_with_the_model(run_tool: Run) -> None:
    small = above(run_tool("memory_of_storage", "--mb", 30, "--tensor-mb", 10))
    large = above(run_tool("memory_of_storage", "--mb", 120, "--tensor-mb", 10))
    assert max(large) < max(small) + 40  # far less than the 90 MB that the models differ by


def test_wrong_settings_are_refused(run_tool: Run) -> None:
    assert run_tool("memory_of_storage", "--mb", 10, "--tensor-mb", 20).returncode == 2


@pytest.mark.slow
@pytest.mark.skipif("ONNXCOMP_SLOW" not in os.environ, reason="takes minutes and 7 GB of disk: ONNXCOMP_SLOW=1 runs it")
def test_a_model_of_over_2_gb(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools" / "memory_of_storage.py"
    command = [sys.executable, tool, "--mb", "2200", "--tensor-mb", "100", "--work-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert max(above(done)) < 800
