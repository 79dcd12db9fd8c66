"""What pruning gives, on a small zoo, with a stand-in for the rival."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pruning_rival import RIVAL, Rival

from onnxcomp.errors import PassError

SAMPLES = Path(__file__).parents[2] / "sample_models"
ONNXSIM = """
import copy
import onnx

def simplify(model):
    return model, True

def apply_structured_pruning(model, sparsity):
    if sparsity > 0.8:
        raise ValueError("too much")
    return model

def apply_attention_head_pruning(model, sparsity):
    return copy.deepcopy(model)

def apply_pruning_finetune(original, pruned, calibration_data):
    assert set(calibration_data[0]) == {"image"}
    return pruned
"""


@pytest.fixture
def rival(tmp_path: Path) -> Path:
    """This Python, with a module of the rival's name that removes nothing."""
    (tmp_path / "onnxsim.py").write_text(ONNXSIM, encoding="utf-8")
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return path


def test_a_model_is_measured_at_each_share(
    zoo: Path, run_tool: Callable[..., Any], tmp_path: Path, rival: Path
) -> None:
    files = tmp_path / "p.json", tmp_path / "p.md"
    done = run_tool(
        "pruning_bench", zoo, "--shares", 0.5, "--rival", rival, "--seconds", 0.5, "--samples", 8, "--json", files[0],
        "--markdown", files[1], "--batch", 3,
    )  # fmt: skip
    assert done.returncode == 1  # of the model that is none
    found = {row["name"]: row for row in json.loads(files[0].read_text(encoding="utf-8"))["models"]}
    assert "ModelError" in found["broken"]["error"]
    row = found["resnet8"]
    assert row["original"] > 0.9
    assert row["rows"] == 3
    (at,) = row["shares"]
    assert at["target"] == pytest.approx(1 - 0.5 * row["prunable"])
    contenders = at["contenders"]
    assert set(contenders) == {"sliced", "+ bias", "+ fit", "OBS + fit"}
    assert contenders["+ fit"]["score"] > contenders["sliced"]["score"]
    for name in contenders:
        assert contenders[name]["macs"] < at["target"] + 1e-6
    assert contenders["OBS + fit"]["latency"]["ratio"] > 0
    assert contenders["sliced"]["latency"] is None
    assert at["errors"] == dict.fromkeys(("onnxsim", "onnxsim, tuned"), "onnxsim removes nothing")
    assert "too much" in done.stderr
    assert files[1].read_text(encoding="utf-8").count("| resnet8 | 50%") == 1


def test_wrong_usage(zoo: Path, run_tool: Callable[..., Any]) -> None:
    assert run_tool("pruning_bench").returncode == 2
    assert run_tool("pruning_bench", zoo, "--only", "nobody").returncode == 2
    assert run_tool("pruning_bench", zoo, "--batch", 0).returncode == 2


SLICER = """
import json, pathlib, shutil, sys

job = json.loads(pathlib.Path(sys.argv[2]).read_text())
with open(job["output"] + "/log", "a") as log:
    print(job["form"], job["sparsity"], file=log)
if job["sparsity"] <= 0.7:
    shutil.copy(job["model"], f"{job['output']}/{job['form']}.{job['sparsity']:g}.onnx")
"""


@pytest.fixture
def slicer(tmp_path: Path) -> Callable[..., Rival]:
    """Make a rival that slices nothing and refuses sparsities beyond 0.7; its models cost what is said."""
    (tmp_path / "slicer.py").write_text(SLICER, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{tmp_path}/slicer.py" "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    source = SAMPLES / "lenet_300_100" / "model.onnx"

    def rival(costs: list[float], seconds: float = 100) -> Rival:
        return Rival(
            str(python), str(source), tmp_path, samples=None, share=lambda _model: costs.pop(0), seconds=seconds
        )

    return rival


def test_a_rival_makes_only_the_sparsities_that_tell(slicer: Callable[..., Rival], tmp_path: Path) -> None:
    rival = slicer([0.6, 0.4, 0.52])
    rival.model(RIVAL, 0.5)
    rival.model(RIVAL, 0.5)
    made = [line.split()[1] for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert made == ["0.5", "0.75", "0.6", "0.55"]


def test_a_rival_whose_time_is_over_is_not_run(slicer: Callable[..., Rival], tmp_path: Path) -> None:
    with pytest.raises(PassError, match="stopped after 0 s"):
        slicer([], seconds=0).model(RIVAL, 0.5)
    assert not (tmp_path / "log").exists()
