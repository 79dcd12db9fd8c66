from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcomp.errors import RecipeError
from onnxcomp.model import load, open_session, size
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.simulate import SWITCHES
from onnxcomp.passes.quantize.weight_only import QuantizeWeights, QuantizeWeightsConfig
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
LEAST_SQNR = {8: 36.0, 4: 14.0}  # dB, for one layer of Gaussian weights; MatMulNBits rounds activations too


def rewrite(**settings: Any) -> QuantizeWeights:
    return QuantizeWeights(QuantizeWeightsConfig(**{"min_elements": 0, **settings}))


MODELS = {  # text, weights by name
    "matmul": ("g (float[N, 96] x) => (float[N, 48] y) { y = MatMul(x, w) }", {"w": (96, 48)}),
    "matmul, stacked": ("g (float[2, 3, 100] x) => (float[2, 3, 48] y) { y = MatMul(x, w) }", {"w": (100, 48)}),
    "gemm": ("g (float[N, 96] x) => (float[N, 48] y) { y = Gemm(x, w, b) }", {"w": (96, 48), "b": (48,)}),
    "gemm, transposed": (
        "g (float[N, 96] x) => (float[N, 48] y) { y = Gemm <transB = 1> (x, w, b) }",
        {"w": (48, 96), "b": (48,)},
    ),
    "gemm, scaled": ("g (float[N, 96] x) => (float[N, 48] y) { y = Gemm <alpha = 0.5> (x, w) }", {"w": (96, 48)}),
    "gemm, transA": ("g (float[96, N] x) => (float[N, 48] y) { y = Gemm <transA = 1> (x, w) }", {"w": (96, 48)}),
    "conv": (
        "g (float[1, 8, 6, 6] x) => (float[1, 40, 4, 4] y) { y = Conv(x, w, b) }",
        {"w": (40, 8, 3, 3), "b": (40,)},
    ),
    "conv, 1-D, grouped": (
        "g (float[1, 32, 9] x) => (float[1, 32, 7] y) { y = Conv <group = 2> (x, w) }",
        {"w": (32, 16, 3)},
    ),
    "transposed conv": (
        "g (float[1, 24, 4, 4] x) => (float[1, 8, 6, 6] y) { y = ConvTranspose(x, w) }",
        {"w": (24, 8, 3, 3)},
    ),
    "table": ("g (int64[5] x) => (float[5, 64] y) { y = Gather(w, x) }", {"w": (40, 64)}),
    "lstm": (
        "g (float[5, 2, 24] x) => (float[5, 1, 2, 16] y) { y = LSTM <hidden_size = 16> (x, w, r) }",
        {"w": (1, 64, 24), "r": (1, 64, 16)},
    ),
    "two-way lstm": (
        """g (float[5, 2, 24] x) => (float[5, 2, 2, 16] y)
        { y = LSTM <hidden_size = 16, direction = "bidirectional"> (x, w, r) }""",
        {"w": (2, 64, 24), "r": (2, 64, 16)},
    ),
    "gru": (
        "g (float[5, 2, 24] x) => (float[5, 1, 2, 16] y) { y = GRU <hidden_size = 16> (x, w, r) }",
        {"w": (1, 48, 24), "r": (1, 48, 16)},
    ),
}


def model(parse: Parse, gaussian: Any, name: str, *, opset: int = 21) -> onnx.ModelProto:
    text, shapes = MODELS[name]
    proto = parse(text, {key: gaussian(*shape) for key, shape in shapes.items()}, opset=opset)
    proto.ir_version = 10
    return proto


VARIANTS = [
    {"form": form, "symmetric": symmetric, "block_size": block_size, "bits": bits}
    for form in ("auto", "fold", "dequantize")
    for symmetric in (True, False)
    for block_size in (0, 32)
    for bits in (8, 4)
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("name", MODELS)
def test_every_form(parse: Parse, gaussian: Any, quantize: Any, name: str, settings: dict[str, Any]) -> None:
    form, bits = settings["form"], settings["bits"]
    done = quantize(rewrite(**settings), model(parse, gaussian, name))
    assert done.stats.modified
    done.check()
    assert done.sqnr > LEAST_SQNR[bits]
    product = form == "auto" and name in ("matmul", "matmul, stacked", "gemm", "gemm, transposed")
    assert ("MatMulNBits" in done.ops) is product
    assert ("DequantizeLinear" in done.ops) is (form == "dequantize")
    if form == "fold":  # onnxruntime runs the float operator and nothing beside it
        assert not {"Cast", "Mul", "Sub", "Reshape"} & set(done.fused)


@pytest.mark.parametrize("name", ["matmul", "gemm, transposed", "conv", "table", "two-way lstm", "transposed conv"])
def test_the_weight_is_within_half_a_step(parse: Parse, gaussian: Any, quantize: Any, name: str) -> None:
    """What onnxruntime makes of the levels is the weight, to half a step of the widest channel."""
    work = rewrite(weights="minmax", symmetric=True, block_size=0, form="fold", ops=(MODELS_OP[name],))
    done = quantize(work, model(parse, gaussian, name))
    weight = next(array for array in weights_after_folding(done.after, MODELS_OP[name]))
    wanted = done.before.graph.initializers["w"].const_value.numpy()
    assert weight.shape == wanted.shape
    assert np.abs(weight - wanted).max() <= 0.5 * np.abs(wanted).max() / 127 * 1.001


MODELS_OP = {"matmul": "MatMul", "gemm, transposed": "Gemm", "conv": "Conv", "table": "Gather", "two-way lstm": "LSTM",
             "transposed conv": "ConvTranspose"}  # fmt: skip


def weights_after_folding(after: ir.Model, op_type: str) -> list[np.ndarray]:
    """Return the weights that onnxruntime computes for the nodes of a type."""
    work = after.clone()
    names = []
    for node in work.graph:
        if node.op_type == op_type:
            value = node.inputs[0 if op_type == "Gather" else 1]
            work.graph.outputs.append(value)
            names.append(str(value.name))
    feed = {
        str(v.name): np.zeros([d if isinstance(d, int) else 1 for d in v.shape], v.dtype.numpy())
        for v in work.graph.inputs
    }
    found = open_session(work).run(feed)
    return [found[name] for name in names]


def test_a_small_block_is_better_and_mmse_is_better(parse: Parse, gaussian: Any, quantize: Any) -> None:
    proto = model(parse, gaussian, "gemm")
    measured = {
        (block, method): quantize(rewrite(bits=4, block_size=block, weights=method, accuracy_level=1), proto).sqnr
        for block in (0, 16)
        for method in ("minmax", "mmse")
    }
    assert measured[16, "mmse"] > measured[0, "mmse"] + 1
    assert measured[0, "mmse"] > measured[0, "minmax"]


def test_sizes(parse: Parse, gaussian: Any) -> None:
    proto = parse("g (float[N, 512] x) => (float[N, 512] y) { y = MatMul(x, w) }", {"w": gaussian(512, 512)}, opset=21)
    proto.ir_version = 10
    before = load(proto.SerializeToString())
    for form in ("nbits", "fold", "dequantize"):
        for bits, share in ((8, 0.27), (4, 0.145)):
            after = before.clone()
            rewrite(bits=bits, form=form).run(after, PassContext(get_target("cpu-x86-vnni")))
            assert size(after) < share * size(before)


def test_a_weight_read_in_two_ways_is_kept_in_integers(parse: Parse, gaussian: Any, quantize: Any) -> None:
    """An embedding table that is also the last layer's matrix, and a matrix read transposed and plain."""
    text = "g (int64[5] i) => (float[5, 64] y) { e = Gather(w, i) y = Gemm <transB = 1> (e, w) }"
    done = quantize(rewrite(), parse(text, {"w": gaussian(64, 64)}))
    done.check()
    assert len(done.after.graph.initializers) <= 4
    assert done.sqnr > 36
    text = "g (float[2, 64] x) => (float[2, 64] y) { e = MatMul(x, w) y = Gemm <transB = 1> (e, w) }"
    done = quantize(rewrite(), parse(text, {"w": gaussian(64, 64)}))
    done.check()
    assert done.ops == {"MatMulNBits": 2}
    assert done.sqnr > 34


def test_a_weight_that_something_else_reads_too(parse: Parse, gaussian: Any, quantize: Any) -> None:
    text = "g (float[2, 64] x) => (float[2, 64] y, float[64, 64] z) { y = MatMul(x, w) z = Neg(w) }"
    done = quantize(rewrite(form="fold"), parse(text, {"w": gaussian(64, 64)}))
    done.check()
    assert all(
        value.dtype != ir.DataType.FLOAT or value.const_value.size < 100
        for value in done.after.graph.initializers.values()
    )
    assert done.sqnr > 36


def test_constant_nodes(parse: Parse, gaussian: Any, quantize: Any) -> None:
    proto = parse("g (float[2, 64] x) => (float[2, 64] y) { y = MatMul(x, w) }")
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 64)))
    proto.graph.node.insert(0, constant)
    done = quantize(rewrite(), proto)
    done.check()
    assert done.ops == {"MatMulNBits": 1}
    assert done.sqnr > 36


@pytest.mark.parametrize("form", ["auto", "fold"])
def test_weights_of_subgraphs(parse: Parse, gaussian: Any, quantize: Any, form: str) -> None:
    """One branch holds its own weight, the other reads one of the outer graph; both keep their names to themselves."""
    text = """g (bool c, float[2, 64] x) => (float[2, 64] y) {
        y = If (c) <
            then_branch = a () => (float[2, 64] t) { s = MatMul(x, w) t = Neg(s) },
            else_branch = b () => (float[2, 64] e) { e = MatMul(x, v) }
        > }"""
    proto = parse(text, {"w": gaussian(64, 64)})
    branch = next(a.g for a in proto.graph.node[0].attribute if a.name == "else_branch")
    branch.initializer.append(numpy_helper.from_array(gaussian(64, 64, seed=1), "v"))
    rng = np.random.default_rng(0)
    feeds = [{"c": np.array(c), "x": rng.normal(size=(2, 64)).astype(np.float32)} for c in (True, False)]
    done = quantize(rewrite(form=form), proto, feeds)
    done.check()
    assert sum(done.stats.counters.values()) == 2
    assert done.sqnr > 36
    assert size(done.after) < 0.4 * size(done.before)


@pytest.mark.parametrize("name", ["matmul", "conv"])
def test_float16_weights(parse: Parse, gaussian: Any, quantize: Any, name: str) -> None:
    text, shapes = MODELS[name]
    weights = {key: gaussian(*shape).astype(np.float16) for key, shape in shapes.items()}
    done = quantize(rewrite(), parse(text.replace("float[", "float16["), weights))
    done.check()
    assert done.stats.modified
    assert done.sqnr > 34


@pytest.mark.parametrize("name", ["matmul", "conv", "two-way lstm", "table"])
def test_for_runtimes_that_know_the_standard_alone(parse: Parse, gaussian: Any, quantize: Any, name: str) -> None:
    """Below opset 21 a DequantizeLinear has no blocks: one scale per channel then."""
    for opset in (17, 21):
        done = quantize(rewrite(block_size=16), model(parse, gaussian, name, opset=opset), target="portable")
        done.check()
        assert done.ops["DequantizeLinear"]
        assert {node.domain for node in done.after.graph} == {""}
        blocks = {n.attributes.get_int("block_size", 0) for n in done.after.graph if n.op_type == "DequantizeLinear"}
        assert any(blocks) is (opset == 21)
        assert done.sqnr > 36


def test_units_are_what_exclude_takes(parse: Parse, gaussian: Any, quantize: Any) -> None:
    text = """g (float[5, 2, 24] x) => (float[10, 32] z) { y = LSTM <hidden_size = 16> (x, w, r) s = Reshape(y, t)
        a = MatMul(s, m) z = MatMul(a, m2) }"""
    weights = {"w": gaussian(1, 64, 24), "r": gaussian(1, 64, 16), "m": gaussian(16, 32), "m2": gaussian(32, 32)}
    proto = parse(text, {**weights, "t": np.array([10, 16])})
    before = load(proto.SerializeToString())
    units = rewrite().units(before, PassContext(get_target("auto")))
    assert [unit.op_type for unit in units] == ["LSTM", "MatMul", "MatMul"]
    for unit in units:
        done = quantize(rewrite(exclude=unit.nodes), proto)
        done.check()
        assert done.reasons[unit.name] == "excluded"
        assert unit.op_type in done.ops
    assert not quantize(rewrite(exclude=tuple(n for u in units for n in u.nodes)), proto).stats.modified


def test_the_simulation_answers_like_the_rewritten_model(parse: Parse, gaussian: Any, quantize: Any) -> None:
    text = "g (float[4, 64] x) => (float[4, 48] y) { a = MatMul(x, w) r = Relu(a) y = Gemm(r, v) }"
    proto = parse(text, {"w": gaussian(64, 32), "v": gaussian(32, 48)})
    work = rewrite(bits=8, form="fold")
    done = quantize(work, proto)
    simulation = work.simulate(done.before, done.ctx)
    assert simulation is not None
    session, feed = open_session(simulation.model), done.feeds[0]
    names = [node.name for unit in work.units(done.before, done.ctx) for node in [unit]]
    everything = session.run({**feed, **simulation.switches(())})["y"]
    np.testing.assert_allclose(everything, open_session(done.after).run(feed)["y"], rtol=1e-4, atol=1e-5)
    nothing = session.run({**feed, **simulation.switches(names)})["y"]
    np.testing.assert_allclose(nothing, open_session(done.before).run(feed)["y"], rtol=1e-4, atol=1e-5)
    assert list(simulation.switches([names[0]])[SWITCHES]) == [False, True]


@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_weight_can_be_simulated(parse: Parse, gaussian: Any, quantize: Any, name: str) -> None:
    work = rewrite(bits=8, accuracy_level=1)  # a channel of 100 is padded to whole blocks
    done = quantize(work, model(parse, gaussian, name))
    simulation = work.simulate(done.before, done.ctx)
    assert simulation is not None
    simulated = open_session(simulation.model).run({**done.feeds[0], **simulation.switches(())})["y"]
    np.testing.assert_allclose(simulated, open_session(done.after).run(done.feeds[0])["y"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "case",
    [
        ("y = MatMul(x, w)", {"w": (64, 8)}, {"min_elements": 1024}, "too small"),
        ("y = MatMul(x, w)", {"w": (64, 32)}, {"exclude": ("n",)}, "excluded"),
        ("y = MatMul(x, w)", {"w": (3, 64, 64)}, {}, "not a matrix"),
        ("y = Gather <axis = 1> (w, i)", {"w": (64, 64)}, {}, "another axis"),
        ("y = MatMul(x, w)", {"w": np.full((64, 64), np.nan, np.float32)}, {}, "NaN"),
        ("y = MatMul(x, w)", {"w": np.ones((64, 64))}, {"bits": 4, "form": "fold"}, "opset 17"),
        ("y = MatMul(x, x)", {}, {}, "not constant"),
        ("y = MatMul(x, w)", {"w": (4, 512)}, {"bits": 4}, "scales"),
    ],
)
def test_what_is_left_alone(parse: Parse, gaussian: Any, quantize: Any, case: Any) -> None:
    text, weights, settings, reason = case
    arrays = {
        key: gaussian(*found) if isinstance(found, tuple) else found.astype(np.float32)
        for key, found in weights.items()
    }
    proto = parse(f"g (float[A, B] x, int64[2] i) => (float[C, D] y) {{ {text} }}", arrays)
    proto.graph.node[0].name = "n"
    if "w" in arrays and arrays["w"].ndim == 3:
        proto.graph.output[0].type.tensor_type.shape.dim.add()
    feeds = [
        {"x": np.ones((4, 4) if not arrays else (2, arrays["w"].shape[-2]), np.float32), "i": np.zeros(2, np.int64)}
    ]
    done = quantize(rewrite(**settings), proto, feeds)
    assert not done.stats.modified
    assert reason in done.reasons["n"]


def test_a_second_run_finds_nothing(parse: Parse, gaussian: Any, quantize: Any, again: Any) -> None:
    for name in ("matmul", "conv", "two-way lstm"):
        for form in ("auto", "dequantize"):
            work = rewrite(form=form)
            assert not again(work, quantize(work, model(parse, gaussian, name))).stats.modified


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 3},
        {"block_size": 48},
        {"weights": "kl"},
        {"accuracy_level": 2},
        {"ops": ("Add",)},
        {"min_elements": -1},
    ],
)
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        QuantizeWeightsConfig(**settings)
