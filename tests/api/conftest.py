"""Fixtures for the verbs: a sample model with 100 images of data, made-up times so that every machine decides alike."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onnxcomp import runtime
from onnxcomp.api import benchmark, devices
from onnxcomp.measure import Comparison, Memory, NodeTime, Ratio, Timing, kernels
from onnxcomp.search import race

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make up the time of everything that is timed, as a share of the baseline's; each contender still runs once."""

    def pretend(ratio: float) -> None:
        def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
            for run in contenders.values():
                run()
            seconds = {name: 0.001 * (1 if name == baseline else ratio) for name in contenders}
            timings = [Timing(name, s, 0.1, 0.1, 10, s) for name, s in seconds.items()]
            found = {name: Ratio(ratio, ratio * 0.999, ratio * 1.001) for name in contenders if name != baseline}
            return Comparison(tuple(timings), found, rounds=10, seconds=9.0, settled=True)

        monkeypatch.setattr(race, "interleave", interleave)

    pretend(0.5)
    return pretend


@pytest.fixture
def dense(sample_models: Path) -> Path:
    """A model of matrix products alone."""
    return sample_models / "lenet_300_100" / "model.onnx"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[NodeTime]:
    """Let the CPU stand in for a GPU; the nodes that its profile shows can be set."""
    nodes = [NodeTime("a", "Neg", CUDA, 3e-3), NodeTime("b", "Exp", CPU, 1e-3)]
    monkeypatch.setitem(runtime._PROVIDERS, "cuda", (CPU,))
    monkeypatch.setitem(runtime._DEVICES, "cuda", "cpu")
    monkeypatch.setattr(runtime._onnxruntime(), "preload_dlls", lambda: None)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_, **__: Memory(3_000_000, 1_000_000, 5_000_000))
    for module in (benchmark, devices, kernels):
        monkeypatch.setattr(module, "node_profile", lambda *_, **__: nodes)
    return nodes


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program called nvidia-smi first that prints a text, and keeps what it was asked."""

    def make(prints: str) -> Path:
        asked, program = tmp_path / "asked", tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho \"$@\" > {asked}\nprintf '{prints}'\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return asked

    return make
