"""The main job end to end, on a sample model and 100 images; times are made up, so that every machine decides alike."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp import Budget, GateFailed, MetricError, OutputError, Recipe, Result, UsageError
from onnxcomp.model import load
from onnxcomp.pipeline import recipe_of
from onnxcomp.recipe import Step
from onnxcomp.runtime import Session
from onnxcomp.search import race
from onnxcomp.statistics import Range, RangeStore, collect_grams

STATIC = Recipe((Step("quantize-static"),))


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def check(result: Result, source: Path, folder: Path) -> dict[str, Any]:
    """Hold a result to what every result must be; return its report."""
    path = folder / "out.onnx"
    result.save(path)
    outcome = result.report.outcome
    assert path.stat().st_size == outcome.size
    assert outcome.original_size == source.stat().st_size
    again = load(path)
    if outcome.winner is None:
        assert path.read_bytes() == source.read_bytes()
        assert result.report.recipe == ""
    else:
        assert recipe_of(again).to_toml() == result.report.recipe
        assert recipe_of(again).steps
    document = json.loads(result.report.to_json())
    assert document["schema_version"] == 1
    assert finite(document)
    assert document["winner"] == outcome.winner
    assert str(result.report)
    return document


def test_delivers_the_best_inside_the_budget(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    before = resnet.read_bytes()
    times(other=0.5, static=0.4, cleanup=1.0)
    result = onnxcomp.optimize(resnet, **data)
    document = check(result, resnet, tmp_path)
    assert resnet.read_bytes() == before
    assert [p.name for p in resnet.parent.iterdir()] == ["model.onnx"]
    outcome = result.report.outcome
    assert outcome.winner == "static"
    assert outcome.size < 0.4 * outcome.original_size
    assert outcome.latency.ratio == 0.4
    assert outcome.original_quality.score - outcome.quality.score <= 0.01 + 1e-9
    assert outcome.quality.agreement >= 0.97
    names = [step.name for step in recipe_of(result.model).steps]
    assert "fold-batch-norm" in names
    assert names[-1] == "quantize-static"
    assert document["settings"]["metric"] == "top1"
    assert {c["name"] for c in document["candidates"]} >= {"cleanup", "static"}

    with np.load(data["eval"]) as rows:
        logits = [Session(tmp_path / "out.onnx").run({"image": rows["image"]})["logits"]]
        assert (np.concatenate(logits).argmax(1) == rows["labels"]).mean() == pytest.approx(
            outcome.quality.score, abs=0.02
        )


def test_for_size_weights_alone_are_tried(times: Any, data: Any, sample_models: Path) -> None:
    model = sample_models / "lenet_300_100" / "model.onnx"
    result = onnxcomp.optimize(model, **data, goal="size", budget=Budget(max_drop=0.02))
    sizes = {c.name: c.size for c in result.report.outcome.candidates}
    assert sizes["int4 weights"] < 0.6 * sizes["int8 weights"] < 0.6 * sizes["float16 weights"]
    assert sizes["4-bit shared weights"] < sizes["int4 weights"]
    assert result.report.outcome.size < 0.2 * result.report.outcome.original_size
    steps = [step.name for step in recipe_of(result.model).steps]
    assert {"quantize-weights", "share-weights"} & set(steps)
    fast = onnxcomp.optimize(model, **data)  # for latency they can't win: they are not even built
    assert not {"int4 weights", "int8 weights"} & {c.name for c in fast.report.outcome.candidates}


@pytest.mark.parametrize("pruned", [0.7, 0.999])
def test_channels_go_where_that_pays(pruned: float, times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    budget = Budget(max_drop=0.05, min_agreement=0.8)
    times(other=0.4, pruned=pruned)
    result = onnxcomp.optimize(resnet, **data, budget=budget)
    check(result, resnet, tmp_path)
    outcome = result.report.outcome
    tried = {c.name: c for c in outcome.candidates if "pruned" in c.name}
    assert any(c.quality.score >= 0.8 for c in tried.values())
    if pruned == 0.7:
        names = [step.name for step in recipe_of(result.model).steps]
        first = names.index("prune-channels")
        assert names[first + 1] == "recover"
        assert {"quantize-static", "quantize-dynamic"} & set(names[first + 2 :])
        assert outcome.size < tried[outcome.winner].size * 1.01
        assert outcome.original_quality.score - outcome.quality.score <= 0.05 + 1e-9
        again = onnxcomp.optimize(resnet, **data, budget=budget, recipe=Recipe.from_toml(result.report.recipe))
        assert check(again, resnet, tmp_path)["size"] == outcome.size
    else:
        assert "pruned" not in str(outcome.winner)
        assert any("no better than" in str(c.rejected) for c in tried.values())


@pytest.mark.parametrize("technique", ["static", "dynamic"])
def test_only_the_technique_that_is_named_is_tried(technique: Any, times: Any, data: Any, sample_models: Path) -> None:
    model = sample_models / "lenet_300_100" / "model.onnx"  # matrix products alone: both techniques take it
    assert {c.name for c in onnxcomp.optimize(model, **data).report.outcome.candidates} > {"static", "dynamic"}
    result = onnxcomp.optimize(model, **data, techniques=[technique])
    assert {c.name for c in result.report.outcome.candidates} == {"cleanup", technique}
    assert result.report.settings.techniques == (technique,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"techniques": ["static"]}, "static INT8 needs calibration samples"),
        ({"recipe": "recipe.toml"}, "a recipe can't be given as str"),
        ({"techniques": ["magic"]}, "unknown technique 'magic'"),
        ({"techniques": []}, "unknown technique"),
        ({"techniques": ["dynamic"], "recipe": STATIC}, "a recipe says itself"),
    ],
)
def test_techniques_that_cannot_be(arguments: Any, message: str, resnet: Path) -> None:
    with pytest.raises(UsageError, match=message):
        onnxcomp.optimize(resnet, **arguments)


def test_the_recipe_reproduces_the_model(times: Any, data: Any, resnet: Path) -> None:
    first = onnxcomp.optimize(resnet, **data)
    second = onnxcomp.optimize(resnet, **data, recipe=Recipe.from_toml(first.report.recipe))
    assert second.report.outcome.winner == "recipe"
    assert second.report.outcome.size == pytest.approx(first.report.outcome.size, rel=0.02)


def test_a_recipe_is_delivered_whole_or_not_at_all(times: Any, data: Any, resnet: Path) -> None:
    """Statistics stand in for samples where ranges are asked for; rounding needs the samples themselves."""
    statistics = onnxcomp.calibrate(resnet, calibration=data["calibration"]).statistics
    recipe = Recipe((Step("round-weights"), *STATIC.steps))
    outcome = onnxcomp.optimize(resnet, statistics=statistics, eval=data["eval"], recipe=recipe).report.outcome
    assert outcome.winner != "recipe"
    (found,) = (c for c in outcome.candidates if c.name == "recipe")
    assert "round-weights: " in str(found.rejected)
    assert "samples" in str(found.rejected)


def test_what_is_not_faster_is_not_delivered(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    times(other=1.3, cleanup=1.0)
    result = onnxcomp.optimize(resnet, **data)
    check(result, resnet, tmp_path)
    assert result.report.outcome.winner == "cleanup"
    times(other=1.3)
    result = onnxcomp.optimize(resnet, **data)
    document = check(result, resnet, tmp_path)
    assert result.report.outcome.winner is None
    assert result.report.outcome.latency is None
    assert all("slower" in c["rejected"] for c in document["candidates"])


@pytest.fixture
def transformer(parse: Callable[..., Any], tmp_path: Path) -> Path:
    """A layer of attention: projections, two heads of 16, and the output projection."""
    project = "  ".join(f"{n}m = MatMul(x, w{n})  {n} = Add({n}m, b)  {n}r = Reshape({n}, apart)" for n in "qkv")
    text = f"""g (float[B, S, 32] x, float[B, 1, 1, S] m) => (float[B, S, 32] y) {{ {project}
        qt = Transpose <perm = [0, 2, 1, 3]> (qr)  kt = Transpose <perm = [0, 2, 3, 1]> (kr)
        vt = Transpose <perm = [0, 2, 1, 3]> (vr)  s = MatMul(qt, kt)  d = Div(s, root)  a = Add(d, m)
        p = Softmax <axis = -1> (a)  w = MatMul(p, vt)  wt = Transpose <perm = [0, 2, 1, 3]> (w)
        r = Reshape(wt, merged)  y = MatMul(r, wo) }}"""
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.normal(size=(32, 32)) / 6 for n in "qkvo"} | {"b": np.ones(32), "root": [4.0]}
    weights["wk"] = weights["wq"]  # there is something to clean up
    proto = parse(text, weights)
    for name, shape in (("apart", [0, 0, 2, 16]), ("merged", [0, 0, 32])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    path = tmp_path / "transformer.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("fused", [0.9, 1.1])
def test_attention_is_fused_where_that_is_faster(times: Any, transformer: Path, tmp_path: Path, fused: float) -> None:
    times(fused=fused, attention=0.9, cleanup=1.0, other=0.5)
    result = onnxcomp.optimize(transformer)
    check(result, transformer, tmp_path)
    ops = [node.op_type for node in result.model.graph]
    assert ("Attention" in ops) == (fused < 1)
    assert ops.count("MatMulInteger") == 4
    assert result.report.outcome.winner == ("dynamic, attention" if fused < 1 else "dynamic")
    assert "attention" in {candidate.name for candidate in result.report.outcome.candidates}
    times(other=0.5)
    again = onnxcomp.optimize(transformer, recipe=Recipe.from_toml(result.report.recipe))
    assert [node.op_type for node in again.model.graph] == ops


def test_attention_is_fused_in_float_where_nothing_else_is_left(times: Any, transformer: Path, tmp_path: Path) -> None:
    times(attention=0.9, cleanup=1.0, other=1.5)
    result = onnxcomp.optimize(transformer)
    check(result, transformer, tmp_path)
    assert result.report.outcome.winner == "attention"
    assert recipe_of(result.model).steps[-1] == Step("fuse-attention")


@pytest.mark.parametrize("samples", [True, False], ids=["samples", "statistics alone"])
def test_other_thresholds_are_tried_before_nodes_go_float(
    times: Any, data: Any, resnet: Path, monkeypatch: pytest.MonkeyPatch, samples: bool
) -> None:
    clipped, collected = RangeStore.clipped, []

    def ruined(self: RangeStore, names: Any, method: str, *args: Any, **settings: Any) -> dict[str, Range]:
        found = clipped(self, names, method, *args, **settings)
        if method != "percentile":
            return found
        return {name: Range(measured.low / 50, measured.high / 50) for name, measured in found.items()}

    def counted(*args: Any, **settings: Any) -> Any:
        collected.append(args)
        return collect_grams(*args, **settings)

    monkeypatch.setattr(RangeStore, "clipped", ruined)
    monkeypatch.setattr("onnxcomp.passes.quantize.rounding.collect_grams", counted)
    times(other=0.5, cleanup=1.0)
    if samples:
        result = onnxcomp.optimize(resnet, **data)
    else:  # weights can't be rounded with respect to what nobody can run
        statistics = onnxcomp.calibrate(resnet, calibration=data["calibration"]).statistics
        result = onnxcomp.optimize(resnet, statistics=statistics, eval=data["eval"])
    check(result, resnet, resnet.parent)
    outcome = result.report.outcome
    added = ", rounded, mmse" if samples else ", mmse"
    assert str(outcome.winner).endswith(added)
    rejected = {c.name: c.rejected for c in outcome.candidates}
    assert "top1 drops" in str(rejected[str(outcome.winner).removesuffix(added)])
    assert len(collected) == samples  # many candidates start from the one model with rounded weights
    assert (Step("round-weights") in recipe_of(result.model).steps) == samples
    methods = [s.settings["method"] for s in recipe_of(result.model).steps if s.name == "quantize-static"]
    assert methods == ["mmse"]
    assert not any("kept float" in name for name in rejected)


def test_goals(times: Any, data: Any, resnet: Path) -> None:
    times(other=0.99, static=0.9)
    small = onnxcomp.optimize(resnet, **data, goal="size").report.outcome
    assert small.size == min(c.size for c in small.candidates)
    times(other=0.2, static=1.5)
    fast = onnxcomp.optimize(resnet, **data, goal="latency").report.outcome
    assert fast.winner not in (None, "static")


def test_a_budget_that_no_quantized_model_keeps(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    """Fidelity in dB that integers can't reach: the cleaned-up model is delivered."""
    result = onnxcomp.optimize(resnet, **data, budget=Budget(min_sqnr=90), recipe=STATIC)
    check(result, resnet, tmp_path)
    outcome = result.report.outcome
    assert outcome.quality.sqnr >= 90
    static = next(c for c in outcome.candidates if c.name == "recipe")
    assert "SQNR" in str(static.rejected)


def test_bounds_that_nothing_meets(times: Any, data: Any, resnet: Path) -> None:
    for budget in (Budget(max_size=1000), Budget(max_latency_ratio=0.1)):
        with pytest.raises(GateFailed, match="static") as caught:
            onnxcomp.optimize(resnet, **data, budget=budget)
        assert caught.value.exit_code == 1
    times(other=1.3)  # nothing is better, but the original is small enough as it is
    result = onnxcomp.optimize(resnet, **data, budget=Budget(max_size=10_000_000, max_latency_ratio=1.0))
    assert result.report.outcome.winner is None


def test_without_any_data(times: Any, resnet: Path, tmp_path: Path) -> None:
    result = onnxcomp.optimize(resnet)
    check(result, resnet, tmp_path)
    assert not any("static" in c.name for c in result.report.outcome.candidates)
    notes = " ".join(result.report.notes)
    assert "made-up" in notes
    assert "--calibration" in notes
    assert result.report.settings.metric is None


def test_synthetic_calibration(times: Any, resnet: Path) -> None:
    result = onnxcomp.optimize(resnet, synthetic_calibration=True, budget=Budget(min_sqnr=10, min_agreement=0.5))
    assert any(c.name == "static" for c in result.report.outcome.candidates)
    assert any("made-up" in note for note in result.report.notes)


def test_every_kind_of_source(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    """A model in memory has no file to copy: it is written anew."""
    times(other=1.3)
    for index, source in enumerate((str(resnet), resnet.read_bytes(), load(resnet))):
        result = onnxcomp.optimize(source, **data)
        assert result.report.outcome.winner is None
        path = tmp_path / f"{index}.onnx"
        result.save(path)
        np.testing.assert_array_equal(
            Session(path).run({"image": np.zeros((1, 1, 28, 28), np.uint8)})["logits"],
            Session(resnet).run({"image": np.zeros((1, 1, 28, 28), np.uint8)})["logits"],
        )


def test_external_data_counts_and_comes_along(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    source = tmp_path / "external" / "m.onnx"
    source.parent.mkdir()
    weights = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save_model(onnx.load(resnet), source, **weights)
    result = onnxcomp.optimize(source, **data)
    outcome = result.report.outcome
    assert outcome.original_size == pytest.approx(resnet.stat().st_size, rel=0.02)
    assert outcome.winner is not None
    times(other=1.3)
    unimproved = onnxcomp.optimize(source, **data)
    assert unimproved.report.outcome.winner is None
    unimproved.save(tmp_path / "alone.onnx")
    Session(tmp_path / "alone.onnx")


def test_a_candidate_on_which_the_metric_fails_is_out(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "calls = []\n"
        "def score(outputs, labels):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 1:\n"
        "        raise ValueError('these answers make no sense')\n"
        "    return 1.0\n",
        encoding="utf-8",
    )
    result = onnxcomp.optimize(resnet, **data, metric=f"{metric}:score")
    assert result.report.outcome.winner is None
    assert "make no sense" in str(result.report.outcome.candidates[-1].rejected)


def test_arguments_that_make_no_sense(times: Any, data: Any, resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads"):
        onnxcomp.optimize(resnet, threads=-1)
    with pytest.raises(UsageError, match="unknown target"):
        onnxcomp.optimize(resnet, target="abacus")
    with pytest.raises(MetricError, match="labelled"):
        onnxcomp.optimize(resnet, metric="top1")
    with pytest.raises(MetricError, match="labels"):
        onnxcomp.optimize(resnet, eval=data["calibration"], metric="top1")
    with pytest.raises(UsageError):
        onnxcomp.optimize(resnet, goal="beauty")  # type: ignore[arg-type]
    with pytest.raises(OutputError):
        onnxcomp.optimize(resnet).save(tmp_path / "missing" / "m.onnx")


@pytest.mark.parametrize("refused", [{}, {"goal": "balanced"}, {"goal": "size", "budget": Budget(max_latency_ratio=1)}])
def test_times_of_this_machine_are_no_evidence_for_another(resnet: Path, refused: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="can't be measured") as caught:
        onnxcomp.optimize(resnet, target="tensorrt", **refused)
    assert "--goal size" in str(caught.value.hint)


@pytest.mark.parametrize("target", ["tensorrt", "portable"])
def test_for_another_machine_size_decides(
    data: Any, resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.delattr(race, "interleave")  # nothing is timed
    result = onnxcomp.optimize(resnet, **data, target=target, goal="size")
    document = check(result, resnet, tmp_path)
    outcome = result.report.outcome
    assert outcome.winner is not None
    assert outcome.size < 0.4 * outcome.original_size
    assert outcome.quality.agreement >= 0.97
    assert (outcome.latency, outcome.original_seconds, outcome.seconds_per_run) == (None, None, None)
    assert {c["latency"] for c in document["candidates"]} == {None}
    assert document["settings"]["unmeasured"]
    for text in (str(result.report), result.report.markdown()):
        assert "not measured" in text
        assert "not verified" in text
    assert "faster" not in str(result.report)


def test_where_there_are_no_integer_kernels_activations_stay_float(data: Any, resnet: Path) -> None:
    result = onnxcomp.optimize(resnet, **data, target="cuda", goal="size")
    tried = {step.name for c in result.report.outcome.candidates for step in c.recipe.steps}
    assert not tried & {"quantize-static", "quantize-dynamic"}
    assert not {node.op_type for node in result.model.graph} & {"QuantizeLinear", "DynamicQuantizeLinear"}


def test_progress(times: Any, data: Any, resnet: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    onnxcomp.optimize(resnet, **data, progress=lambda stage, share: seen.append((stage, share)))
    stages = [stage for stage, _ in seen]
    assert "verify" in stages[0]
    assert any("calibrate" in stage for stage in stages)
    assert all(share is None or 0 <= share <= 1 for _, share in seen)


@pytest.mark.parametrize("technique", ["static", "dynamic"])
def test_of_a_planted_layer_that_survives_no_8_bits_exactly_that_stays_float(
    chain: Callable[..., Any], times: Any, tmp_path: Path, technique: Any
) -> None:
    """A channel of the input is thousands of times the others, so that one scale for all leaves nothing of these."""
    planted = chain(0)
    x = np.random.default_rng(1).normal(size=(120, 64)).astype(np.float32)
    x[:, 0] *= 3000
    np.savez(tmp_path / "c.npz", r0=x[:60])
    np.savez(tmp_path / "e.npz", r0=x[60:])
    times(other=0.5, cleanup=1.0)
    data = {"calibration": tmp_path / "c.npz", "eval": tmp_path / "e.npz"}
    result = onnxcomp.optimize(planted.model, **data, techniques=[technique])
    outcome = result.report.outcome
    assert outcome.winner == f"{technique}, {1 if technique == 'dynamic' else 2} kept float"
    (step,) = (s for s in recipe_of(result.model).steps if s.name == f"quantize-{technique}")
    assert step.settings["exclude"] == (["fc0"] if technique == "dynamic" else ["fc0", "act0"])
    plain = next(c for c in outcome.candidates if c.name == technique)
    assert plain.rejected is not None
    assert outcome.quality.sqnr > 20 > plain.quality.sqnr
    floats = [node.name for node in result.model.graph if node.op_type == "MatMul"]
    assert floats == ["fc0"] or technique == "static"


def test_equalization_is_tried_before_nodes_stay_float(chain: Callable[..., Any], times: Any, tmp_path: Path) -> None:
    planted = chain(4)
    x = np.random.default_rng(1).normal(size=(120, 64)).astype(np.float32)
    np.savez(tmp_path / "c.npz", r0=x[:60])
    np.savez(tmp_path / "e.npz", r0=x[60:])
    times(other=0.5, cleanup=1.0)
    data = {"calibration": tmp_path / "c.npz", "eval": tmp_path / "e.npz"}
    result = onnxcomp.optimize(planted.model, **data, techniques=["static"])
    assert result.report.outcome.winner == "static, equalized"
    assert "equalize" in [step.name for step in recipe_of(result.model).steps]
