"""`calibrate` and what its statistics are worth: the same models, without another run over the samples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import Budget, DataError, ModelError, Statistics, UsageError
from onnxcomp.model import load, serialized
from onnxcomp.recipe import Recipe, Step
from onnxcomp.thresholds import METHODS

pytestmark = pytest.mark.usefixtures("times")


@pytest.fixture
def images(sample_models: Path, samples: Any) -> Any:
    """Samples that count how often they are read."""
    with np.load(sample_models / "fashion_mnist" / "calibration.npz") as rows:
        return samples([{"image": rows["image"][i : i + 1]} for i in range(8)])


@pytest.fixture
def swish(parse: Callable[..., onnx.ModelProto]) -> bytes:
    """A model of an old opset whose activation is rewritten before it is quantized."""
    rng = np.random.default_rng(0)
    text = (
        "g (float[N, 8, 9, 9] x) => (float[N, 8, 9, 9] y) { a = Conv<pads=[1, 1, 1, 1]>(x, v) "
        "h = HardSigmoid<alpha=0.16666667, beta=0.5>(a)  m = Mul(a, h)  y = Conv<pads=[1, 1, 1, 1]>(m, w) }"
    )
    weights = {name: rng.normal(size=(8, 8, 3, 3)) / 8 for name in "vw"}
    return parse(text, weights, opset=12).SerializeToString()


def test_what_is_measured(resnet: Path, images: Any, tmp_path: Path) -> None:
    before = resnet.read_bytes()
    seen: list[tuple[str, float | None]] = []
    result = onnxcomp.calibrate(resnet, calibration=images, progress=lambda stage, share: seen.append((stage, share)))
    assert resnet.read_bytes() == before
    assert [share for stage, share in seen if stage == "calibrate"].count(1.0) == 1
    report = result.report
    assert report.runs == 8
    assert {"logits"} <= set(report.tensors) == set(result.statistics.histograms)
    document = json.loads(report.to_json())
    assert (document["schema_version"], document["kind"]) == (1, "calibrate")
    assert "logits" in report.render(verbose=True)
    assert "logits" not in report.render()
    result.save(tmp_path / "s.npz")
    assert list(Statistics.load(tmp_path / "s.npz").histograms) == list(report.tensors)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_model_without_another_run(resnet: Path, images: Any, tmp_path: Path, method: str) -> None:
    onnxcomp.calibrate(resnet, calibration=images).save(tmp_path / "s.npz")
    readings = images.readings
    arguments: dict[str, Any] = {"mode": "static", "method": method, "bench": False}
    known = onnxcomp.quantize(resnet, statistics=tmp_path / "s.npz", **arguments)
    assert images.readings == readings
    direct = onnxcomp.quantize(resnet, calibration=images, **arguments)
    assert images.readings > readings
    assert serialized(known.model) == serialized(direct.model)
    assert known.report.calibration == direct.report.calibration == "samples from memory"
    assert known.report.statistics is not None
    assert direct.report.statistics is None
    assert "made-up" in " ".join(known.report.notes)  # what it was judged on


def test_samples_beside_statistics_are_for_judging(resnet: Path, images: Any) -> None:
    statistics = onnxcomp.calibrate(resnet, calibration=images).statistics
    readings = images.readings
    result = onnxcomp.quantize(resnet, mode="static", statistics=statistics, calibration=images, bench=False)
    assert images.readings == readings + 4  # verified; judged: the original, and the result beside it; layers described
    assert result.report.evaluation.startswith("samples from memory")


def test_a_model_that_is_rewritten_before(swish: bytes) -> None:
    statistics = onnxcomp.calibrate(swish, synthetic_calibration=True).statistics
    known = onnxcomp.quantize(swish, mode="static", statistics=statistics, bench=False)
    direct = onnxcomp.quantize(swish, mode="static", synthetic_calibration=True, bench=False)
    assert serialized(known.model) == serialized(direct.model)


def test_optimize_with_statistics_alone(swish: bytes, images: Any, resnet: Path) -> None:
    budget = Budget(min_sqnr=5, min_agreement=0)
    for model in (resnet, swish):
        statistics = onnxcomp.calibrate(model, synthetic_calibration=True).statistics
        outcome = onnxcomp.optimize(model, statistics=statistics, budget=budget).report.outcome
        static = {c.name: c for c in outcome.candidates if c.name.startswith("static")}
        assert len(static) >= 1
        assert not any("lack" in str(c.rejected) for c in static.values())
    assert "static, expanded" in static
    assert outcome.winner is not None


def test_optimize_reads_no_samples_for_ranges(data: dict[str, Path], resnet: Path, images: Any) -> None:
    statistics = onnxcomp.calibrate(resnet, calibration=images).statistics
    readings = images.readings
    recipe = Recipe((Step("quantize-static"),))
    result = onnxcomp.optimize(resnet, statistics=statistics, eval=data["eval"], recipe=recipe)
    assert images.readings == readings
    assert result.report.outcome.winner == "recipe"
    assert result.report.settings.calibration == "samples from memory"


def test_another_model(resnet: Path, dense: Path, images: Any) -> None:
    statistics = onnxcomp.calibrate(dense, calibration=images).statistics
    with pytest.raises(DataError, match="another model"):
        onnxcomp.quantize(resnet, mode="static", statistics=statistics)
    with pytest.raises(DataError, match="another model"):
        onnxcomp.optimize(resnet, statistics=statistics)


def test_arguments_that_make_no_sense(dense: Path, images: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no samples"):
        onnxcomp.calibrate(dense)
    with pytest.raises(UsageError, match="uses no statistics"):
        onnxcomp.quantize(dense, mode="dynamic", statistics=tmp_path / "s.npz")
    with pytest.raises(UsageError, match="int"):
        onnxcomp.quantize(dense, mode="static", statistics=3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"s\.npz"):
        onnxcomp.optimize(dense, statistics=tmp_path / "s.npz")


def test_nan_names_the_tensor(parse: Callable[..., onnx.ModelProto], samples: Any) -> None:
    model = parse("g (float[3] x) => (float[3] y) { t = Log(x)  y = Abs(t) }").SerializeToString()
    data = samples([{"x": np.array([1, 2, value], np.float32)} for value in (3, -1)])
    with pytest.raises(ModelError, match=r"tensor t is not a number \(NaN\) on calibration sample 1"):
        onnxcomp.calibrate(model, calibration=data)


def test_infinite_values_are_told(parse: Callable[..., onnx.ModelProto], samples: Any) -> None:
    model = parse("g (float[3] x) => (float[3] y) { t = Log(x)  y = Exp(t) }").SerializeToString()
    report = onnxcomp.calibrate(model, calibration=samples([{"x": np.array([1, 2, 0], np.float32)}])).report
    assert report.infinite == ("t",)
    assert "infinite" in report.render()
    assert load(model)
