"""`bench` on a device, through a layer that needs none; and on a real one, where there is one."""

import io
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import runtime
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import EnvironmentUnavailable, ModelError
from onnxcomp.measure import NodeTime, probe
from onnxcomp.measure.device import device_memory
from onnxcomp.runtime import Session

Parse = Callable[..., onnx.ModelProto]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TEXT = "g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { y = Neg(x) z = Exp(x) }"
FEED = {"x": np.ones((3, 2), np.float32)}


@pytest.fixture
def content(parse: Parse) -> bytes:
    return parse(TEXT).SerializeToString()


def test_what_is_bound_to_the_memory_of_a_device(content: bytes, device: list[NodeTime]) -> None:
    session = Session(content, provider="cuda")
    once = session.bound(FEED)
    bound: list[Any] = []
    real = session.inference.run_with_iobinding
    session.inference.run_with_iobinding = lambda binding: (bound.append(binding), real(binding))
    once()
    outputs = bound[0].copy_outputs_to_cpu()
    np.testing.assert_array_equal(outputs[0], -FEED["x"])
    np.testing.assert_array_equal(outputs[1], session.run(FEED)["z"])
    with pytest.raises(ModelError, match="onnxruntime failed"):
        session.bound({"x": np.ones((3, 5), np.float32)})()


def test_what_can_not_be_bound_is_run(parse: Parse, content: bytes, device: list[NodeTime]) -> None:
    text = parse("g (string[N] x) => (string[N] y) { y = Identity(x) }").SerializeToString()
    once = Session(text, provider="cuda").bound({"x": np.array(["a", "b"])})
    assert isinstance(once, partial)
    assert list(once()["y"]) == ["a", "b"]  # type: ignore[index]
    assert isinstance(Session(content).bound(FEED), partial)


@pytest.mark.parametrize("copies", [False, True])
def test_a_run_on_a_device(content: bytes, device: list[NodeTime], copies: bool) -> None:
    found = onnxcomp.bench(content, provider="cuda", seconds=0.1, copies=copies)
    fallen = found.models[0].fallback
    assert fallen is not None
    assert (fallen.nodes, fallen.nodes_share, fallen.time_share, fallen.op_types) == (1, 0.5, 0.25, ("Exp",))
    assert found.models[0].nodes == ()  # the profile was not asked for
    text = found.render()
    assert "1 node ran on the CPU (50.0 % of the nodes, 25.0 % of their time): Exp" in text
    assert ("from and to the host included" in text) == copies
    assert ("in the memory of its device" in text) != copies
    assert "GPU 5.0 MB" in text
    assert "ran on the CPU" in found.html()


def test_nothing_fell_back(content: bytes, device: list[NodeTime]) -> None:
    device.pop()
    assert "no node fell back" in onnxcomp.bench(content, provider="cuda", seconds=0.1).render()


def test_the_table_of_nodes(content: bytes, device: list[NodeTime]) -> None:
    device[:] = [
        *(NodeTime(f"n{i}", "Conv", CUDA, 6e-3) for i in range(12)),
        *(NodeTime(f"q{i}", "QuantizeLinear", CUDA, 3e-3) for i in range(2)),
        NodeTime("d", "DequantizeLinear", CPU, 2e-3),
    ]
    report = onnxcomp.bench(content, provider="cuda", seconds=0.1, profile=True)
    text, full = report.render(), report.render(verbose=True)
    assert " not fused: 2 QuantizeLinear and 1 DequantizeLinear, with 10.0 % of the time\n" in text
    assert "5 others (--verbose)" in text
    assert "n11" not in text
    assert "n11" in full
    assert "others (--verbose)" not in full
    assert "n11" in report.html()


def test_a_run_that_would_be_the_cpus_is_refused(
    content: bytes, device: list[NodeTime], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    device[:] = [NodeTime("a", "Neg", CPU, 1e-3)]
    with pytest.raises(EnvironmentUnavailable, match="cuda runs no node of model 1"):
        onnxcomp.bench(content, provider="cuda")
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert run(build_app(), ["bench", str(path), "--provider", "cuda"]) == 4
    assert "Neg" in capfd.readouterr().err


def test_memory_of_a_device(smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = smi("1234\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert device_memory() == 1234 << 20
    assert "--id=3" in asked.read_text(encoding="utf-8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device_memory() == 1234 << 20
    assert "--id=0" in asked.read_text(encoding="utf-8")
    smi("[N/A]\\n")
    assert device_memory() is None


def test_no_device_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_memory() is None


def test_the_process_tells_the_memory_of_the_device(
    content: bytes, device: list[NodeTime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    in_use = iter([100, 350])
    monkeypatch.setattr(probe, "device_memory", lambda: next(in_use))
    for provider, expected in (("cuda", 250), ("cpu", None)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pickle.dumps(FEED))))
        probe.main([str(path), "1", provider, "2"])
        assert json.loads(capsys.readouterr().out)["device"] == expected


@pytest.mark.gpu
@pytest.mark.skipif(CUDA not in runtime._onnxruntime().get_available_providers(), reason="no CUDA provider is here")
def test_a_real_device(sample_models: Path) -> None:
    model = sample_models / "resnet8" / "model.onnx"
    found = onnxcomp.bench(model, model, provider="cuda", seconds=2, profile=True, streams=2)
    for one in found.models:
        assert one.fallback is not None
        assert one.fallback.nodes_share < 1
        assert {node.provider for node in one.nodes} >= {CUDA}
        assert one.memory is not None
        assert one.memory.device is not None
