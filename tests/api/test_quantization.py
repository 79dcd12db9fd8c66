"""`quantize` on sample models: what becomes integer, what is measured, what is refused."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import GateFailed, Gates, MetricError, PassError, QuantizeReport, UsageError
from onnxcomp.api import plan
from onnxcomp.model import load, serialized
from onnxcomp.pipeline import recipe_of
from onnxcomp.recipe import Recipe
from onnxcomp.runtime import Session

pytestmark = pytest.mark.usefixtures("times")


def ops(result: onnxcomp.QuantizeResult) -> Counter[str]:
    return Counter(node.op_type for node in result.model.graph)


def test_static(data: dict[str, Path], resnet: Path, tmp_path: Path) -> None:
    before = resnet.read_bytes()
    result = onnxcomp.quantize(resnet, mode="static", **data)
    path = tmp_path / "out.onnx"
    result.save(path)
    report = result.report
    assert resnet.read_bytes() == before
    assert [file.name for file in resnet.parent.iterdir()] == ["model.onnx"]
    assert path.stat().st_size == report.size < 0.4 * report.original_size
    assert report.original_size == len(before)
    assert ops(result)["QuantizeLinear"] > 5
    assert "BatchNormalization" not in ops(result)  # it was cleaned up first
    assert report.passes[-1].counters["int8 anchors"] == 10
    assert report.latency is not None
    assert report.latency.ratio == 0.5
    assert report.metric == "top1"
    assert report.missed == ()
    assert report.quality.agreement > 0.95
    assert 20 < report.quality.sqnr < 60

    with np.load(data["eval"]) as rows:
        scores = Session(path).run({"image": rows["image"]})["logits"]
        assert report.quality.score == pytest.approx((scores.argmax(1) == rows["labels"]).mean())
    steps = [step.name for step in recipe_of(load(path)).steps]
    assert "fold-batch-norm" in steps
    assert steps[-1] == "quantize-static"
    assert Recipe.from_toml(report.recipe) == recipe_of(load(path))


def test_dynamic_needs_no_data(dense: Path) -> None:
    result = onnxcomp.quantize(dense, mode="dynamic")
    assert ops(result)["MatMulInteger"] == 2  # the third is too small
    assert result.report.calibration is None
    assert result.report.quality.score is None
    assert "made-up" in " ".join(result.report.notes)


@pytest.mark.parametrize(("bits", "share"), [(8, 0.32), (4, 0.22)])
def test_weight_only(data: dict[str, Path], resnet: Path, bits: int, share: float) -> None:
    result = onnxcomp.quantize(resnet, mode="weight-only", bits=bits, block_size=32, eval=data["eval"])
    assert result.report.size < share * result.report.original_size
    assert result.report.quality.sqnr > {8: 30, 4: 8}[bits]
    assert result.report.settings == {"bits": bits, "block_size": 32}
    other = {"method": "kl", "weights": "kl", "bits": 5, "block_size": 7, "form": "other"}
    for name, value in other.items():
        with pytest.raises(UsageError):
            onnxcomp.quantize(resnet, mode="weight-only", **{name: value})
    with pytest.raises(UsageError, match="has no --bits"):
        onnxcomp.quantize(resnet, mode="dynamic", bits=4)


@pytest.mark.parametrize(
    ("target", "form", "work"),
    [
        ("portable", None, "store-float16"),
        ("cuda", None, "convert-float16"),
        ("cuda", "store", "store-float16"),
        ("portable", "compute", "convert-float16"),
    ],
)
def test_float16_is_stored_or_computed_in(
    data: dict[str, Path], resnet: Path, target: str, form: str | None, work: str
) -> None:
    result = onnxcomp.quantize(resnet, mode="float16", target=target, form=form, **data)
    assert result.report.passes[-1].name == work
    assert (result.report.calibration is not None) is (work == "convert-float16")  # its ranges tell what overflows
    assert result.report.size < 0.55 * result.report.original_size
    assert result.report.quality.agreement == 1
    with pytest.raises(UsageError, match="no form 'fold'"):
        onnxcomp.quantize(resnet, mode="float16", form="fold")


def test_computing_in_float16_is_planned_where_it_is_faster(data: dict[str, Path], resnet: Path) -> None:
    def planned(target: str) -> set[str]:
        return {c.name for c in plan(resnet, target=target, goal="size", **data).candidates}

    assert "float16" in planned("cuda")
    assert "float16" not in planned("auto")
    with pytest.raises(UsageError, match="not faster on portable"):
        plan(resnet, target="portable", goal="size", techniques=["float16"], **data)


def test_the_report_as_text_and_json(data: dict[str, Path], resnet: Path) -> None:
    report = onnxcomp.quantize(resnet, mode="static", method="percentile", **data).report
    document = json.loads(report.to_json())
    assert (document["schema_version"], document["kind"]) == (1, "quantize")
    assert document["settings"] == {"method": "percentile"}
    text, long = report.render(), report.render(verbose=True)
    for needed in ("3.5", "smaller", "2.00x faster", "top1", "agreement", "SQNR", "method = percentile"):
        assert needed in text
    left = report.skipped[0]
    assert left.reason in text
    assert f"- {left.op_type} {left.node}: {left.reason}" in long
    assert f"- {left.op_type} {left.node}: {left.reason}" not in text


def test_a_slower_and_larger_model_is_called_so(times: Callable[[float], None], data: Any, resnet: Path) -> None:
    times(2.0)
    text = onnxcomp.quantize(resnet, mode="static", **data).report.render()
    assert "2.00x slower" in text
    assert "faster" not in text


def test_settings_reach_the_pass(data: dict[str, Path], resnet: Path) -> None:
    plain = onnxcomp.quantize(resnet, mode="static", bench=False, **data)
    excluded = [node.name for node in plain.model.graph if node.op_type == "Conv"][:2]
    chosen = onnxcomp.quantize(
        resnet, mode="static", ops=["Conv"], exclude=excluded, per_tensor=True, method="mmse", bench=False, **data
    )
    assert chosen.report.passes[-1].counters["int8 anchors"] == 7  # of nine convolutions and one Gemm
    assert {skip.node for skip in chosen.report.skipped if skip.reason == "excluded"} == set(excluded)
    settings = recipe_of(chosen.model).steps[-1].settings
    assert settings == {"method": "mmse", "per_channel": False, "anchors": ["Conv"], "exclude": excluded}
    assert serialized(chosen.model) != serialized(plain.model)


def test_a_name_that_no_node_has(data: dict[str, Path], resnet: Path) -> None:
    names = [node.name for node in load(resnet).graph if node.op_type == "Conv"]
    misspelt = f"{names[0]}x"
    with pytest.raises(UsageError, match=misspelt) as caught:
        onnxcomp.quantize(resnet, mode="static", exclude=[misspelt], **data)
    assert str(names[0]) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "magic"}, "unknown mode 'magic'"),
        ({"mode": "static"}, "calibration"),
        ({"mode": "dynamic", "method": "mmse"}, "no --method"),
        ({"mode": "weight-only", "per_tensor": True}, "no --per-tensor"),
        ({"mode": "dynamic", "ops": ["Conv"]}, "Conv"),
        ({"mode": "dynamic", "ops": "MatMul"}, "lists of names"),
        ({"mode": "static", "synthetic_calibration": True, "method": "guess"}, "guess"),
        ({"mode": "dynamic", "target": "abacus"}, "abacus"),
        ({"mode": "dynamic", "threads": -1}, "threads"),
        ({"mode": "dynamic", "gates": Gates(max_drop=0.1)}, "max-drop"),
        ({"mode": "dynamic", "gates": Gates(max_latency_ratio=1), "bench": False}, "max-latency-ratio"),
    ],
)
def test_arguments_that_make_no_sense(dense: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        onnxcomp.quantize(dense, **arguments)
    assert caught.value.exit_code == 2


def test_a_metric_without_labels(data: dict[str, Path], dense: Path) -> None:
    with pytest.raises(MetricError, match="labels"):
        onnxcomp.quantize(dense, mode="dynamic", eval=data["calibration"], metric="top1")
    with pytest.raises(UsageError, match="max-drop needs labels"):
        onnxcomp.quantize(dense, mode="dynamic", eval=data["calibration"], gates=Gates(max_drop=0.1))


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        (Gates(min_sqnr=90), "SQNR"),
        (Gates(max_size=1000), "bytes"),
        (Gates(max_latency_ratio=0.4), "0.4 of the original's time"),
        (Gates(max_drop=0.5), "drops by 1.0"),
    ],
)
def test_gates(data: dict[str, Path], resnet: Path, tmp_path: Path, gates: Gates, says: str) -> None:
    metric = tmp_path / "metric.py"  # only the first model, the original, is any good
    metric.write_text(
        "calls = []\ndef score(outputs, labels):\n    calls.append(1)\n    return float(len(calls) == 1)\n",
        encoding="utf-8",
    )
    with pytest.raises(GateFailed, match=says) as caught:
        onnxcomp.quantize(resnet, mode="static", gates=gates, metric=str(metric), **data)
    report = caught.value.report
    assert isinstance(report, QuantizeReport)
    assert len(report.missed) == 1
    assert says in report.missed[0]
    assert says in report.render()


def test_gates_that_are_kept(data: dict[str, Path], resnet: Path) -> None:
    gates = Gates(max_drop=0.05, min_agreement=0.9, min_sqnr=15, max_size=200_000, max_latency_ratio=0.6)
    report = onnxcomp.quantize(resnet, mode="static", gates=gates, **data).report
    assert report.missed == ()
    assert "allowed drop 0.05" in report.render()


def test_another_machine_is_not_measured(data: dict[str, Path], resnet: Path) -> None:
    here = onnxcomp.quantize(resnet, mode="static", **data).report.target
    foreign = "cpu-arm" if here != "cpu-arm" else "cpu-x86-avx2"
    report = onnxcomp.quantize(resnet, mode="static", target=foreign, **data).report
    assert report.target == foreign
    assert report.latency is None
    assert f"latency not measured: this machine is {here}, not {foreign}" in report.notes
    assert "latency  " not in report.render()
    assert report.quality.sqnr > 15
    with pytest.raises(UsageError, match="max-latency-ratio"):
        onnxcomp.quantize(resnet, mode="static", target=foreign, gates=Gates(max_latency_ratio=1), **data)


def test_nothing_to_quantize(parse: Callable[..., onnx.ModelProto]) -> None:
    model = parse("g (float[N, 4] x) => (float[N, 4] y) { y = Tanh(x) }").SerializeToString()
    for mode in ("static", "dynamic"):
        with pytest.raises(PassError, match="nothing could be quantized") as caught:
            onnxcomp.quantize(model, mode=mode, synthetic_calibration=True)
        assert caught.value.exit_code == 3
    small = parse("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", {"w": np.eye(4)}).SerializeToString()
    with pytest.raises(PassError, match="too small to pay"):
        onnxcomp.quantize(small, mode="dynamic")


def test_an_old_opset_is_upgraded(parse: Callable[..., onnx.ModelProto]) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64))
    model = parse("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }", {"w": weight}, opset=10)
    for mode in ("static", "dynamic"):
        result = onnxcomp.quantize(model.SerializeToString(), mode=mode, synthetic_calibration=True)
        assert [step.name for step in recipe_of(result.model).steps][-2:] == ["upgrade-opset", f"quantize-{mode}"]


def test_every_kind_of_source(dense: Path) -> None:
    results = [onnxcomp.quantize(source, mode="dynamic") for source in (str(dense), dense.read_bytes(), load(dense))]
    assert len({serialized(result.model) for result in results}) == 1


def test_progress(data: dict[str, Path], resnet: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    onnxcomp.quantize(resnet, mode="static", progress=lambda stage, share: seen.append((stage, share)), **data)
    stages = list(dict.fromkeys(stage.partition(":")[0] for stage, _ in seen))
    assert stages[:2] == ["verify", "clean up"]
    assert {"calibrate", "quantize", "judge"} <= set(stages)
    assert [share for stage, share in seen if stage == "calibrate"][-1] == 1
