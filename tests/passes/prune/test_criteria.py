"""Criteria: each finds a channel that was planted to matter least."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcomp.data import open_samples
from onnxcomp.errors import PassError
from onnxcomp.facts import input_specs
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.criteria import lasso, thinet
from onnxcomp.passes.prune.obs import Reading
from onnxcomp.passes.prune.study import curves_of, study_of
from onnxcomp.target import get_target

CHANNELS, DEAD, TWIN = 8, 5, 2
TELLING = ["obs", "energy", "thinet", "lasso", "apoz", "activation-mean", "activation-std"]


def planted(*, twins: bool) -> onnx.ModelProto:
    """Build a convolution of which one filter never fires, or does what another one does, and one that reads it."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(CHANNELS, 3, 3, 3)), rng.normal(size=(4, CHANNELS, 1, 1))
    bias = np.full(CHANNELS, 0.1)
    if twins:
        first[DEAD] = first[TWIN]
    else:
        first[DEAD], bias[DEAD] = 0.01 * first[DEAD], -1.0
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu(a)
        y = Conv(r, w2)
    }"""
    model = onnx.parser.parse_model(text)
    for name, array in (("w1", first), ("b1", bias), ("w2", second)):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return model


def order(model: onnx.ModelProto, criterion: str) -> list[int]:
    loaded = load(model.SerializeToString())
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=open_samples(feeds, input_specs(loaded)))
    study = study_of(loaded, ctx, granularity="head")
    (curve,) = curves_of(study, ctx, criterion=criterion, seed=0).values()  # type: ignore[arg-type]
    assert (np.diff(curve.error) >= 0).all()
    found: list[int] = curve.order.tolist()
    assert sorted(found) == list(range(CHANNELS))
    return found


@pytest.mark.parametrize("criterion", [*TELLING, "l1", "l2"])
def test_what_never_fires_goes_first(criterion: str) -> None:
    assert order(planted(twins=False), criterion)[0] == DEAD


@pytest.mark.parametrize("criterion", ["obs", "kmeans"])
def test_of_two_that_do_the_same_one_goes_first_and_the_other_does_not_follow(criterion: str) -> None:
    first, second, *_ = order(planted(twins=True), criterion)
    assert first in (DEAD, TWIN)
    assert second not in (DEAD, TWIN)


def test_samples_are_asked_for() -> None:
    ctx = PassContext(get_target("cpu-x86-vnni"))
    study = study_of(load(planted(twins=False).SerializeToString()), ctx, granularity="head")
    with pytest.raises(PassError, match="thinet needs calibration samples"):
        curves_of(study, ctx, criterion="thinet", seed=0)


def test_thinet_adds_up_what_a_set_contributes_together() -> None:
    """Two channels that cancel each other out contribute nothing together."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(1000, 5))
    vectors[:, 4] = -vectors[:, 1]
    rows = rng.normal(size=(3, 5))
    rows[:, 4] = rows[:, 1]
    reading = Reading((vectors.T @ vectors / 1000)[None], rows[None], np.arange(5)[None])
    found = thinet([reading], 5)
    for count in range(1, 6):
        gone = found.order[:count]
        lost = np.square(vectors[:, gone] @ rows[:, gone].T).sum() / np.square(vectors @ rows.T).sum()
        assert found.error[count] >= lost - 1e-9
    place = {channel: number for number, channel in enumerate(found.order.tolist())}
    assert abs(place[1] - place[4]) == 1


def test_lasso_lets_go_last_what_makes_up_the_outputs() -> None:
    rows = np.diag([1.0, 5.0, 2.0, 4.0])
    assert lasso([Reading(np.eye(4)[None], rows[None], np.arange(4)[None])], 4).order.tolist() == [0, 2, 3, 1]
