from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import ModelError, PassError, RecipeError
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import Pass, PassContext
from onnxcomp.passes.quantize.bias_correct import BiasCorrect, BiasCorrectConfig
from onnxcomp.passes.quantize.dynamic import QuantizeDynamic
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.runtime import optimized_graph
from onnxcomp.statistics import MeanStore, RangeStore, collect_means
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
CORRECT = BiasCorrect()
STATIC = QuantizeStatic(QuantizeStaticConfig(method="percentile", percentile=97.0))  # saturation moves means
DYNAMIC = QuantizeDynamic(QuantizeDynamic.Config(min_elements=0))
CONV = "Conv <pads = [1, 1, 1, 1]>"


def image(nodes: str, out: str = "float[N, M, H, W] y") -> str:
    return f"g (float[N, 8, H, W] x) => ({out}) {{ {nodes} }}"


def rows(nodes: str) -> str:
    return f"g (float[N, 16] x) => (float[N, M] y) {{ {nodes} }}"


@pytest.fixture
def constants(gaussian: Any) -> dict[str, np.ndarray]:
    return {
        "w33": gaussian(8, 8, 3, 3),
        "v33": gaussian(8, 8, 3, 3, seed=1),
        "depthwise": gaussian(8, 1, 3, 3),
        "m": gaussian(16, 32, fan_in=16),
        "n": gaussian(32, 8, fan_in=32),
        "b8": gaussian(8, fan_in=4),
        "b32": gaussian(32, fan_in=4),
        "large": np.array([1e6] + [0] * 31, np.float32),
    }


class Corrected:
    """A model before quantization, after it, and with biases corrected."""

    def __init__(self, parse: Parse, samples: Any, text: str, constants: dict[str, np.ndarray], rewrite: Pass[Any]):
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        proto = parse(text, {name: value for name, value in constants.items() if name in words})
        self.float = load(proto.SerializeToString())
        rng = np.random.default_rng(0)
        shapes = [(2, 8, 6, 6), (1, 8, 4, 5)] if "8, H" in text else [(9, 16), (4, 16)]
        self.feeds = [{"x": np.exp(rng.normal(size=shape)).astype(np.float32)} for shape in shapes * 3]
        self.samples = samples(self.feeds)
        self.ctx = PassContext(get_target("cpu-x86-vnni"), self.samples, RangeStore(self.float, self.samples))
        self.ctx.reference = MeanStore(self.float, self.samples)
        self.quantized = self.float.clone()
        assert rewrite.run(self.quantized, self.ctx).modified
        self.ctx.skipped.clear()
        self.model = self.quantized.clone()
        self.stats = CORRECT.run(self.model, self.ctx)

    def shift(self, model: ir.Model, axis: int) -> float:
        """Largest difference between the channel means of the outputs of a model and of the float model, as run."""
        found = [collect_means(m, self.samples, {"y": axis})["y"] for m in (self.float, model)]
        return float(np.abs(found[0] - found[1]).max())

    @property
    def reasons(self) -> set[str]:
        return {skip.reason for skip in self.ctx.skipped}


MODELS: dict[str, tuple[str, Pass[Any], int]] = {
    # name: (graph, what quantizes it, biases)
    "conv": (image(f"a = {CONV} (x, w33, b8) y = Sigmoid(a)"), STATIC, 1),
    "conv without bias": (image(f"a = {CONV} (x, w33) y = Sigmoid(a)"), STATIC, 1),
    "depthwise": (image("a = Conv <group = 8> (x, depthwise, b8) y = Sigmoid(a)"), STATIC, 1),
    "chain": (image(f"a = {CONV} (x, w33, b8) r = Relu(a) b = {CONV} (r, v33) y = Sigmoid(b)"), STATIC, 2),
    "shared bias": (image(f"a = {CONV} (x, w33, b8) r = Relu(a) b = {CONV} (r, v33, b8) y = Sigmoid(b)"), STATIC, 2),
    "per tensor": (
        image(f"a = {CONV} (x, w33) y = Sigmoid(a)"),
        QuantizeStatic(QuantizeStaticConfig(method="percentile", percentile=97.0, per_channel=False)),
        1,
    ),
    "branches": (image(f"a = {CONV} (x, w33, b8) b = {CONV} (x, v33) c = Sum(a, b) y = Sigmoid(c)"), STATIC, 2),
    "gemm": (rows("y = Gemm(x, m, b32)"), STATIC, 1),
    "matmul add": (rows("a = MatMul(x, m) y = Add(a, b32)"), STATIC, 1),
    "dynamic gemm": (rows("a = Gemm(x, m, b32) r = Relu(a) y = Gemm(r, n, b8)"), DYNAMIC, 2),
    "dynamic matmul add": (rows("a = MatMul(x, m) y = Add(b32, a)"), DYNAMIC, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_means_are_those_of_the_float_model(parse: Parse, samples: Any, constants: Any, name: str) -> None:
    text, rewrite, count = MODELS[name]
    done = Corrected(parse, samples, text, constants, rewrite)
    assert done.stats.counters == {"biases corrected": count}
    onnx.checker.check_model(ir.to_proto(done.model), full_check=True)
    load(serialized(done.model))
    axis = 1 if "8, H" in text else -1
    names = {str(v.name) for n in done.float.graph for v in n.outputs if n.op_type in ("Conv", "Gemm", "Add")}
    tensors = {n: axis for n in names if any(v.name == n for node in done.model.graph for v in node.outputs)}
    assert tensors
    wanted = collect_means(done.float, done.samples, tensors)
    for model, near in ((done.quantized, False), (done.model, True)):
        found = collect_means(model, done.samples, tensors)
        for tensor in tensors:
            shift = np.abs(found[tensor] - wanted[tensor]).max()
            assert shift < 2e-4 if near else shift > 5e-4


def test_an_output_of_the_graph_is_corrected_before_it_is_rounded(parse: Parse, samples: Any, constants: Any) -> None:
    done = Corrected(parse, samples, image(f"y = {CONV} (x, w33, b8)"), constants, STATIC)
    assert done.stats.counters == {"biases corrected": 1}
    assert [value.name for value in done.model.graph.outputs] == ["y"]
    before, after = open_session(done.quantized), open_session(done.model)
    assert any((before.run(feed)["y"] != after.run(feed)["y"]).any() for feed in done.feeds)


def test_integer_biases_stay_integer_and_fused(parse: Parse, samples: Any, constants: Any) -> None:
    for name in ("conv", "conv without bias", "chain", "per tensor"):
        done = Corrected(parse, samples, MODELS[name][0], constants, MODELS[name][1])
        ops = [node.op_type for node in onnx.load_from_string(optimized_graph(serialized(done.model))).graph.node]
        assert "Conv" not in ops
        assert "FusedConv" not in ops
        assert ops.count("QLinearConv") == MODELS[name][2]


def test_a_bias_never_leaves_int32(parse: Parse, samples: Any, constants: Any) -> None:
    """The first channel's bias fills int32, and its weights' scale was raised so that it does."""
    done = Corrected(parse, samples, rows("y = Gemm(x, m, large)"), constants, STATIC)
    assert done.stats.modified
    run = open_session(done.model).run(done.feeds[0])["y"]
    expected = open_session(done.float).run(done.feeds[0])["y"]
    np.testing.assert_allclose(run[:, 0], expected[:, 0], rtol=1e-2)


@pytest.mark.parametrize(
    ("text", "rewrite"),
    [(rows("y = MatMul(x, m)"), STATIC), (rows("a = MatMul(x, m) r = Relu(a) y = Add(r, b32)"), DYNAMIC)],
)
def test_declines(parse: Parse, samples: Any, constants: Any, text: str, rewrite: Pass[Any]) -> None:
    done = Corrected(parse, samples, text, constants, rewrite)
    assert not done.stats.modified
    assert serialized(done.model) == serialized(done.quantized)
    assert done.reasons == {"it has no bias of float32 or int32, nor place for one"}


def test_excluded(parse: Parse, samples: Any, constants: Any) -> None:
    done = Corrected(parse, samples, image(f"y = {CONV} (x, w33, b8)"), constants, STATIC)
    (name,) = (str(node.name) for node in done.quantized.graph if node.op_type == "Conv")
    stats = BiasCorrect(BiasCorrectConfig(exclude=(name,))).run(done.quantized.clone(), done.ctx)
    assert not stats.modified
    assert done.reasons == {"excluded"}


def test_a_float_model_is_left_alone(parse: Parse, samples: Any, constants: Any) -> None:
    done = Corrected(parse, samples, image(f"y = {CONV} (x, w33, b8)"), constants, STATIC)
    assert not CORRECT.run(done.float.clone(), done.ctx).modified


def test_a_tensor_that_the_float_model_lacks(parse: Parse, samples: Any, constants: Any) -> None:
    done = Corrected(parse, samples, image(f"a = {CONV} (x, w33, b8) y = Sigmoid(a)"), constants, STATIC)
    other = load(parse(image("y = Relu(x)")).SerializeToString())
    done.ctx.reference = MeanStore(other, done.samples)
    assert not CORRECT.run(done.quantized.clone(), done.ctx).modified
    assert done.reasons == {"the float model has no such tensor"}


def test_a_nan_is_named(parse: Parse, samples: Any, constants: Any) -> None:
    done = Corrected(parse, samples, image(f"y = {CONV} (x, w33, b8)"), constants, STATIC)
    done.feeds[2]["x"][0, 0, 0, 0] = np.nan
    broken = samples(done.feeds)
    done.ctx.samples, done.ctx.reference = broken, MeanStore(done.float, broken)
    with pytest.raises(ModelError, match=r"tensor y is not a number \(NaN\) on calibration sample 2"):
        CORRECT.run(done.quantized.clone(), done.ctx)


def test_it_needs_samples_and_a_float_model(parse: Parse, constants: Any) -> None:
    model = load(parse(rows("y = MatMul(x, m)"), {"m": constants["m"]}).SerializeToString())
    with pytest.raises(PassError, match="needs calibration samples"):
        CORRECT.run(model, PassContext(get_target("cpu-x86-vnni")))


def test_settings_are_checked() -> None:
    with pytest.raises(RecipeError, match="runs must be 1 or more"):
        BiasCorrectConfig(runs=0)


def test_a_recipe_compares_with_the_last_float_model(parse: Parse, samples: Any, constants: Any) -> None:
    """Not with the model that the recipe began with: an earlier pass may have given tensors another meaning."""
    done = Corrected(parse, samples, rows("y = Gemm(x, m, b32)"), constants, STATIC)
    recipe = Recipe((Step("round-weights"), Step("quantize-static"), Step("bias-correct")))
    model, reports = run_recipe(done.float, recipe, done.ctx, Verifier(done.float, done.feeds))
    assert [report.failure for report in reports] == [None] * 3
    assert all(report.modified for report in reports)
    assert done.ctx.reference is not None
    assert done.ctx.reference.model is not done.float
    assert [node.op_type for node in done.ctx.reference.model.graph] == ["Gemm"]
    assert done.shift(model, -1) < 1e-3
