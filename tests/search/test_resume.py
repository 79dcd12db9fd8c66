"""A run whose state is kept in a folder: killed with SIGKILL anywhere, the same command comes to the same end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxcomp
from onnxcomp import Budget, OutputError, UsageError
from onnxcomp.model import save
from onnxcomp.pipeline import PassReport
from onnxcomp.search import Memory, Quality, race

HERE = Path(__file__).parent


@pytest.fixture
def order(chain: Callable[..., Any], tmp_path: Path) -> dict[str, Path]:
    """A model of which one layer must stay float, and its samples."""
    planted = chain(3)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 64)).astype(np.float32)
    np.savez(tmp_path / "c.npz", r0=x[:60])
    np.savez(tmp_path / "e.npz", r0=x[60:])
    save(planted.model, tmp_path / "m.onnx")
    return {"model": tmp_path / "m.onnx", "calibration": tmp_path / "c.npz", "eval": tmp_path / "e.npz"}


def start(order: dict[str, Path], folder: Path, output: Path, *, kill_at: int = 0) -> tuple[int, list[str]]:
    words = [sys.executable, HERE / "killed.py", *order.values(), folder, output, str(kill_at)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, list(dict.fromkeys(done.stdout.splitlines()))


def told(report: Path) -> dict[str, Any]:
    """Return what a report says, without the wall-clock times of this very run."""
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    for made in [*found["cleanup"], *(one for c in found["candidates"] for one in c["passes"])]:
        del made["seconds"]
    return {name: found[name] for name in ("winner", "size", "quality", "latency", "candidates", "recipe")}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_anywhere_it_comes_to_the_same_end(order: dict[str, Path], tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.onnx", tmp_path / "o.onnx"
    code, stages = start(order, tmp_path / "other", whole)
    assert code == 0
    assert any("rescue" in stage or "harms" in stage for stage in stages)
    folder = tmp_path / "work"
    before: dict[str, int] = {}
    made = len(list((tmp_path / "other").glob("*-*.json")))
    assert made > 10
    for kill_at in (1, made // 3, made // 2, made - 2):
        code, log = start(order, folder, output, kill_at=kill_at)
        assert code == -signal.SIGKILL
        assert not output.exists()
        kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
        assert before.items() <= kept.items()  # nothing was made twice
        known = {
            stage.removeprefix("model of ").removesuffix(" is known") for stage in log if stage.endswith("is known")
        }
        assert not known & {stage.removeprefix("build ").partition(":")[0] for stage in log}
        before = kept
    code, log = start(order, folder, output)
    assert code == 0
    assert sum(stage.endswith("is known") for stage in log) > 3
    assert output.read_bytes() == whole.read_bytes()
    assert told(tmp_path / "o.json") == told(tmp_path / "whole.json")
    again = tmp_path / "again.onnx"
    state = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, log = start(order, folder, again)
    assert again.read_bytes() == whole.read_bytes()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == state
    assert not any(stage.startswith(("build", "find what harms")) for stage in log)
    assert "known from an earlier start" in " ".join(json.loads((tmp_path / "again.json").read_text())["notes"])


def test_a_folder_of_another_run(order: dict[str, Path], times: Any, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    onnxcomp.optimize(**order, work_dir=folder)
    with pytest.raises(UsageError, match="the options differ") as caught:
        onnxcomp.optimize(**order, work_dir=folder, budget=Budget(max_drop=0.5))
    assert "another --work-dir" in str(caught.value.hint)
    with pytest.raises(UsageError, match="the evaluation samples differ"):
        onnxcomp.optimize(**{**order, "eval": order["calibration"]}, work_dir=folder)
    (folder / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"run\.json can't be read"):
        onnxcomp.optimize(**order, work_dir=folder)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="no run's state"):
        onnxcomp.optimize(**order, work_dir=full)
    with pytest.raises(OutputError):
        onnxcomp.optimize(**order, work_dir=tmp_path / "a" / "b")


def test_times_are_not_taken_again(
    order: dict[str, Path], times: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = onnxcomp.optimize(**order, work_dir=tmp_path / "work")
    monkeypatch.delattr(race, "interleave")
    second = onnxcomp.optimize(**order, work_dir=tmp_path / "work")
    assert second.report.outcome.latency == first.report.outcome.latency
    assert second.report.outcome.seconds > 0


@dataclass(frozen=True)
class Nested:
    """All that a kept value may hold."""

    quality: Quality
    pair: tuple[int, str]
    some: tuple[PassReport, ...]
    maybe: float | None
    none: float | None


def test_a_value_comes_back_as_it_was(tmp_path: Path) -> None:
    value = Nested(
        Quality(None, 0.1, float("inf")), (1, "a"), (PassReport("p", modified=True, counters={"n": 2}),), 0.1, None
    )
    for _ in range(2):
        memory = Memory(tmp_path)
        assert memory.recall("it", lambda: ["kind", "key"], Nested, lambda: value) == value
    assert memory.known == 1
    other = Memory(tmp_path).recall("it", lambda: ["kind", "other"], int, lambda: 7)
    assert other == 7
