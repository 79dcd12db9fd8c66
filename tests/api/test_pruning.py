"""`prune`, on trained models: what is removed, what is measured, what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import GateFailed, Gates, PassError, PruneReport, RecipeError, UsageError
from onnxcomp.cli.app import build_app, run
from onnxcomp.model import load, open_session
from onnxcomp.passes.prune.distill import DistillConfig

pytestmark = pytest.mark.usefixtures("times")


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


def test_half_of_the_channels(data: dict[str, Path], resnet: Path, tmp_path: Path) -> None:
    before = resnet.read_bytes()
    result = onnxcomp.prune(resnet, ratio=0.5, round=1, eval=data["eval"])
    report = result.save(tmp_path / "small.onnx")
    assert resnet.read_bytes() == before
    assert report.output is not None
    assert report.output.size == report.size == (tmp_path / "small.onnx").stat().st_size
    assert report.size < 0.4 * report.original_size
    assert {group.kept / group.channels for group in report.groups} == {0.5}
    assert report.pruned_parameters < 0.3 * report.parameters
    assert report.macs is not None
    assert report.pruned_macs is not None
    # both sides of the inner convolutions are halved, one side of the first and of the last layer
    assert 0.25 < report.pruned_macs / report.macs < 0.3
    assert report.latency is not None
    assert report.latency.ratio == 0.5
    assert report.original_quality.score == pytest.approx(0.94, abs=0.03)
    assert report.quality.score is not None
    feed = {"image": np.zeros((2, 1, 28, 28), np.uint8)}
    assert open_session(load(tmp_path / "small.onnx")).run(feed)["logits"].shape == (2, 10)
    steps = [step.name for step in onnxcomp.Recipe.from_toml(report.recipe).steps]
    assert steps[-1] == "prune-channels"
    shown = report.render()
    assert re.search(r"channels +224 +112 +2.00x fewer", shown)
    assert "it is an output of the model: 1" in shown


def test_what_is_ignored_keeps_its_channels(dense: Path) -> None:
    report = onnxcomp.prune(dense, ratio=0.5, round=1, ignore=["*net.1*"]).report
    assert [(group.channels, group.kept) for group in report.groups] == [(300, 300), (100, 50)]
    assert any(skip.reason == "it is to be ignored" for skip in report.skipped)
    assert any("made-up" in note for note in report.notes)


@pytest.mark.parametrize("criterion", ["l1", "fpgm", "random"])
def test_criteria(dense: Path, criterion: str) -> None:
    first, again = (onnxcomp.prune(dense, criterion=criterion, bench=False, seed=3) for _ in range(2))
    assert first.report.settings["criterion"] == criterion
    assert first.report.latency is None
    assert first.report.quality == again.report.quality


def test_a_share_of_the_macs(resnet: Path, data: dict[str, Path]) -> None:
    report = onnxcomp.prune(resnet, macs=0.6, round=4, bench=False, **data).report
    assert report.macs is not None
    assert report.pruned_macs is not None
    assert 0.5 < report.pruned_macs / report.macs <= 0.6
    assert report.calibration is not None


def test_steps_reach_what_one_reaches(dense: Path) -> None:
    once, often = (onnxcomp.prune(dense, ratio=0.6, steps=steps, bench=False).report for steps in (1, 3))
    assert once.groups == often.groups
    assert any(group.kept < group.channels for group in once.groups)
    keeps = [step.settings["keep"] for step in onnxcomp.Recipe.from_toml(often.recipe).steps if "keep" in step.settings]
    assert len(keeps) == 3
    for group in often.groups:
        first, second, third = (keep[group.name] for keep in keeps)
        assert group.channels > first > second > third == group.kept
        assert first / group.channels == pytest.approx(second / first, abs=0.02)
    assert once.skipped == often.skipped


def test_what_is_left_makes_up_for_what_went(
    resnet: Path, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = DistillConfig.__init__.__defaults__ or ()
    monkeypatch.setattr(DistillConfig.__init__, "__defaults__", (8, *defaults[1:]))  # epochs: 200 take minutes
    found = {
        how: onnxcomp.prune(resnet, ratio=0.5, round=1, recovery=how, bench=False, **data).report
        for how in ("none", "bias", None, "distill")
    }
    assert found[None].quality.agreement > 0.6
    assert max(found[how].quality.agreement for how in ("none", "bias")) < 0.2
    assert found[None].recovery == "least-squares"
    assert found[None].quality.sqnr > found["none"].quality.sqnr + 3
    assert [done.name for done in found["none"].passes] == ["prune-channels"]
    assert [done.name for done in found["bias"].passes] == ["prune-channels", "recover"]
    assert [done.name for done in found["distill"].passes] == ["prune-channels", "recover", "distill"]
    assert found["distill"].quality.agreement > 0.6
    assert len({report.groups for report in found.values()}) == 1


@pytest.mark.parametrize(("granularity", "left"), [("weight", 0.2), ("2:4", 0.5)])
def test_single_weights(dense: Path, data: dict[str, Path], granularity: str, left: float) -> None:
    ratio = 0.8 if granularity == "weight" else None
    report = onnxcomp.prune(dense, granularity=granularity, ratio=ratio, bench=False, eval=data["eval"]).report
    assert (report.parameters - report.pruned_zeros) / report.parameters == pytest.approx(left, abs=0.01)
    assert report.groups == ()
    assert report.macs == report.pruned_macs
    assert "not zero" in report.render()
    assert any("packed" in note for note in report.notes)
    settings = {"granularity": granularity, "calibration": data["calibration"], "recovery": "bias"}
    with pytest.raises(UsageError, match="has no recovery bias"):
        onnxcomp.prune(dense, **settings)
    with pytest.raises(UsageError, match="has no --macs"):
        onnxcomp.prune(dense, granularity=granularity, macs=0.5)


def test_a_missed_gate(dense: Path, data: dict[str, Path], tmp_path: Path, times: Callable[[float], None]) -> None:
    with pytest.raises(GateFailed, match="the metric drops") as caught:
        onnxcomp.prune(dense, ratio=0.9, eval=data["eval"], gates=Gates(max_drop=0.01))
    assert isinstance(caught.value.report, PruneReport)
    times(0.9)
    with pytest.raises(GateFailed, match=r"not proven within 0\.5"):
        onnxcomp.prune(dense, gates=Gates(max_latency_ratio=0.5))


def tiny(tmp_path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_nothing_to_prune(tmp_path: Path, dense: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PassError, match="nothing could be pruned"):
        onnxcomp.prune(tiny(tmp_path))
    with pytest.raises(PassError, match="pruned: the model has no such operators"):  # recovery has no say in it
        onnxcomp.prune(tiny(tmp_path), synthetic_calibration=True)
    with pytest.raises(PassError, match="rounded to 512"):
        onnxcomp.prune(dense, round=512)
    assert call("prune", tmp_path / "tiny.onnx", "-o", tmp_path / "o.onnx") == 3
    assert not (tmp_path / "o.onnx").exists()
    assert "--groups" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"ratio": 1.0}, RecipeError, "ratio"),
        ({"ratio": float("nan")}, RecipeError, "ratio"),
        ({"criterion": "magic"}, RecipeError, "criterion"),
        ({"granularity": "atom"}, UsageError, "unknown granularity"),
        ({"round": -1}, RecipeError, "round"),
        ({"latency": 1.5}, RecipeError, "latency"),
        ({"latency": 0.5, "target": "cuda"}, UsageError, "latency can't be aimed at"),
        ({"granularity": "weight", "streams": False}, UsageError, "has no --streams"),
        ({"macs": 0.0}, RecipeError, "macs"),
        ({"macs": 0.5, "ratio": 0.5}, RecipeError, "both given"),
        ({"allocation": "magic"}, RecipeError, "allocation"),
        ({"criterion": "obs"}, UsageError, "samples"),
        ({"recovery": "hope"}, UsageError, "unknown recovery"),
        ({"recovery": "bias"}, UsageError, "recovery bias needs samples"),
        ({"granularity": "2:4", "ratio": 0.5}, UsageError, "has no --ratio"),
        ({"steps": 0}, UsageError, "steps"),
        ({"ignore": "a"}, UsageError, "list"),
        ({"target": "abacus"}, UsageError, "abacus"),
        ({"gates": Gates(max_drop=0.1)}, UsageError, "labels"),
        ({"gates": Gates(max_latency_ratio=1), "bench": False}, UsageError, "latency"),
    ],
)
def test_wrong_use(dense: Path, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        onnxcomp.prune(dense, **settings)


def test_the_command(dense: Path, data: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.onnx"
    assert call("prune", dense, "--eval", data["eval"], "--ratio", 0.2, "-o", out, "-v") == 0
    shown = capfd.readouterr().out
    assert "group" in shown
    assert f"wrote   {out}" in shown
    assert call("prune", dense, "-o", out) == 2  # exists
    packed = tmp_path / "o.onnxz"
    assert call("prune", out, "--round", 1, "-o", packed, "--no-bench") == 0
    assert call("prune", packed, "--round", 1, "-o", tmp_path / "p.onnx", "--no-bench") == 0
    assert load(tmp_path / "p.onnx")
    assert call("prune", dense, "--min-agreement", 1, "--ratio", 0.9, "-o", tmp_path / "q.onnx") == 1
    assert call("prune", dense, "--dry-run", "-o", tmp_path / "q.onnx") == 0
    assert call("prune", dense, "--ratio", 7, "-o", tmp_path / "q.onnx") == 2
    assert not (tmp_path / "q.onnx").exists()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("dtype", "last"), [("float16", "Relu (p)"), ("float", "SequenceConstruct (p, x)")])
def test_other_floats_and_sequences(tmp_path: Path, dtype: str, last: str) -> None:
    """Inner tensors have no types in the file: what measures them has to infer that they are no float32."""
    result = f"seq({dtype}[N, 8]) y" if "Sequence" in last else f"{dtype}[N, 8] y"
    text = f"""<ir_version: 8, opset_import: ["": 17]> g ({dtype}[N, 8] x) => ({result}) {{
        m = MatMul (x, a)  h = Relu (m)  p = MatMul (h, b)  y = {last} }}"""
    model = onnx.parser.parse_model(text)
    values = np.random.default_rng(0)
    kind = np.float16 if dtype == "float16" else np.float32
    for name, shape in (("a", (8, 16)), ("b", (16, 8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.normal(size=shape).astype(kind), name))
    report = onnxcomp.prune(
        model.SerializeToString(), ratio=0.5, round=1, synthetic_calibration=True, bench=False
    ).report
    assert report.groups[0].kept == 8
