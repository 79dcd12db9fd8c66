"""`compare`: answers of models with known differences."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.api import disturbing
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import DataError, GateFailed, MetricError, UsageError

Parse = Callable[..., onnx.ModelProto]
LINEAR = "g (float[N,3] x) => (float[N,3] y) { y = Add(x, b) }"


@pytest.fixture
def scores(tmp_path: Path) -> dict[str, Any]:
    """Samples whose first class is right, and whose scores of it differ from those of the others by 0.5 or 2."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.1, 0.1, (100, 3)).astype(np.float32)
    rows[:, 0] += np.where(np.arange(100) < 10, 0.5, 2)
    np.savez(tmp_path / "eval.npz", x=rows, labels=np.zeros(100, np.int64))
    np.savez(tmp_path / "unlabelled.npz", x=rows)
    return {"eval": tmp_path / "eval.npz", "unlabelled": tmp_path / "unlabelled.npz", "rows": rows}


@pytest.fixture
def models(parse: Parse, tmp_path: Path) -> tuple[Path, Path]:
    """A model that gives the scores as they are, and one that adds 1 to the second class: ten answers change."""
    paths = tmp_path / "reference.onnx", tmp_path / "candidate.onnx"
    for path, bias in zip(paths, ([0.0, 0, 0], [0.0, 1, 0]), strict=True):
        path.write_bytes(parse(LINEAR, {"b": bias}).SerializeToString())
    return paths


def call(*arguments: str) -> int:
    return run(build_app(), list(arguments))


def test_labels_fidelity_and_their_figures(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    found = onnxcomp.compare(*models, eval=scores["eval"])
    output = found.outputs["y"]
    assert output.max_error == pytest.approx(1, rel=1e-5)
    assert output.sqnr == pytest.approx(10 * np.log10((scores["rows"].astype(np.float64) ** 2).sum() / 100), abs=1e-3)
    assert output.agreement == found.agreement == 0.9
    assert output.rows == found.runs == 100
    score = found.score
    assert score is not None
    assert (score.metric, score.reference, score.candidate, score.samples) == ("top1", 1.0, 0.9, 100)
    assert score.difference == pytest.approx(-0.1)
    assert score.low is not None
    assert score.high is not None
    assert -0.2 < score.low < -0.1 < score.high < 0
    assert "top1 is worse by 0.1000" in found.render()


def test_batches_give_the_same(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    one, many = (onnxcomp.compare(*models, eval=scores["eval"], batch=batch) for batch in (1, 32))
    assert one.score == many.score
    assert many.runs == 4


def test_a_metric_of_the_users_gets_a_bootstrap(
    models: tuple[Path, Path], scores: dict[str, Any], tmp_path: Path
) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text(
        "import numpy as np\n"
        "def right(outputs, labels):\n"
        "    return np.mean([o['y'].argmax(-1) == l for o, l in zip(outputs, labels)])\n"
        "def picky(outputs, labels):\n"
        "    if len({float(o['y'][0, 0]) for o in outputs}) < len(outputs): raise ValueError('the same twice')\n"
        "    return right(outputs, labels)\n",
        encoding="utf-8",
    )
    shares, drawn = (
        onnxcomp.compare(*models, eval=scores["eval"], metric=name).score for name in ("top1", f"{metric}:right")
    )
    assert shares is not None
    assert drawn is not None
    assert drawn.difference == pytest.approx(shares.difference)
    assert drawn.low == pytest.approx(shares.low, abs=0.03)
    assert drawn.high == pytest.approx(shares.high, abs=0.03)
    assert "bootstrap" in drawn.method
    few = onnxcomp.compare(*models, eval=scores["eval"], metric=f"{metric}:right", batch=10)
    assert few.score is not None
    assert few.score.low is None
    assert any("too few runs, 10" in note for note in few.notes)
    picky = onnxcomp.compare(*models, eval=scores["eval"], metric=f"{metric}:picky")
    assert picky.score is not None
    assert picky.score.low is None
    assert any("drawn with replacement" in note for note in picky.notes)


def test_disturbed_inputs(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    wanted = ["noise=0.001", "noise=5", "brightness=3", "contrast=0.5"]
    faint, strong, bright, contrast = onnxcomp.compare(*models, eval=scores["eval"], perturb=wanted).robustness
    assert (faint.reference_kept, faint.candidate_kept, faint.agreement) == (1, 1, 0.9)
    assert (faint.reference_score, faint.candidate_score) == (1, 0.9)
    assert strong.reference_kept < 0.7
    assert bright.reference_kept == 1
    assert contrast.reference_kept == 1
    assert contrast.agreement == 0.9
    again = onnxcomp.compare(*models, eval=scores["eval"], perturb=wanted).robustness
    assert again[1] == strong


def test_severities(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    found = onnxcomp.compare(*models, eval=scores["eval"], perturb=["all"])
    assert [(one.perturbation, one.severity) for one in found.robustness] == [
        (kind, severity) for kind in ("noise", "scaling") for severity in range(1, 6)
    ]
    scaled = [one.agreement for one in found.robustness if one.perturbation == "scaling"]
    assert scaled == sorted(scaled)  # what is larger stands out of the bias that was added
    assert "noise 0.1 (severity 1)" in found.render()


def test_disturbances_keep_a_time_budget(
    models: tuple[Path, Path], scores: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a second per disturbed run, of which there are 100."""
    seconds = iter(range(10_000))
    started: list[float] = []

    def tell(stage: str, share: float | None) -> None:
        if stage == "disturb":
            assert share is not None
            started.append(share)

    monkeypatch.setattr(disturbing, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    found = onnxcomp.compare(*models, eval=scores["eval"], perturb=["noise=1"], time_budget=60, progress=tell)
    assert 5 < len(started) < 60
    assert started == sorted(started)
    assert started[-1] <= 1
    assert [note for note in found.notes if "disturbed" in note] == [
        f"disturbed: {len(started)} of 100 runs, spread over all; no more fit into 60 s (--time-budget)"
    ]
    assert found.runs == 100


def test_one_run_is_disturbed_in_any_time(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    hurried = onnxcomp.compare(*models, eval=scores["eval"], perturb=["noise=1"], time_budget=1e-9)
    assert any("disturbed: 1 of 100 runs" in note for note in hurried.notes)
    assert hurried.robustness[0].agreement in (0, 1)
    assert hurried.score == onnxcomp.compare(*models, eval=scores["eval"]).score
    unhurried = onnxcomp.compare(*models, eval=scores["eval"], perturb=["noise=1"], time_budget=1e9)
    assert not any("disturbed" in note for note in unhurried.notes)


def test_images_are_disturbed_as_such(resnet: Path, data: dict[str, Path]) -> None:
    found = onnxcomp.compare(resnet, resnet, eval=data["eval"], perturb=["all"], batch=50).robustness
    assert {one.perturbation for one in found} == {"noise", "blur", "brightness", "contrast", "occlusion"}
    assert {one.agreement for one in found} == {1.0}
    for kind in ("blur", "occlusion", "noise"):
        kept = [one.reference_kept for one in found if one.perturbation == kind]
        assert 0 < kept[-1] < kept[0] < 1.0 + 1e-9


def test_mcnemar(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    score = onnxcomp.compare(*models, eval=scores["eval"]).score
    assert score is not None
    assert (score.gained, score.lost) == (0, 10)
    assert score.p_value == pytest.approx(2 / 2**10)


def test_layers(parse: Parse, scores: dict[str, Any]) -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { a = Add(x, b) c = Mul(a, k) d = Add(c, b) y = Relu(d) }"
    weights = {"b": [1.0, 2, 3], "k": [1.0, 1, 1]}
    first = parse(text, weights).SerializeToString()
    second = parse(text, weights | {"k": [1.1, 1.1, 1.1]}).SerializeToString()
    found = onnxcomp.compare(first, second, eval=scores["unlabelled"], layers=True)
    assert [layer.tensor for layer in found.layers] == ["a", "c", "d", "y"]
    exact, scaled, added, _ = found.layers
    assert exact.sqnr == np.inf
    assert (scaled.op_type, scaled.before) == ("Mul", np.inf)
    assert scaled.sqnr == pytest.approx(20, abs=0.01)  # a tenth of the amplitude
    assert added.before == scaled.sqnr < added.sqnr
    assert "the error starts at Mul" in found.render()
    assert "Relu" in found.render(verbose=True)
    same = onnxcomp.compare(first, first, layers=True)
    assert "no inner tensor is under" in same.render()


def test_a_tensor_that_means_something_else_is_no_layer(parse: Parse, scores: dict[str, Any]) -> None:
    first = "g (float[N,3] x) => (float[N,3] y) { a = Neg(x) r = Relu(a) y = Add(r, b) }"
    second = "g (float[N,3] x) => (float[N,3] y) { z = Neg(x) a = Relu(z) r = Relu(a) y = Add(r, b) }"
    models = [parse(text, {"b": [1.0, 2, 3]}).SerializeToString() for text in (first, second)]
    found = onnxcomp.compare(*models, eval=scores["unlabelled"], layers=True)
    assert [layer.tensor for layer in found.layers] == ["r", "y"]
    assert {layer.before for layer in found.layers} == {np.inf}


def test_layers_of_models_that_share_no_names(parse: Parse) -> None:
    texts = ("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", "g (float[N,3] x) => (float[N,3] z) { z = Relu(x) }")
    models = [parse(text).SerializeToString() for text in texts]
    found = onnxcomp.compare(*models, layers=True, by_position=True)
    assert found.layers == ()
    assert any("same name" in note for note in found.notes)


def test_without_data_inputs_are_made_up(models: tuple[Path, Path]) -> None:
    found = onnxcomp.compare(models[0].read_bytes(), models[1].read_bytes())
    assert found.score is None
    assert any("made-up" in note for note in found.notes)
    assert (found.reference, found.candidate) == ("the reference", "the candidate")


def test_equal_models(models: tuple[Path, Path], scores: dict[str, Any]) -> None:
    found = onnxcomp.compare(models[0], models[0], eval=scores["eval"])
    assert found.agreement == 1
    assert found.to_dict()["outputs"]["y"]["sqnr"] is None  # infinite
    assert "no difference of top1 is proven" in found.render()


@pytest.mark.parametrize(
    ("gates", "says"),
    [({"max_drop": 0.05}, "drops by 0.1"), ({"min_agreement": 0.95}, "agreement"), ({"min_sqnr": 60.0}, "SQNR")],
)
def test_gates(models: tuple[Path, Path], scores: dict[str, Any], gates: dict[str, float], says: str) -> None:
    with pytest.raises(GateFailed, match=says) as caught:
        onnxcomp.compare(*models, eval=scores["eval"], gates=onnxcomp.Gates(**gates))  # type: ignore[arg-type]
    assert isinstance(caught.value.report, onnxcomp.CompareReport)
    assert says in caught.value.report.missed[0]
    assert onnxcomp.compare(models[0], models[0], eval=scores["eval"], gates=onnxcomp.Gates(**gates)).missed == ()  # type: ignore[arg-type]


def test_a_drop_inside_the_gate_that_the_samples_can_not_prove(
    models: tuple[Path, Path], scores: dict[str, Any]
) -> None:
    found = onnxcomp.compare(*models, eval=scores["eval"], gates=onnxcomp.Gates(max_drop=0.1))
    assert any("reaches beyond the allowed drop of 0.1" in note for note in found.notes)


def test_other_names_are_paired_by_position(
    models: tuple[Path, Path], scores: dict[str, Any], parse: Parse, tmp_path: Path
) -> None:
    renamed = parse(
        "g (float[M,3] a) => (float[M,3] z, float[M,3] w) { w = Add(a, b) z = Relu(a) }", {"b": [0.0, 1, 0]}
    ).SerializeToString()
    both = parse(
        "g (float[N,3] x) => (float[N,3] y, float[N,3] v) { y = Relu(x) v = Add(x, b) }", {"b": [0.0, 1, 0]}
    ).SerializeToString()
    with pytest.raises(UsageError, match="only the candidate has 'a'") as caught:
        onnxcomp.compare(both, renamed)
    assert "--by-position" in str(caught.value.hint)
    found = onnxcomp.compare(both, renamed, by_position=True, eval=scores["eval"])
    assert found.agreement == 1
    assert list(found.outputs) == ["y", "v"]


def test_outputs_in_another_order_are_paired_by_name(parse: Parse, scores: dict[str, Any]) -> None:
    """A metric that looks at the first output must look at the same one."""
    bodies = "y = Identity(x) v = Neg(x)"
    first = parse(f"g (float[N,3] x) => (float[N,3] y, float[N,3] v) {{ {bodies} }}").SerializeToString()
    second = parse(f"g (float[N,3] x) => (float[N,3] v, float[N,3] y) {{ {bodies} }}").SerializeToString()
    found = onnxcomp.compare(first, second, eval=scores["eval"])
    assert found.agreement == 1
    assert found.score is not None
    assert found.score.candidate == 1


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("g (float[N,3] x, float[N,3] q) => (float[N,3] y) { y = Add(x, q) }", "only the candidate has 'q'"),
        ("g (float[N,3] x) => (float[N] y) { k = Constant<value_ints=[1]>() y = ReduceSum<keepdims=0>(x, k) }", None),
        ("g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Relu(x) z = Neg(x) }", "different names: y and y, z"),
    ],
)
def test_models_that_can_not_be_paired(parse: Parse, models: tuple[Path, Path], other: str, says: str | None) -> None:
    candidate = parse(other).SerializeToString()
    with pytest.raises(UsageError, match=says or "shapes differ") as caught:
        onnxcomp.compare(models[0], candidate)
    assert "--by-position" not in str(caught.value.hint)
    with pytest.raises(UsageError):
        onnxcomp.compare(models[0], candidate, by_position=True)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"metric": "top1"}, MetricError, "needs labels"),
        ({"gates": onnxcomp.Gates(max_drop=0.1)}, MetricError, "max-drop needs labels"),
        ({"metric": len}, UsageError, "metric"),
        ({"eval": "nowhere.npz"}, DataError, "nowhere"),
        ({"perturb": ["fog=1"]}, UsageError, "fog=1"),
        ({"perturb": ["all=1"]}, UsageError, "all=1"),
        ({"perturb": "noise"}, UsageError, "not one text"),
        ({"perturb": ["blur"]}, UsageError, "disturbed by blur: none is an image"),
        ({"perturb": ["noise=-1"]}, UsageError, "noise=-1"),
        ({"perturb": ["noise=nan"]}, UsageError, "nan"),
        ({"batch": 0}, UsageError, "batch"),
        ({"time_budget": 0.0}, UsageError, "time-budget must be positive"),
    ],
)
def test_wrong_use(models: tuple[Path, Path], arguments: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        onnxcomp.compare(*models, **arguments)


def test_inputs_that_can_not_be_disturbed(parse: Parse) -> None:
    model = parse("g (int64[N] x) => (int64[N] y) { y = Neg(x) }").SerializeToString()
    with pytest.raises(UsageError, match="no input can be disturbed by noise: none is of floats"):
        onnxcomp.compare(model, model, perturb=["noise=1"])


def test_the_command(
    models: tuple[Path, Path], scores: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names, report = [str(path) for path in models], tmp_path / "r.json"
    data = ["--eval", str(scores["eval"])]
    assert call("compare", *names, *data, "--perturb", "noise=0.1", "--report", str(report)) == 0
    out, err = capfd.readouterr()
    assert "noise 0.1" in out
    assert json.loads(report.read_text(encoding="utf-8"))["kind"] == "compare"
    assert all(line.endswith(" ...") for line in err.splitlines())
    failed = tmp_path / "failed.json"
    assert call("compare", *names, *data, "--max-drop", "0.01", "--report", str(failed), "--format", "json") == 1
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads(failed.read_text(encoding="utf-8"))
    assert "drops by 0.1" in err
    assert json.loads(failed.read_text(encoding="utf-8"))["missed"]


ERRORS = {
    "one model": ("{0}", 2, "CANDIDATE"),
    "missing model": ("{0} nowhere.onnx", 2, "nowhere.onnx"),
    "drop": ("{0} {1} --max-drop 2", 2, "max-drop"),
    "agreement": ("{0} {1} --min-agreement x", 2, "min-agreement"),
    "report over a model": ("{0} copy.json --report copy.json --overwrite", 2, "input itself"),
    "disturbance": ("{0} {1} --perturb fog=1", 2, "KIND=STRENGTH"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(
    name: str,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.json").write_bytes(models[0].read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arguments, code, says = ERRORS[name]
    assert call("compare", *arguments.format(*models).split()) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
