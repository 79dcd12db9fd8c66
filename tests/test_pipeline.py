from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp import registry
from onnxcomp.errors import DataError, ModelError, PassError, RecipeError
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import Need, NoConfig, Pass, PassContext, PassStats
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.recipe import METADATA_KEY, Recipe, Step
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
FEEDS = [{"x": np.random.default_rng(i).normal(size=(2, 4)).astype(np.float32)} for i in range(2)]


def set_weight(model: ir.Model, array: np.ndarray) -> PassStats:
    model.graph.initializers["w"].const_value = ir.tensor(array.astype(np.float32), name="w")
    return PassStats(modified=True, counters={"weights": 1})


class Changing(Pass[NoConfig]):
    """Adds a number to the weight; a test sets whether it claims to be exact."""

    name: ClassVar[str] = "changing"
    exact: ClassVar[bool] = True
    by: ClassVar[float] = 0.0

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        ctx.skip(model.graph.node(0), "too easy")
        weight = model.graph.initializers["w"].const_value
        assert weight is not None
        return set_weight(model, weight.numpy() + self.by)


class Lossy(Changing):
    exact: ClassVar[bool] = False
    by: ClassVar[float] = 0.1


class Rounding(Changing):
    by: ClassVar[float] = 1e-6


class Flipping(Changing):
    by: ClassVar[float] = 5e-3


class Fine(Changing):
    by: ClassVar[float] = 1e-3


class Quantizing(Lossy):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        x = model.graph.inputs[0]
        scale = ir.val("scale", const_value=ir.tensor(np.array(0.1, np.float32), name="scale"))
        model.graph.register_initializer(scale)
        integers = ir.node("QuantizeLinear", [x, scale])
        rounded = ir.node("DequantizeLinear", [integers.outputs[0], scale])
        product = model.graph.node(0)
        product.replace_input_with(0, rounded.outputs[0])
        model.graph.insert_before(product, [integers, rounded])
        return PassStats(modified=True)


class Wrong(Changing):
    by: ClassVar[float] = 0.1


class Broken(Lossy):
    by: ClassVar[float] = float("nan")


class BrokenExact(Broken):
    exact: ClassVar[bool] = True


class Idle(Changing):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        super().run(model, ctx)  # what it did is thrown away: it says that nothing changed
        return PassStats(modified=False, counters={"looked at": 1})


class Failing(Changing):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        super().run(model, ctx)
        raise PassError("it is Monday")


class Invalid(Changing):
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        model.graph.node(0).op_type = "NoSuchOp"
        return PassStats(modified=True)


class Renaming(Invalid):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        model.graph.outputs[0].name = "other"
        return PassStats(modified=True)


class RenamingInput(Invalid):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        model.graph.inputs[0].name = "other"
        return PassStats(modified=True)


class Reshaping(Invalid):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        model.graph.outputs[0].shape = None
        return set_weight(model, np.ones((4, 3)))


class Permuting(Changing):
    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        return set_weight(model, np.eye(4)[::-1])


class Calibrated(Changing):
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        assert ctx.ranges is not None
        return PassStats(modified=False, counters={f"{ctx.ranges.get(['x'])['x'].high:.0f}": 1})


@pytest.fixture
def model(parse: Parse) -> ir.Model:
    text = "g (float[N, 4] x) => (float[N, M] y) { y = MatMul(x, w) }"
    return load(parse(text, {"w": np.eye(4)}).SerializeToString())


@pytest.fixture
def apply(model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ir.Model, list[PassReport]]]:
    """Run the named classes of this module as a recipe; the model must stay as it is."""
    kinds = [name for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, Changing)]
    offered = [EntryPoint(name.lower(), f"{__name__}:{name}", "onnxcomp.passes") for name in kinds]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: offered)

    def run(*names: str, ctx: PassContext | None = None) -> tuple[ir.Model, list[PassReport]]:
        before = serialized(model)
        recipe = Recipe(tuple(Step(name) for name in names))
        ctx = ctx or PassContext(get_target("cpu-x86-vnni"))
        result = run_recipe(model, recipe, ctx, Verifier(model, FEEDS))
        assert serialized(model) == before
        return result

    return run


def output(model: ir.Model) -> np.ndarray:
    result = open_session(model).run(FEEDS[0])["y"]
    assert isinstance(result, np.ndarray)
    return result


def steps(model: ir.Model) -> list[str]:
    return [step.name for step in recipe_of(model).steps]


@pytest.mark.parametrize(("name", "failure"), [("permuting", "output y changed"), ("rounding", None)])
def test_an_exact_change_of_answers_that_are_no_floats_is_rolled_back(
    name: str, failure: str | None, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"permuting": Permuting, "rounding": Rounding}
    offered = [EntryPoint(key, f"{__name__}:{kind.__name__}", "onnxcomp.passes") for key, kind in kinds.items()]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: offered)
    text = "g (float[N, 4] x) => (int64[N] y) { m = MatMul(x, w) y = ArgMax <axis = 1, keepdims = 0> (m) }"
    model = load(parse(text, {"w": np.eye(4)}).SerializeToString())
    ctx = PassContext(get_target("cpu-x86-vnni"))
    _, (report,) = run_recipe(model, Recipe((Step(name),)), ctx, Verifier(model, FEEDS))
    assert (report.failure, report.modified) == (failure, failure is None)


def test_a_lossy_change_is_kept(apply: Any, model: ir.Model) -> None:
    result, (report,) = apply("lossy")
    assert report.modified
    assert report.failure is None
    assert report.counters == {"weights": 1}
    assert 5 < report.sqnr < 40
    assert report.seconds > 0
    assert np.abs(output(result) - output(model)).max() > 0.01
    assert steps(result) == ["lossy"]


def test_rounding_is_no_change(apply: Any) -> None:
    result, (report,) = apply("rounding")
    assert report.modified
    assert report.sqnr > 60
    assert steps(result) == ["rounding"]


def test_an_exact_pass_is_held_to_what_it_got_not_to_what_lossy_ones_before_it_changed(apply: Any) -> None:
    result, (lossy, rounding, wrong) = apply("lossy", "rounding", "wrong")
    assert steps(result) == ["lossy", "rounding"]
    assert rounding.sqnr == pytest.approx(lossy.sqnr, abs=0.1)  # it is told against the original
    assert "by more than rounding" in wrong.failure


@pytest.mark.parametrize(("apart", "kept"), [(1e-5, True), (1e-2, False)])
def test_where_rounding_shows_in_the_answers_it_is_no_change(
    apart: float, kept: bool, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two channels that are nearly alike are subtracted: onnxruntime's own folding of the scale shows, too."""
    offered = [EntryPoint("fine", f"{__name__}:Fine", "onnxcomp.passes")]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: offered)
    weights = {"k": np.full((2, 1, 1, 1), 0.7), "s": np.array([1.1, 1.1 + apart]), "m": np.array([[[[1.0]], [[-1.0]]]])}
    weights |= {"zero": np.zeros(2), "one": np.ones(2), "w": np.eye(4)}
    text = """g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) {
        c = Conv(x, k)  n = BatchNormalization(c, s, zero, zero, one)  d = Conv(n, m)  y = MatMul(d, w)
    }"""
    model = load(parse(text, weights).SerializeToString())
    verifier = Verifier(model, [{"x": np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)}])
    ctx = PassContext(get_target("cpu-x86-vnni"))
    _, (report,) = run_recipe(model, Recipe((Step("fine"),)), ctx, verifier)
    assert report.modified == kept


def test_rounding_may_flip_integers_of_a_quantized_model(apply: Any) -> None:
    _, (report,) = apply("flipping")
    assert "by more than rounding" in report.failure
    result, (quantized, flipping, wrong) = apply("quantizing", "flipping", "wrong")
    assert quantized.sqnr < 35
    assert steps(result) == ["quantizing", "flipping"]
    assert flipping.failure is None
    assert "by more than rounding" in wrong.failure


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong", "by more than rounding"),
        ("failing", "it is Monday"),
        ("invalid", "NoSuchOp"),
        ("renaming", "the outputs changed"),
        ("renaminginput", "inputs"),
        ("reshaping", "changed its shape"),
        ("broken", "finite"),
        ("brokenexact", ""),
    ],
)
def test_what_goes_wrong_is_rolled_back(apply: Any, model: ir.Model, name: str, reason: str) -> None:
    result, (report,) = apply(name)
    assert not report.modified
    assert report.failure is not None
    assert reason in report.failure
    assert serialized(result) == serialized(model)
    assert METADATA_KEY not in result.metadata_props


def test_a_failure_does_not_stop_the_others(apply: Any) -> None:
    result, reports = apply("rounding", "failing", "wrong", "lossy", "idle")
    assert [report.name for report in reports] == ["rounding", "failing", "wrong", "lossy", "idle"]
    assert [report.modified for report in reports] == [True, False, False, True, False]
    assert [bool(report.failure) for report in reports] == [False, True, True, False, False]
    assert steps(result) == ["rounding", "lossy"]


def test_what_is_not_modified_is_thrown_away(apply: Any, model: ir.Model) -> None:
    result, (report,) = apply("idle")
    assert not report.modified
    assert report.failure is None
    assert report.counters == {"looked at": 1}
    assert [skip.reason for skip in report.skipped] == ["too easy"]
    assert serialized(result) == serialized(model)


def test_what_was_left_alone_is_reported_once(apply: Any) -> None:
    _, reports = apply("lossy", "rounding", "idle")
    for report in reports:
        assert [(skip.op_type, skip.reason) for skip in report.skipped] == [("MatMul", "too easy")]


def test_calibration_is_given_or_the_pass_does_not_run(apply: Any, model: ir.Model, samples: Any) -> None:
    _, (report,) = apply("calibrated")
    assert "needs calibration" in report.failure
    feeds = samples([{"x": np.full((1, 4), 7, np.float32)}])
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=feeds, ranges=RangeStore(model, feeds))
    _, (report,) = apply("calibrated", ctx=ctx)
    assert report.failure is None
    assert report.counters == {"7": 1}


def test_the_recipe_grows(apply: Any, model: ir.Model) -> None:
    first, _ = apply("rounding")
    second, _ = run_recipe(
        first, Recipe((Step("lossy"),)), PassContext(get_target("cpu-x86-vnni")), Verifier(first, FEEDS)
    )
    assert steps(first) == ["rounding"]
    assert steps(second) == ["rounding", "lossy"]
    assert steps(load(serialized(second))) == ["rounding", "lossy"]
    assert steps(model) == []


def test_an_empty_recipe(apply: Any, model: ir.Model) -> None:
    result, reports = apply()
    assert reports == []
    assert serialized(result) == serialized(model)


def test_progress_names_the_passes(apply: Any, model: ir.Model) -> None:
    seen: list[str] = []
    recipe = Recipe((Step("rounding"), Step("idle")))
    ctx = PassContext(get_target("cpu-x86-vnni"))
    run_recipe(model, recipe, ctx, Verifier(model, FEEDS), progress=seen.append)
    assert seen == ["rounding", "idle"]


@pytest.mark.parametrize(
    "text", ["", "no recipe", "schema_version = 99", 'schema_version = 1\n[[pass]]\nname = "gone"']
)
def test_a_recipe_that_cannot_be_read(model: ir.Model, text: str) -> None:
    model.metadata_props[METADATA_KEY] = text
    assert recipe_of(model) == Recipe()


def test_the_verifier_wants_samples_that_fit(model: ir.Model) -> None:
    with pytest.raises(DataError):
        Verifier(model, [{"x": np.ones((2, 3), np.float32)}])
    with pytest.raises(DataError):
        Verifier(model, [{"z": np.ones((2, 4), np.float32)}])


def test_the_verifier_measures(model: ir.Model, parse: Parse) -> None:
    verifier = Verifier(model, FEEDS)
    assert verifier.compare(open_session(model)).sqnr == float("inf")
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Mul(x, w) }"
    tenth = load(parse(text, {"w": np.float32(1.1)}).SerializeToString())
    assert verifier.compare(open_session(tenth)).sqnr == pytest.approx(20, abs=0.01)
    other = load(parse(text.replace("y", "z"), {"w": np.float32(1)}).SerializeToString())
    with pytest.raises(ModelError, match="outputs changed"):
        verifier.compare(open_session(other))


def test_what_was_not_finite_before_may_stay_so(parse: Parse) -> None:
    """A model that masks with infinity is not broken by a pass."""
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Log(x) }"
    model = load(parse(text).SerializeToString())
    assert Verifier(model, FEEDS).compare(open_session(model)).sqnr == float("inf")


class Numbers(Pass[Any]):
    name: ClassVar[str] = "numbers"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        return PassStats(modified=False)


def test_settings_of_a_pass_without_any() -> None:
    assert Numbers.from_settings({}).config == NoConfig()
    for settings in ({"depth": 1}, {"": 0}):
        typed: Mapping[str, Any] = settings
        with pytest.raises(RecipeError, match="has no setting") as caught:
            Numbers.from_settings(typed)
        assert "none" in str(caught.value.hint)
