"""Made-up samples fit the model: the first kind of values that it runs on with finite answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.api.common import make_up
from onnxcomp.api.planning import plan
from onnxcomp.errors import ModelError
from onnxcomp.model import load

Parse = Callable[..., onnx.ModelProto]


def first(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    samples = make_up(load(proto.SerializeToString()), seed=0)
    return dict(next(iter(samples)))


def test_normal_values_where_they_do(parse: Parse) -> None:
    feed = first(parse("g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }"))
    assert feed["x"].shape == (1, 8)
    assert (feed["x"] < 0).any()


@pytest.mark.parametrize("operator", ["Log", "Sqrt"])
def test_positive_values_where_others_give_nan(operator: str, parse: Parse) -> None:
    feed = first(parse(f"g (float[N, 64] x) => (float[N, 64] y) {{ y = {operator}(x) }}"))
    assert ((feed["x"] > 0) & (feed["x"] <= 1)).all()


def test_a_graph_of_nodes_and_edges_has_no_batch(parse: Parse) -> None:
    """Two rows of ends of edges are no batch of two; there is a weight for each edge."""
    text = """g (float[N, 4] x, int64[2, E] ends, float[E, 1] weight) => (float[2, E, 4] y) {
        picked = Gather <axis = 0> (x, ends)  y = Mul(picked, weight) }"""
    feed = first(parse(text))
    assert feed["ends"].shape[1] == feed["weight"].shape[0]


def test_a_state_has_the_batch_in_its_second_axis(parse: Parse) -> None:
    text = """g (float[batch, n] x, float[2, batch, 4] state) => (float[2, batch, 4] y) {
        level = ReduceMean <axes = [1]> (x)  y = Add (state, level) }"""
    feed = first(parse(text))
    assert feed["x"].shape[0] == feed["state"].shape[1] == 1


def test_none_fits(parse: Parse) -> None:
    proto = parse("g (float[A, B] x, float[A, B] z) => (float y) { y = MatMul(x, z) }")
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 7
    with pytest.raises(ModelError) as caught:
        make_up(load(proto.SerializeToString()), seed=0)
    assert "give samples of your own" in str(caught.value.hint)


def test_answers_that_are_never_finite_are_no_failure(parse: Parse) -> None:
    proto: Any = parse("g (float[N, 8] x) => (float[N, 8] y) { zero = Sub(x, x)  y = Div(x, zero) }")
    assert first(proto)["x"].shape == (1, 8)


def test_what_is_fitted_is_judged_on_others(parse: Parse) -> None:
    """What is fitted to a few samples answers those well: they say nothing about it."""
    proto = parse("g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }")
    settings = plan(proto.SerializeToString(), synthetic_calibration=True, seed=3).settings
    assert settings.evaluation == "synthetic (seed 3), 16 runs"
    assert settings.calibration == "synthetic (seed 4), 16 runs"
    samples = make_up(load(proto.SerializeToString()), seed=3)
    judged, fitted = (next(iter(some))["x"] for some in (samples, samples.others()))
    assert fitted.shape == judged.shape
    assert not np.isclose(fitted, judged).any()
