"""Static INT8 of well-known networks with random weights: what is promised runs in integers."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx_cases import light_model

from onnxcomp.data import Samples, synthetic
from onnxcomp.facts import input_specs
from onnxcomp.model import load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.runtime import optimized_graph
from onnxcomp.search.candidates import cleanup
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

STATIC = Recipe((Step("upgrade-opset", {"minimum": 13}), Step("quantize-static")))
# All convolutions and matrix products, and what joins their results in integers, by the operators that onnxruntime runs
EXPECTED = {
    "squeezenet": {"QLinearConv": 26, "QLinearConcat": 8},
    "shufflenet": {"QLinearConv": 49, "QGemm": 1, "QLinearConcat": 3, "QLinearAveragePool": 1},
    "inception_v1": {"QLinearConv": 57, "QGemm": 1, "QLinearConcat": 9, "QLinearAveragePool": 1},
}
SLOW = {
    "resnet50": {"QLinearConv": 53, "QGemm": 1},
    "inception_v2": {"QLinearConv": 69, "QGemm": 1, "QLinearConcat": 8, "QLinearAveragePool": 7},
    "zfnet512": {"QLinearConv": 5, "QGemm": 3},
    "bvlc_alexnet": {"QLinearConv": 5, "QGemm": 3},
    "densenet121": {"QLinearConv": 121},  # what joins their results feeds BatchNormalization, which stays float
    "vgg19": {"QLinearConv": 16, "QGemm": 3},
}


LARGE = ("vgg19", "zfnet512", "bvlc_alexnet", "densenet121", "resnet50")  # up to hundreds of megabytes of weights
_ALONE = pytest.mark.skipif("ONNXCOMP_SLOW" not in os.environ, reason="takes up to a minute: ONNXCOMP_SLOW=1 runs it")


def marked(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow, *([_ALONE] if name in LARGE else [])])


@pytest.mark.parametrize("name", [*EXPECTED, *map(marked, SLOW)])
def test_onnxruntime_fuses_all_that_static_int8_promises(name: str, samples: Callable[..., Samples]) -> None:
    model = load(light_model(name).SerializeToString())
    data = samples(list(synthetic(input_specs(model), count=2, seed=0)))
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=data)
    verifier = Verifier(model, data)
    model, reports = run_recipe(model, cleanup(), ctx, verifier)
    ctx.ranges = RangeStore(model, data)
    model, (_, static) = run_recipe(model, STATIC, ctx, verifier)
    assert [report.failure for report in (*reports, static) if report.failure] == []
    assert static.modified
    graph = onnx.load_from_string(optimized_graph(serialized(model))).graph
    fused = Counter(node.op_type for node in graph.node if node.op_type.startswith(("QLinear", "QGemm")))
    assert fused == (EXPECTED | SLOW)[name]
    assert static.counters["int8 anchors"] + static.counters["int8 joins"] == fused.total()
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & {node.op_type for node in graph.node}
