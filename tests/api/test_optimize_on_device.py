"""`optimize` for a GPU that is at hand, through a layer that needs none; and on a real one, where there is one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import runtime
from onnxcomp.api.planning import plan
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import EnvironmentUnavailable, ModelError, UsageError
from onnxcomp.measure import NodeTime
from onnxcomp.model import open_session
from onnxcomp.runtime import Session
from onnxcomp.search import prove, race

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TEXT = """g (float[N, 64] x) => (float[N, 32] y) { a = MatMul(x, v)  b = Relu(a)  y = Gemm(b, w, c) }"""
HALVES = ["float16", "float16, int8 products", "float16, int4 products"]
without_cuda = pytest.mark.skipif(
    CUDA in runtime._onnxruntime().get_available_providers(), reason="the CUDA provider is here"
)


@pytest.fixture
def model(parse: Callable[..., onnx.ModelProto], tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {"v": rng.normal(size=(64, 96)) / 8, "w": rng.normal(size=(96, 32)) / 10, "c": np.ones(32)}
    path = tmp_path / "products.onnx"
    onnx.save(parse(TEXT, weights), path)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """List the providers of the sessions that models are timed and judged in."""
    found: dict[str, list[str]] = {"timed": [], "judged": []}

    def listing(make: Callable[..., Session], name: str) -> Callable[..., Session]:
        def opened(source: Any, *, provider: runtime.Provider = "cpu", **settings: Any) -> Session:
            found[name].append(provider)
            return make(source, provider=provider, **settings)

        return opened

    monkeypatch.setattr(race, "open_session", listing(open_session, "timed"))
    monkeypatch.setattr(race, "Session", listing(Session, "timed"))
    monkeypatch.setattr(prove, "open_session", listing(open_session, "judged"))
    return found


def test_candidates_are_timed_and_judged_on_the_device(
    model: Path,
    device: list[NodeTime],
    times: Any,
    asked: dict[str, list[str]],
    smi: Callable[[str], Path],
) -> None:
    smi("Tesla T1000\\n")
    result = onnxcomp.optimize(model, target="cuda")
    assert set(asked["timed"]) == set(asked["judged"]) == {"cuda"}
    found = {one.name: one for one in result.report.outcome.candidates}
    assert set(HALVES) <= set(found)
    assert found["float16"].size > found["float16, int8 products"].size > found["float16, int4 products"].size
    assert result.report.outcome.winner in HALVES
    assert result.report.outcome.latency is not None
    assert result.report.settings.unmeasured is None
    assert result.report.machine["device"] == "Tesla T1000"
    for text in (str(result.report), result.report.markdown(), result.report.html()):
        assert "times and answers are those of the cuda provider: Tesla T1000" in text
        assert "the original: 1 node ran on the CPU (50.0 % of the nodes, 25.0 % of their time): Exp" in text
    assert result.report.anatomy is not None
    assert result.report.anatomy.operators == ()  # a profile of the CPU would say nothing of the device


def test_blocks_of_weights_are_read_beside_float16(model: Path, device: list[NodeTime], times: Any) -> None:
    result = onnxcomp.optimize(model, target="cuda", budget=onnxcomp.Budget(max_drop=0.05, min_sqnr=30.0))
    assert result.report.outcome.winner == "float16, int8 products"
    products = [node for node in result.model.graph if node.op_type == "MatMulNBits"]
    assert len(products) == 2
    for node in products:
        scales = node.inputs[2]
        assert scales is not None
        assert scales.const_value is not None
        assert scales.const_value.dtype.name == "FLOAT16"


def test_times_of_the_cpu_stay_those_of_the_cpu(model: Path, times: Any, asked: dict[str, list[str]]) -> None:
    report = onnxcomp.optimize(model).report
    assert set(asked["timed"]) == set(asked["judged"]) == {"cpu"}
    assert "device" not in report.machine
    assert not set(HALVES) & {one.name for one in report.outcome.candidates}


def test_what_the_device_does_not_run_is_no_candidate(
    model: Path, device: list[NodeTime], times: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choosy(made: Any, **settings: Any) -> Session:
        if any(node.op_type == "MatMulNBits" for node in made.graph):
            raise ModelError("no kernel for that")
        return open_session(made, **settings)

    monkeypatch.setattr(race, "open_session", choosy)
    outcome = onnxcomp.optimize(model, target="cuda").report.outcome
    assert outcome.winner == "float16"
    rejected = {one.name: one.rejected for one in outcome.candidates}
    assert rejected["float16, int8 products"] == rejected["float16, int4 products"] == "no kernel for that"


def test_a_model_that_the_cpu_would_run_is_refused(
    model: Path, device: list[NodeTime], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    device[:] = [NodeTime("a", "MatMul", CPU, 1e-3)]
    with pytest.raises(EnvironmentUnavailable, match="cuda runs no node of the model"):
        onnxcomp.optimize(model, target="cuda")
    output = tmp_path / "out.onnx"
    assert run(build_app(), ["optimize", str(model), "--target", "cuda", "-o", str(output)]) == 4
    assert "its times would be the CPU's" in capfd.readouterr().err
    assert not output.exists()


def test_other_processes_have_no_device(model: Path, device: list[NodeTime]) -> None:
    with pytest.raises(UsageError, match="judged on its provider here") as caught:
        onnxcomp.optimize(model, target="cuda", jobs=2)
    assert "--jobs" in str(caught.value.hint)


@without_cuda
def test_without_the_provider_nothing_is_timed(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=f"latency on cuda can't be measured: .* no {CUDA}") as caught:
        onnxcomp.optimize(model, target="cuda")
    assert "--bundle" in str(caught.value.hint)
    assert "onnxcomp[gpu]" in str(caught.value.hint)
    assert run(build_app(), ["optimize", str(model), "--target", "cuda", "--dry-run"]) == 2
    assert "--bundle" in capfd.readouterr().err
    planned = plan(model, target="cuda", goal="size")
    assert str(planned.settings.unmeasured).startswith("the installed onnxruntime has no CUDA")
    assert set(HALVES) <= {one.name for one in planned.candidates}


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_times_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runtime._onnxruntime()
    monkeypatch.setattr(real, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(real, "preload_dlls", lambda: None)
    with pytest.raises(UsageError, match=f"can't be measured: onnxruntime could not start its {CUDA}"):
        onnxcomp.optimize(model, target="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(CUDA not in runtime._onnxruntime().get_available_providers(), reason="no CUDA provider is here")
def test_a_real_device(dense: Path) -> None:
    report = onnxcomp.optimize(dense, target="cuda").report
    assert report.settings.unmeasured is None
    assert report.machine["device"]
    assert report.outcome.original_seconds is not None
    found = {one.name: one for one in report.outcome.candidates}
    assert all(found[name].latency is not None for name in HALVES)  # whichever is faster: all run there
    fallen = [note for note in report.notes if note.startswith("the original: ")]
    assert len(fallen) == 1
