from typing import Any

import numpy as np

from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.build import Builder
from onnxcomp.search.candidates import Candidate, quantized
from onnxcomp.search.memory import Memory
from onnxcomp.search.race import Race
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target


def quiet(_stage: str, _share: float | None) -> None:
    """Show nothing."""


def test_late_one_candidate_is_enough(parse: Any) -> None:
    text = "g (float[N, 64] x) => (float[N, 64] y) { h = MatMul(x, u)  y = Relu(h) }"
    model = load(parse(text, {"u": np.random.default_rng(0).normal(size=(64, 64))}).SerializeToString())
    feeds = [{"x": np.ones((1, 64), np.float32)}]
    ctx = PassContext(get_target("cpu-x86-vnni"))
    wanted = [
        Candidate("the same", Recipe((Step("fold-batch-norm"),))),
        Candidate("dynamic", Recipe((Step("quantize-dynamic"),))),
        Candidate("half", Recipe((Step("store-float16"),))),
    ]
    for late, expected in ((False, ["dynamic", "half"]), (True, ["dynamic"])):
        builder = Builder(model, ctx, Verifier(model, feeds), quiet, Memory(), late=lambda late=late: late)  # type: ignore[misc]
        assert [found.result.name for found in builder.build(wanted)] == expected


def test_biases_are_corrected_where_there_is_time(parse: Any, samples: Any) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(64, 64)) / 8 for name in "uv"} | {name: rng.normal(size=64) for name in "bc"}
    text = "g (float[N, 64] x) => (float[N, 64] y) { h = Gemm(x, u, b)  r = Relu(h)  y = Gemm(r, v, c) }"
    model = load(parse(text, weights).SerializeToString())
    feeds = [{"x": rng.normal(size=(16, 64)).astype(np.float32)} for _ in range(8)]
    data = samples(feeds)
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(model, data))
    builder = Builder(model, ctx, Verifier(model, feeds), quiet, Memory())
    race = Race(model, feeds[0], threads=1, seed=0, progress=quiet)
    built = {found.result.name: found for found in builder.build(quantized(calibrated=True))}

    assert builder.correct(built["static"], race, 0.0) is None
    assert builder.correct(built["dynamic"], race, 600.0) is None  # its means are known only when it runs
    found = builder.correct(built["static"], race, 600.0)
    assert found is not None
    assert found.result.name == found.family == "static, bias-corrected"
    assert found.recipe.steps[-1].name == "bias-correct"
    assert found.result.passes[-1].modified
    assert found.rescued  # each trial of a rescue would correct all layers again
