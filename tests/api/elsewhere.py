"""What tests of bundles share: their script, run by an interpreter to which onnxcomp is not there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

# What the script would import of onnxcomp is not found
PLAIN = """import runpy, sys
sys.modules["onnxcomp"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def measure(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", PLAIN, str(folder / "measure.py"), "--seconds", "0.3", *arguments]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


def change(found: dict[str, Any], where: str, value: Any) -> None:
    *path, last = where.split(".")
    for name in path:
        found = found[int(name) if name.isdigit() else name]  # type: ignore[index]
    found[last] = value
