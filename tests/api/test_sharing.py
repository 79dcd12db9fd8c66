"""`share`, on a trained model: given bits, chosen bits, gates, and what is refused."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import GateFailed, Gates, PassError, RecipeError, UsageError
from onnxcomp.api.thinning import wary
from onnxcomp.cli.app import build_app, run
from onnxcomp.model import load, open_session

pytestmark = pytest.mark.untraced


@pytest.fixture
def lenet(sample_models: Path) -> Path:
    return sample_models / "lenet_300_100" / "model.onnx"


share = partial(onnxcomp.share, bench=False)


def call(*arguments: object) -> int:
    return run(build_app(), [str(argument) for argument in arguments])


def test_given_bits(lenet: Path, data: dict[str, Path], tmp_path: Path) -> None:
    before = lenet.read_bytes()
    result = onnxcomp.share(lenet, bits=4, calibration=data["calibration"], eval=data["eval"])
    report = result.save(tmp_path / "small.onnx")
    assert lenet.read_bytes() == before
    assert report.original_size == len(before)
    assert report.output is not None
    assert report.output.size == report.size == (tmp_path / "small.onnx").stat().st_size
    assert report.size < len(before) / 7
    assert report.quality.score is not None
    assert report.quality.score >= report.original_quality.score - 0.03  # type: ignore[operator]
    assert report.quality.sqnr > 15
    assert not report.tried
    assert "7." in report.render()
    assert report.latency is not None
    assert report.seconds_per_run is not None
    assert report.seconds_per_run > 0
    assert " latency " in report.render()
    assert {node.op_type for node in result.model.graph} >= {"Gather", "Cast", "Gemm"}
    again = onnxcomp.Recipe.from_toml(report.recipe)
    assert [step.name for step in again.steps][-1] == "share-weights"


@pytest.mark.parametrize("method", ["kmeans", "entropy"])
def test_chosen_bits_keep_the_gate_and_spend_no_more(
    lenet: Path, data: dict[str, Path], tmp_path: Path, method: str
) -> None:
    settings: dict[str, Any] = {"calibration": data["calibration"], "eval": data["eval"], "method": method}
    reports = [share(lenet, gates=Gates(min_sqnr=least), **settings).report for least in (12.0, 30.0)]
    for report, least in zip(reports, (12.0, 30.0), strict=True):
        assert report.quality.sqnr >= least
        assert set(report.bits) == {"/net/net.1/Gemm", "/net/net.3/Gemm", "/net/net.5/Gemm"}
        good = [one for one in report.tried if one.objection is None]
        assert report.size == good[-1].size
        assert any(one.objection for one in report.tried)
        mean = {one.mean for one in good}
        assert min(mean) == good[-1].mean
    assert sum(reports[0].bits.values()) < sum(reports[1].bits.values())


def test_entropy_is_for_packing(lenet: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """At the same bound on the noise a packed file of method entropy is smaller, one in the graph larger."""
    sizes, packed = {}, {}
    for method in ("kmeans", "entropy"):
        path = tmp_path / f"{method}.onnx"
        result = share(lenet, method=method, calibration=data["calibration"], gates=Gates(min_sqnr=20))
        sizes[method] = result.save(path).size
        packed[method] = onnxcomp.pack(path, path.with_suffix(".onnxz")).size
    assert sizes["entropy"] > sizes["kmeans"]
    assert packed["entropy"] < packed["kmeans"]
    assert packed["entropy"] < lenet.stat().st_size / 8
    answers = onnxcomp.session(tmp_path / "entropy.onnxz").run(None, {"image": np.zeros((1, 1, 28, 28), np.uint8)})
    assert np.isfinite(answers[0]).all()


def test_zeros_first(lenet: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """A packed file is smaller with zeros; two thirds of the noise are for them."""
    settings: dict[str, Any] = {
        "calibration": data["calibration"],
        "eval": data["eval"],
        "gates": Gates(min_sqnr=10),
        "method": "entropy",
        "bits": 3,
    }
    sizes = []
    for prune in (None, "auto"):
        path = tmp_path / f"{prune}.onnx"
        result = share(lenet, prune=prune, **settings)
        result.save(path)
        sizes.append(onnxcomp.pack(path, path.with_suffix(".onnxz")).size)
    report = result.report
    assert report.quality.sqnr >= 10
    assert sizes[1] < sizes[0]
    assert all((one.objection is None) == (one.quality.sqnr >= 10 + 1.761) for one in report.pruned)
    chosen = max(one.sparsity for one in report.pruned if one.objection is None)
    assert [done.name for done in report.passes] == ["prune-weights", "share-weights"]
    assert report.passes[0].counters["zeros"] == round(chosen * 266_200)
    assert [step.name for step in onnxcomp.Recipe.from_toml(report.recipe).steps][-2:] == [
        "prune-weights",
        "share-weights",
    ]
    assert f"{chosen:.0%} zeros: inside two thirds" in report.render()


def test_a_share_of_zeros(lenet: Path) -> None:
    report = share(lenet, prune=0.25, bits=4).report
    assert report.passes[0].counters["zeros"] == round(0.25 * 266_200)
    assert not report.pruned


def test_without_data(lenet: Path) -> None:
    report = share(lenet).report
    assert report.gates.min_sqnr == 20
    assert report.quality.sqnr >= 20
    assert any("made-up" in note for note in report.notes)


def test_excluded_nodes_keep_their_weights(lenet: Path) -> None:
    name = "/net/net.1/Gemm"
    result = share(lenet, bits=2, exclude=[name])
    node = next(node for node in result.model.graph if node.name == name)
    assert node.inputs[1].is_initializer()  # type: ignore[union-attr]
    assert any(skip.reason == "excluded" for done in result.report.passes for skip in done.skipped)
    with pytest.raises(RecipeError, match="no such node"):
        share(lenet, bits=2, exclude=["nobody"])


@pytest.mark.parametrize("granularity", ["group", "model"])
def test_granularity(lenet: Path, granularity: str) -> None:
    result = share(lenet, bits=4, granularity=granularity)
    assert result.report.size < lenet.stat().st_size / 5
    assert result.report.settings["granularity"] == granularity


def test_powers_of_two_have_two_bits_or_more(lenet: Path) -> None:
    report = share(lenet, codebook="powers", gates=Gates(min_sqnr=5)).report
    assert report.settings["codebook"] == "powers"
    assert report.quality.sqnr >= 5
    assert set(report.bits.values()) <= {2, 4, 8}


def test_a_missed_gate(lenet: Path, data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="agreement") as caught:
        share(lenet, bits=1, eval=data["eval"], gates=Gates(min_agreement=1))
    assert isinstance(caught.value.report, onnxcomp.ShareReport)
    with pytest.raises(GateFailed, match="SQNR") as caught:
        share(lenet, gates=Gates(min_sqnr=200))
    report = caught.value.report
    assert isinstance(report, onnxcomp.ShareReport)
    assert set(report.bits.values()) == {8}
    with pytest.raises(GateFailed, match="bytes"):
        share(lenet, gates=Gates(max_size=1000, min_sqnr=10))


def tiny(tmp_path: Path) -> Path:
    text = "<ir_version: 8, opset_import: ['': 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(text.replace("'", '"')), path)
    return path


@pytest.mark.parametrize("bits", ["auto", 4])
def test_nothing_to_share(tmp_path: Path, bits: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PassError, match="no weight can share"):
        share(tiny(tmp_path), bits=bits)
    assert call("share", tmp_path / "tiny.onnx", "--bits", bits, "-o", tmp_path / "o.onnx") == 3
    assert not (tmp_path / "o.onnx").exists()
    assert "Traceback" not in capfd.readouterr().err


def test_nothing_larger_is_delivered(lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("onnxcomp.api.making"), "size", lambda _: 10**9)
    with pytest.raises(PassError, match="not get smaller"):
        share(lenet, bits=4)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prune": 1}, UsageError, "prune must be"),
        ({"prune": "many"}, UsageError, "prune must be"),
        ({"bits": "many"}, UsageError, "number from 1 to 8, or auto"),
        ({"bits": 0}, RecipeError, "from 1 to 8"),
        ({"bits": 2.5}, RecipeError, "whole number"),
        ({"method": "magic"}, RecipeError, "method"),
        ({"granularity": "model"}, UsageError, "one codebook"),
        ({"vector": 4}, UsageError, "where vectors are shared"),
        ({"bits": 8, "vector": 40}, RecipeError, "from 1 to 16"),
        ({"exclude": "a"}, UsageError, "list"),
        ({"gates": Gates(max_latency_ratio=1)}, UsageError, "latency"),
        ({"gates": Gates(max_drop=0.1)}, UsageError, "labels"),
        ({"bits": float("nan")}, RecipeError, "from 1 to 8"),
    ],
)
def test_wrong_use(lenet: Path, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        share(lenet, **settings)


def test_the_command(lenet: Path, data: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.onnx"
    assert call("share", lenet, "--eval", data["eval"], "--max-drop", 0.05, "--no-bench", "-o", out, "-v") == 0
    shown = capfd.readouterr().out
    assert "bits chosen per weight" in shown
    assert "tried" in shown
    assert f"wrote   {out}" in shown
    feed = {"image": np.zeros((2, 1, 28, 28), np.uint8)}
    assert open_session(load(out)).run(feed).keys() == open_session(load(lenet)).run(feed).keys()
    assert call("share", lenet, "--bits", 4, "-o", out) == 2  # exists
    assert call("share", lenet, "--bits", 4, "--no-bench", "--max-latency-ratio", 1, "-o", tmp_path / "p.onnx") == 2
    assert call("share", lenet, "--bits", 1, "--min-agreement", 1, "--no-bench", "-o", tmp_path / "p.onnx") == 1
    assert not (tmp_path / "p.onnx").exists()
    assert call("share", lenet, "--bits", "x", "-o", tmp_path / "p.onnx") == 2
    assert call("share", lenet, "--bits", 4, "--dry-run", "--no-bench", "-o", tmp_path / "p.onnx") == 0
    assert not (tmp_path / "p.onnx").exists()


@pytest.mark.parametrize(
    ("gates", "least"),
    [(Gates(max_drop=0.01), 0.97), (Gates(max_drop=0.01, min_agreement=0.5), 0.5), (Gates(min_sqnr=20), None)],
)
def test_a_wary_choice_bounds_how_many_answers_change(gates: Gates, least: float | None) -> None:
    assert wary(gates).min_agreement == (None if least is None else pytest.approx(least))
