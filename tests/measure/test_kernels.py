"""Profiles by node: what onnxruntime tells of a real model, and of one on a device, whose events are made up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp import runtime
from onnxcomp.measure import Fallback, NodeTime, fallback, node_profile, operator_times

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def event(name: str, op_type: str, provider: str, microseconds: int) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": microseconds,
        "args": {"op_name": op_type, "provider": provider},
    }


def test_nodes_of_a_device_and_what_fell_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def profile(*_: object, **settings: Any) -> list[dict[str, Any]]:
        asked.append(settings["provider"])
        once = [
            event("a", "Conv", CUDA, 60),
            event("b", "NonZero", CPU, 10),
            event("c", "Conv", CUDA, 30),
            event("d", "TopK", CPU, 10),
            event("l", "Loop", CPU, 1000),
        ]
        return [*once, *once, event("b", "NonZero", CPU, 10), event("b", "NonZero", CPU, 10)]

    monkeypatch.setattr(runtime, "profile", profile)
    nodes = node_profile(b"", {}, runs=2, provider="cuda")
    assert asked == ["cuda"]
    assert [(node.name, node.op_type, node.provider) for node in nodes] == [
        ("a", "Conv", CUDA),
        ("c", "Conv", CUDA),
        ("b", "NonZero", CPU),
        ("d", "TopK", CPU),
    ]
    assert [node.seconds for node in nodes] == pytest.approx([60e-6, 30e-6, 20e-6, 10e-6])
    assert [(one.op_type, one.nodes) for one in operator_times(nodes)] == [("Conv", 2), ("NonZero", 1), ("TopK", 1)]
    fallen = fallback(nodes, "cuda")
    assert fallen == Fallback(2, 0.5, pytest.approx(30 / 120), ("NonZero", "TopK"))
    assert fallback(nodes, "cpu") is None
    assert fallback([], "cuda") is None
    assert fallback([NodeTime("a", "Conv", CUDA, 1.0)], "cuda") == Fallback(0, 0.0, 0.0, ())


def test_nodes_of_a_real_run(parse: Callable[..., onnx.ModelProto]) -> None:
    text = "g (float[64, 64] x) => (float[64, 64] y) { [product] a = MatMul(x, w) [end] y = Erf(a) }"
    model = parse(text, {"w": np.ones((64, 64))}).SerializeToString()
    nodes = node_profile(model, {"x": np.ones((64, 64), np.float32)}, runs=3)
    assert {(node.name, node.op_type, node.provider) for node in nodes} == {
        ("product", "MatMul", CPU),
        ("end", "Erf", CPU),
    }
    assert all(node.seconds > 0 for node in nodes)
