"""The tools are scripts in a folder, whose modules import each other by bare name; and a small zoo to run them on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"

sys.path.insert(0, str(ROOT / "tools"))

METRIC = """
import numpy as np

def score(outputs, labels):
    return float(np.mean(np.concatenate([o["logits"].argmax(1) for o in outputs]) == np.concatenate(labels)))
"""


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders: a trained model with a few samples, and one whose model is not ONNX."""
    zoo = tmp_path_factory.mktemp("zoo")
    for name in ("resnet8", "broken"):
        (zoo / name).mkdir()
    (zoo / ".cache").mkdir()
    (zoo / "broken" / "model.onnx").write_bytes(b"no model")
    folder = zoo / "resnet8"
    shutil.copy(SAMPLES / "resnet8" / "model.onnx", folder)
    (folder / "card.json").write_text('{"task": "clothes"}', encoding="utf-8")
    (folder / "metric.py").write_text(METRIC, encoding="utf-8")
    for name, rows in (("calibration", 16), ("eval", 100)):
        with np.load(SAMPLES / "fashion_mnist" / f"{name}.npz") as data:
            np.savez(folder / f"{name}.npz", **{key: data[key][:rows] for key in data.files})
    return zoo


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a tool by name, as a user does."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "tools" / f"{name}.py", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)

    return run
