"""`bench`: figures of real models; times are made up where a test is about what is said of them."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxcomp
from onnxcomp import runtime
from onnxcomp.api import benchmark
from onnxcomp.cli.app import build_app, run
from onnxcomp.customops import custom_operators
from onnxcomp.errors import DataError, EnvironmentUnavailable, UsageError
from onnxcomp.measure import Comparison, Ratio, Timing, peak_memory
from onnxcomp.measure import loading as loading_module

Parse = Callable[..., onnx.ModelProto]


@pytest.fixture
def models(sample_models: Path) -> tuple[str, str]:
    return str(sample_models / "lenet5" / "model.onnx"), str(sample_models / "resnet8" / "model.onnx")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make up what the interleaved run found out."""

    def set_times(ratio: float, low: float, high: float, *, settled: bool = True) -> None:
        def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
            timings = tuple(Timing(name, 0.001, 0.002, 0.003, 10, 0.001) for name in contenders)
            ratios = {name: Ratio(ratio, low, high) for name in contenders if name != baseline}
            return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=settled)

        monkeypatch.setattr(benchmark, "interleave", interleave)

    set_times(0.5, 0.49, 0.51)
    return set_times


def call(*arguments: str) -> int:
    return run(build_app(), list(arguments))


def test_a_measured_run(models: tuple[str, str]) -> None:
    found = onnxcomp.bench(*models, seconds=0.5, batch=2, profile=True)
    assert [model.model for model in found.models] == list(models)
    assert found.shapes == {"image": (2, 1, 28, 28)}
    assert found.rows == 2
    first, second = found.models
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.low <= second.ratio.ratio <= second.ratio.high
    for model in found.models:
        assert model.size == Path(model.model).stat().st_size
        assert 0 < model.latency.median <= model.latency.p90 <= model.latency.p99
        assert model.throughput == pytest.approx(2 / model.latency.median)
        assert model.load_seconds > 0
        assert model.memory is not None
        assert model.memory.before < model.memory.peak
    convolutions = {op.op_type: op.nodes for op in second.operators}
    assert convolutions["Conv"] == 9
    assert [op.seconds for op in first.operators] == sorted((op.seconds for op in first.operators), reverse=True)


def test_memory_is_that_of_the_model(parse: Parse, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    weights = {"w": np.ones((2000, 10_000), np.float32)}  # 80 MB
    path.write_bytes(
        parse("g (float[1,2000] x) => (float[1,10000] y) { y = MatMul(x, w) }", weights).SerializeToString()
    )
    found = peak_memory(path, {"x": np.ones((1, 2000), np.float32)}, threads=1, provider="cpu")
    assert found.peak - found.before > 80e6


def test_models_in_memory_and_one_file_twice(models: tuple[str, str], times: Callable[..., None]) -> None:
    content = Path(models[0]).read_bytes()
    found = onnxcomp.bench(content, ir.load(models[0]), models[0], models[0])
    assert [model.model for model in found.models] == ["model 1", "model 2", models[0], models[0]]
    assert {model.memory is not None for model in found.models} == {True}


def test_external_data_counts(tmp_path: Path, parse: Parse, times: Callable[..., None]) -> None:
    proto = parse("g (float[1,64] x) => (float[1,64] y) { y = MatMul(x, w) }", {"w": np.ones((64, 64))})
    path = tmp_path / "m.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    (found,) = onnxcomp.bench(path).models
    assert found.size > 64 * 64 * 4


def test_a_model_of_a_newer_format_than_onnxruntime_takes(
    tmp_path: Path, parse: Parse, times: Callable[..., None]
) -> None:
    proto = parse("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    proto.ir_version = onnx.IR_VERSION
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert len(onnxcomp.bench(path).models) == 1


def test_inputs_come_from_the_strictest_model(parse: Parse, times: Callable[..., None]) -> None:
    free = parse("g (float[N,M] x) => (float[N,M] y) { y = Relu(x) }").SerializeToString()
    fixed = parse("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }").SerializeToString()
    assert onnxcomp.bench(free, fixed).shapes == {"x": (2, 3)}
    found = onnxcomp.bench(free, fixed, batch=4)
    assert found.rows == 1
    assert any("batches of 4" in note for note in found.notes)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("g (float[N,3] z) => (float[N,3] y) { y = Relu(z) }", "only model 2 has 'z'"),
        ("g (double[N,3] x) => (double[N,3] y) { y = Relu(x) }", "float64"),
        ("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", r"\['\?', 4\]"),
        ("g (float[N] x) => (float[N] y) { y = Relu(x) }", r"\['\?'\]"),
    ],
)
def test_models_with_other_inputs_are_refused(parse: Parse, other: str, says: str) -> None:
    first = parse("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }").SerializeToString()
    with pytest.raises(UsageError, match=says):
        onnxcomp.bench(first, parse(other).SerializeToString())


@pytest.mark.parametrize(
    ("ratio", "settled", "says"),
    [
        ((0.5, 0.49, 0.51), True, "2.00x faster than the first [1.96, 2.04]"),
        ((2.0, 1.96, 2.04), True, "2.00x slower than the first [1.96, 2.04]"),
        ((0.99, 0.985, 0.995), True, "not proven more than 2 % faster or slower"),
        ((0.9, 0.7, 1.2), False, "not known to 2 %, as was asked for: the machine is too busy"),
        ((0.9, 0.0, float("inf")), False, "not proven more than 2 % faster"),
    ],
)
def test_what_is_said_of_the_times(
    models: tuple[str, str], times: Callable[..., None], ratio: tuple[float, float, float], settled: bool, says: str
) -> None:
    times(*ratio, settled=settled)
    text = onnxcomp.bench(*models).render()
    assert says in text
    assert ("too busy" in text) == (not settled)


def test_the_command(
    models: tuple[str, str], times: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    assert call("bench", *models, "--report", str(report), "--format", "json") == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == json.loads(report.read_text(encoding="utf-8"))
    assert printed["kind"] == "bench"
    assert [model["ratio"] and model["ratio"]["ratio"] for model in printed["models"]] == [None, 0.5]
    assert call("bench", models[0]) == 0
    assert "made-up inputs" in capfd.readouterr().out


ERRORS = {
    "no model": ("", 2, "MODEL"),
    "missing model": ("nowhere.onnx", 2, "nowhere.onnx"),
    "threads": ("{0} --threads 100000", 2, "threads"),
    "batch": ("{0} --batch 0", 2, "batch"),
    "seconds": ("{0} --seconds 0", 2, "seconds"),
    "seconds NaN": ("{0} --seconds nan", 2, "seconds"),
    "half-width": ("{0} --half-width -1", 2, "half-width"),
    "provider unknown": ("{0} --provider abacus", 2, "abacus"),
    "data missing": ("{0} --data nowhere.npz", 2, "nowhere.npz"),
    "report over a model": ("{0} copy.json --report copy.json --overwrite", 2, "input itself"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(
    name: str,
    models: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.json").write_bytes(Path(models[0]).read_bytes())
    arguments, code, says = ERRORS[name]
    assert call("bench", *arguments.format(*models).split()) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["copy.json"]


def test_no_models_and_an_unknown_provider(models: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="no model"):
        onnxcomp.bench()
    with pytest.raises(UsageError, match="abacus"):
        onnxcomp.bench(models[0], provider="abacus")  # type: ignore[arg-type]


def test_inputs_that_can_not_be_made_up(parse: Parse) -> None:
    with pytest.raises(DataError, match="no numeric tensor"):
        onnxcomp.bench(parse("g (string[1] x) => (string[1] y) { y = Identity(x) }").SerializeToString())


class Runtime:
    """Stands in for an onnxruntime with CUDA: on a machine without a GPU it falls back to the CPU."""

    def __init__(self, working: bool) -> None:
        self.working = working
        self.asked: list[str] = []
        self.falls_back = True
        self.SessionOptions = runtime._onnxruntime().SessionOptions

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        print("no stdout for this")

    def InferenceSession(self, _source: object, _options: object, providers: list[str]) -> "Runtime":  # noqa: N802
        self.asked = providers
        print("nor for this")
        return self

    def disable_fallback(self) -> None:
        self.falls_back = False

    def get_providers(self) -> list[str]:
        return self.get_available_providers() if self.working else ["CPUExecutionProvider"]

    def get_outputs(self) -> list[Any]:
        return []


@pytest.mark.parametrize("working", [True, False])
def test_sessions_on_cuda(working: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in = Runtime(working)
    monkeypatch.setattr(runtime, "_onnxruntime", lambda: stand_in)
    if working:
        runtime.Session(b"", provider="cuda")
        assert not stand_in.falls_back
    else:
        with pytest.raises(EnvironmentUnavailable, match="could not start its CUDAExecutionProvider"):
            runtime.Session(b"", provider="cuda")
    assert stand_in.asked == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert capsys.readouterr().out == ""
    with pytest.raises(EnvironmentUnavailable, match="has no TensorrtExecutionProvider"):
        runtime.Session(b"", provider="tensorrt")


def test_a_provider_that_is_not_there(models: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in runtime._onnxruntime().get_available_providers():
        pytest.skip("it is there")
    assert call("bench", models[0], "--provider", "cuda") == 4
    assert "onnxruntime-gpu" in capfd.readouterr().err


def test_memory_that_is_not_known(
    models: tuple[str, str], times: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(-9, "probe", stderr=b"")

    monkeypatch.setattr(loading_module.subprocess, "run", fails)
    found = onnxcomp.bench(models[0])
    assert found.models[0].memory is None
    assert any("ended with -9" in note for note in found.notes)


def test_the_process_that_memory_is_measured_in_loads_the_same_libraries(
    models: tuple[str, str], tmp_path: Path
) -> None:
    library = tmp_path / "text.so"
    library.write_text("no library", encoding="utf-8")
    feed = {"image": np.zeros((1, 1, 28, 28), np.uint8)}
    with custom_operators([library]), pytest.raises(EnvironmentUnavailable, match="is no library of custom operators"):
        peak_memory(Path(models[0]), feed, threads=1, provider="cpu")


def test_a_file_of_the_folder_does_not_stand_in_for_a_module(models: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('wrong pickle')", encoding="utf-8")
    program = (
        "from onnxcomp.measure import peak_memory; import numpy as np, pathlib\n"
        f"feed = {{'image': np.zeros((1, 1, 28, 28), np.uint8)}}\n"
        f"print(peak_memory(pathlib.Path({models[0]!r}), feed, threads=1, provider='cpu').peak)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, check=True)
    assert int(done.stdout) > 0
