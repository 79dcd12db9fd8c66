"""Weight sharing: what is written, what onnxruntime makes of it, what is left alone."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.model import load, open_session, serialized, size
from onnxcomp.passbase import PassContext, PassStats
from onnxcomp.passes.share.share_weights import ShareWeights, ShareWeightsConfig
from onnxcomp.recipe import Recipe, Step
from onnxcomp.runtime import optimized_graph
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
DISTINCT = {1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 8: 256}
LEAST_SQNR = {1: 3.5, 2: 8.5, 3: 14.0, 4: 19.5, 5: 25.0, 8: 42.0}  # dB, of Gaussian weights

MODELS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "matmul": ("g (float[N, 96] x) => (float[N, 64] y) { y = MatMul(x, w) }", {"w": (96, 64)}),
    "gemm": ("g (float[N, 96] x) => (float[N, 64] y) { y = Gemm <transB = 1> (x, w, b) }", {"w": (64, 96), "b": (64,)}),
    "conv": ("g (float[1, 16, 6, 6] x) => (float[1, 64, 4, 4] y) { y = Conv(x, w) }", {"w": (64, 16, 3, 3)}),
    "odd": ("g (float[N, 97] x) => (float[N, 63] y) { y = MatMul(x, w) }", {"w": (97, 63)}),
    "grouped": ("g (float[1, 64, 9] x) => (float[1, 64, 7] y) { y = Conv <group = 2> (x, w) }", {"w": (64, 32, 3)}),
    "transposed": (
        "g (float[1, 48, 4, 4] x) => (float[1, 16, 6, 6] y) { y = ConvTranspose(x, w) }",
        {"w": (48, 16, 3, 3)},
    ),
    "table": ("g (int64[5] x) => (float[5, 64] y) { y = Gather(w, x) }", {"w": (90, 64)}),
    "lstm": (
        "g (float[5, 2, 32] x) => (float[5, 1, 2, 32] y) { y = LSTM <hidden_size = 32> (x, w, r) }",
        {"w": (1, 128, 32), "r": (1, 128, 32)},
    ),
}


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def model(parse: Parse, name: str, opset: int = 17) -> onnx.ModelProto:
    text, shapes = MODELS[name]
    scale = 0.1 if name == "lstm" else 1  # gates that saturate say nothing about weights
    proto = parse(text, {key: scale * gaussian(*shape) for key, shape in shapes.items()}, opset=opset)
    proto.ir_version = 10 if opset > 20 else 8
    return proto


def feed(of: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for value in of.graph.inputs:
        shape = tuple(d if isinstance(d, int) else 2 for d in value.shape or ())
        kind = np.dtype(value.dtype.numpy())  # type: ignore[union-attr]
        if kind.kind == "b":
            found[str(value.name)] = np.ones(shape, bool)
        else:
            drawn = rng.normal(size=shape) if kind.kind == "f" else rng.integers(0, 4, shape)
            found[str(value.name)] = drawn.astype(kind)
    return found


def context(samples: Any = None) -> PassContext:
    return PassContext(get_target("cpu-x86-vnni"), samples=samples)


def share(proto: onnx.ModelProto, samples: Any = None, **settings: Any) -> tuple[ir.Model, ir.Model, PassStats, Any]:
    """Run the pass; return the model before and after, and check what always holds."""
    before = load(proto.SerializeToString())
    after = before.clone()
    ctx = context(samples)
    stats = ShareWeights(ShareWeightsConfig(**settings)).run(after, ctx)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert stats.modified == bool(stats.counters)
    assert stats.modified == (ir.to_proto(before) != ir.to_proto(after)) or not stats.modified
    if stats.modified:
        assert size(after) < size(before)
    for name, value in after.graph.initializers.items():
        assert value.uses() or value.is_graph_output() or value.is_graph_input(), f"{name} is left over"
    first, second = (open_session(of).run(feed(before)) for of in (before, after))
    assert list(first) == list(second)
    return before, after, stats, {skip.node: skip.reason for skip in ctx.skipped}


def folded(after: ir.Model) -> onnx.GraphProto:
    """Return the graph that onnxruntime runs."""
    return onnx.load_from_string(optimized_graph(serialized(after))).graph


def weights(graph: onnx.GraphProto) -> list[np.ndarray]:
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    return [array for array in arrays if array.dtype.kind == "f" and array.size > 512]


def sqnr(before: np.ndarray, after: np.ndarray) -> float:
    return float(
        10 * np.log10((before.astype(np.float64) ** 2).sum() / ((before - after.astype(np.float64)) ** 2).sum())
    )


@pytest.mark.parametrize("opset", [9, 17, 21])
@pytest.mark.parametrize("bits", DISTINCT)
@pytest.mark.parametrize("name", MODELS)
def test_the_runtime_folds_it_to_a_few_values(parse: Parse, name: str, bits: int, opset: int) -> None:
    if bits == 8 and name not in ("conv", "grouped", "transposed", "lstm"):
        bits = 5  # 256 floats are too much of the others
    before, after, stats, _ = share(model(parse, name, opset), bits=bits)
    assert stats.modified
    graph = folded(after)
    extra = {node.op_type for node in graph.node} & {"Cast", "Reshape", "Slice", "Transpose"}
    assert not extra, "onnxruntime computes the weight in every run"
    assert sum(node.op_type == "Gather" for node in graph.node) == (name == "table")
    found = weights(graph)
    assert found
    for array in found:
        assert len(np.unique(array)) <= DISTINCT[bits]
    original = np.sort(np.concatenate([w.reshape(-1) for w in weights(folded(before))]))
    assert sqnr(original, np.sort(np.concatenate([w.reshape(-1) for w in found]))) > LEAST_SQNR[bits]
    first, second = (open_session(of).run(feed(before))["y"] for of in (before, after))
    assert sqnr(first, second) > LEAST_SQNR[bits] - 6


@pytest.mark.parametrize(("bits", "least"), [(2, 6.0), (3, 11.0), (4, 13.5)])
def test_powers_of_two(parse: Parse, bits: int, least: float) -> None:
    """What the runtime computes with is 0 or a power of two, and never better than a free codebook."""
    found = {}
    for codebook in ("powers", "free"):
        before, after, _, _ = share(model(parse, "matmul"), bits=bits, codebook=codebook)
        (found[codebook],) = weights(folded(after))
    (original,) = weights(folded(before))
    mantissas, exponents = np.frexp(np.unique(found["powers"]))
    assert set(np.abs(mantissas)) == {0.0, 0.5}
    assert len(mantissas) <= 2**bits - 1
    assert len(set(exponents[mantissas != 0])) <= 2 ** (bits - 1) - 1
    assert least < sqnr(original, found["powers"]) < sqnr(original, found["free"])


def test_powers_of_two_stay_powers_with_feedback(parse: Parse, samples: Any) -> None:
    runs = [{"x": x} for x in gaussian(20, 2, 96)]
    _, after, _, _ = share(model(parse, "matmul"), samples(runs), bits=3, codebook="powers")
    (found,) = weights(folded(after))
    assert set(np.abs(np.frexp(found)[0]).reshape(-1)) == {0.0, 0.5}


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_stored(parse: Parse, name: str, opset: int) -> None:
    """Two indices take a byte: as pairs, or as 4-bit integers."""
    before, after, _, _ = share(model(parse, name, opset), bits=4)
    kinds = {value.dtype for value in after.graph.initializers.values()}
    assert (ir.DataType.UINT4 in kinds) is (opset == 21)
    elements = sum(value.const_value.size for value in before.graph.initializers.values())  # type: ignore[union-attr]
    weights_read = len(before.graph.initializers)
    assert size(after) < elements / 2 + weights_read * (2048 + 700) + 300


@pytest.mark.parametrize("granularity", ["group", "model"])
@pytest.mark.parametrize("bits", [2, 4, 5])
@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("name", MODELS)
def test_granularity(parse: Parse, name: str, opset: int, bits: int, granularity: Any) -> None:
    settings = {"bits": bits, "granularity": granularity, "group_channels": 32}
    before, after, stats, reasons = share(model(parse, name, opset), **settings)
    if not stats.modified:
        assert granularity == "group"
        assert "codebook" in next(iter(reasons.values()))
        return
    assert not {node.op_type for node in folded(after).node} & {"Cast", "Reshape", "Slice", "Transpose", "Add"}
    first, second = (open_session(of).run(feed(before))["y"] for of in (before, after))
    assert sqnr(first, second) > LEAST_SQNR[bits] - 6


def test_groups_of_channels_have_codebooks_of_their_own(parse: Parse) -> None:
    weight = np.concatenate([gaussian(32, 300), 100 + gaussian(32, 300, seed=1)])
    proto = parse("g (float[N, 300] x) => (float[N, 64] y) { y = Gemm <transB = 1> (x, w) }", {"w": weight})
    whole, parts = (
        weights(folded(share(proto, bits=3, granularity=how, group_channels=32)[1]))[0] for how in ("tensor", "group")
    )
    assert sqnr(weight - weight.mean(), parts - weight.mean()) > sqnr(weight - weight.mean(), whole - weight.mean()) + 3
    assert len(np.unique(parts[:32])) == len(np.unique(parts[32:])) == 8
    columns = parse("g (float[N, 300] x) => (float[N, 64] y) { y = MatMul(x, w) }", {"w": weight.T.copy()})
    found = weights(folded(share(columns, bits=3, granularity="group", group_channels=32)[1]))[0]
    np.testing.assert_array_equal(found, parts.T)


def test_a_model_has_one_codebook(parse: Parse) -> None:
    text = "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    proto = parse(text, {"w": gaussian(64, 64), "v": gaussian(64, 64, seed=1)})
    found = weights(folded(share(proto, bits=3, granularity="model")[1]))
    assert len(found) == 2
    assert len(np.unique(np.concatenate(found))) <= 8


def test_other_bits_for_some(parse: Parse) -> None:
    text = "g (float[N, 64] x) => (float[N, 64] y) { [first] a = MatMul(x, w) [second] y = MatMul(a, v) }"
    proto = parse(text, {"w": gaussian(64, 64), "v": gaussian(64, 64, seed=1)})
    _, after, stats, _ = share(proto, bits=2, bits_of={"second": 5})
    assert sorted(len(np.unique(array)) for array in weights(folded(after))) == [4, 32]
    assert stats.counters == {"weights of 2 bits": 1, "weights of 5 bits": 1}


@pytest.mark.parametrize("opset", [17, 21])
def test_less_than_a_bit(parse: Parse, opset: int) -> None:
    _, after, stats, _ = share(model(parse, "conv", opset), bits=0.5, method="entropy")
    assert stats.modified
    (array,) = weights(folded(after))
    shares = np.unique(array, return_counts=True)[1] / array.size
    assert 0.4 < -(shares * np.log2(shares)).sum() <= 0.53


@pytest.mark.parametrize("opset", [17, 21])
def test_entropy(parse: Parse, opset: int) -> None:
    """More values than 2^bits, so unevenly used that they take so many bits."""
    _, after, stats, _ = share(model(parse, "conv", opset), bits=2.5, method="entropy")
    assert stats.counters == {"weights of 2.5 bits": 1}
    (array,) = weights(folded(after))
    counts = np.unique(array, return_counts=True)[1]
    shares = counts / counts.sum()
    assert len(counts) > 6
    assert -(shares * np.log2(shares)).sum() == pytest.approx(2.5, abs=0.03)


@pytest.mark.parametrize("weighting", ["inputs", "auto"])
def test_inputs_that_count_more_get_less_error(parse: Parse, samples: Any, weighting: Any) -> None:
    loud = np.ones(96, np.float32)
    loud[:8] = 30
    feeds = [{"x": gaussian(20, 96, seed=2) * loud}]
    proto, settings = model(parse, "matmul"), {"assignment": "nearest"}
    weighted = weights(folded(share(proto, samples(feeds), bits=3, weighting=weighting, **settings)[1]))[0]
    plain = weights(folded(share(proto, samples(feeds), bits=3, weighting="none", **settings)[1]))[0]
    original = gaussian(96, 64)
    assert ((weighted - original)[:8] ** 2).sum() < ((plain - original)[:8] ** 2).sum()
    outputs = [((feeds[0]["x"] @ (array - original)) ** 2).sum() for array in (weighted, plain)]
    assert outputs[0] < outputs[1]


@pytest.mark.parametrize("method", ["kmeans", "entropy"])
@pytest.mark.parametrize("name", ["conv", "grouped", "gemm", "lstm"])
def test_feedback_changes_outputs_less(parse: Parse, samples: Any, name: str, method: Any) -> None:
    """Where inputs are correlated, the errors of a layer's weights make up for each other."""
    proto = model(parse, name)
    given = feed(load(proto.SerializeToString()))["x"]
    smooth = np.cumsum(np.random.default_rng(1).normal(size=(40, *given.shape)), axis=-1).astype(np.float32) / 3
    runs = [{"x": x} for x in smooth]
    noise = []
    for assignment in ("nearest", "feedback"):
        settings = {"bits": 3, "method": method, "assignment": assignment}
        before, after, stats, _ = share(proto, samples(runs[:30]), **settings)
        assert stats.modified
        sessions = [open_session(of) for of in (before, after)]
        pairs = [tuple(session.run(run)["y"] for session in sessions) for run in runs[30:]]
        noise.append(sum(float(((a - b) ** 2).sum()) for a, b in pairs))
        assert all(len(np.unique(array)) <= (8 if method == "kmeans" else 256) for array in weights(folded(after)))
    assert noise[1] < 0.9 * noise[0]


def test_feedback_needs_samples(parse: Parse) -> None:
    with pytest.raises(PassError, match="calibration"):
        share(model(parse, "matmul"), assignment="feedback")
    with pytest.raises(RecipeError, match="damping"):
        ShareWeightsConfig(damping=0)


def test_pruned_weights_stay_zero_with_feedback(parse: Parse, samples: Any) -> None:
    weight = gaussian(96, 64)
    weight[np.random.default_rng(3).random(weight.shape) < 0.7] = 0
    proto = parse(MODELS["matmul"][0], {"w": weight})
    given = samples([{"x": np.cumsum(gaussian(200, 96, seed=4), axis=1)}])
    for settings in ({"bits": 3}, {"bits": 2, "method": "entropy"}):
        (found,) = weights(folded(share(proto, given, assignment="feedback", **settings)[1]))
        assert (found[weight == 0] == 0).all()


def test_pruned_weights_stay_zero(parse: Parse) -> None:
    weight = gaussian(96, 64) + 2
    weight[np.random.default_rng(3).random(weight.shape) < 0.7] = 0
    proto = parse(MODELS["matmul"][0], {"w": weight})
    for settings in ({"bits": 3}, {"bits": 2, "method": "entropy"}):
        (found,) = weights(folded(share(proto, **settings)[1]))
        assert (found[weight == 0] == 0).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_float16(parse: Parse, bits: int) -> None:
    text = "g (float16[N, 128] x) => (float16[N, 128] y) { y = MatMul(x, w) }"
    before, after, stats, _ = share(parse(text, {"w": gaussian(128, 128).astype(np.float16)}), bits=bits)
    assert stats.modified
    found = {v.dtype for v in after.graph.initializers.values()}
    assert ir.DataType.FLOAT not in found
    first, second = (open_session(of).run(feed(before))["y"] for of in (before, after))
    assert sqnr(first.astype(np.float32), second) > LEAST_SQNR[bits] - 6


def test_a_shared_weight_is_stored_once(parse: Parse) -> None:
    text = "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    _, after, stats, _ = share(parse(text, {"w": gaussian(64, 64)}), bits=4)
    assert stats.counters == {"weights of 4 bits": 1}
    assert sum(node.op_type == "Gather" for node in after.graph) == 1


def test_a_weight_of_a_constant_node(parse: Parse) -> None:
    proto = parse("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }")
    proto.graph.node.insert(
        0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 64), "w"))
    )
    _, after, stats, _ = share(proto, bits=4)
    assert stats.modified
    assert "Constant" not in {node.op_type for node in after.graph}


def branch(name: str, weight: np.ndarray | None) -> onnx.GraphProto:
    node = helper.make_node("MatMul", ["x", f"{name}_w" if weight is not None else "outer"], [name])
    tensors = [] if weight is None else [numpy_helper.from_array(weight, f"{name}_w")]
    output = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [output], tensors)


def test_weights_of_bodies(parse: Parse) -> None:
    proto = parse("g (bool c, float[N, 64] x) => (float[N, 64] y) { y = Identity(x) }", {"outer": gaussian(64, 64)})
    del proto.graph.node[:]
    proto.graph.node.append(
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("t", gaussian(64, 64, seed=1)), else_branch=branch("e", None)
        )
    )
    before, after, stats, _ = share(proto, bits=5)
    assert stats.counters == {"weights of 5 bits": 2}
    for chosen in (True, False):
        given = {"c": np.array(chosen), "x": gaussian(2, 64)}
        first, second = (open_session(of).run(given)["y"] for of in (before, after))
        assert 18 < sqnr(first, second) < 60


def test_weights_of_a_loop(parse: Parse, samples: Any) -> None:
    """The indices lie outside of the body: the codebook is looked up once, not in each turn."""
    proto = parse("g (float[2, 64] x) => (float[2, 64] y) { y = Identity(x) }", {"m": np.array(3, np.int64)})
    del proto.graph.node[:]
    kind = onnx.TensorProto
    inputs = [("i", kind.INT64, []), ("c", kind.BOOL, []), ("h", kind.FLOAT, [2, 64])]
    nodes = [
        helper.make_node("MatMul", ["h", "lw"], ["p"]),
        helper.make_node("Tanh", ["p"], ["o"]),
        helper.make_node("Identity", ["c"], ["d"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("d", kind.BOOL, []), helper.make_tensor_value_info("o", kind.FLOAT, [2, 64])],
        [numpy_helper.from_array(gaussian(64, 64) / 8, "lw")],
    )
    proto.graph.node.append(helper.make_node("Loop", ["m", "", "x"], ["y"], body=body))
    before, after, stats, _ = share(proto, samples([{"x": gaussian(2, 64)}]), bits=5)
    assert stats.counters == {"weights of 5 bits": 1}
    (loop,) = (node for node in after.graph if node.op_type == "Loop")
    assert {node.op_type for node in loop.attributes["body"].as_graph()} == {"MatMul", "Tanh", "Identity"}
    first, second = (open_session(of).run({"x": gaussian(2, 64)})["y"] for of in (before, after))
    assert 18 < sqnr(first, second) < 60


@pytest.mark.parametrize(
    "case",
    [
        ("y = MatMul(x, w)", (16, 16), {}, 17, "too small"),
        ("y = MatMul(x, w)", (64, 32), {"exclude": ("n",)}, 17, "excluded"),
        ("y = MatMul(x, w)", (16, 20), {"bits": 8, "min_elements": 0}, 17, "codebook"),
        ("y = MatMul(x, w)", "nan", {}, 17, "NaN"),
    ],
)
def test_what_is_left_alone(parse: Parse, case: Any) -> None:
    text, shape, settings, opset, reason = case
    weight = np.full((64, 64), np.nan, np.float32) if shape == "nan" else gaussian(*shape)
    proto = parse(f"g (float[N, {len(weight)}] x) => (float[N, M] y) {{ {text} }}", {"w": weight}, opset=opset)
    proto.graph.node[0].name = "n"
    _, _, stats, reasons = share(proto, **settings)
    assert not stats.modified
    assert reason in reasons["n"]


def test_outputs_and_defaults_of_inputs_are_left_alone(parse: Parse) -> None:
    text = "g (float[N, 64] x) => (float[N, 64] y, float[64, 64] w) { [n] y = MatMul(x, w) }"
    _, _, stats, reasons = share(parse(text, {"w": gaussian(64, 64)}), bits=4)
    assert not stats.modified
    assert "output of the model" in reasons["n"]
    proto = parse("g (float[N, 64] x, float[64, 64] w) => (float[N, 64] y) { y = MatMul(x, w) }")
    proto.graph.initializer.append(numpy_helper.from_array(gaussian(64, 64), "w"))
    after = load(proto.SerializeToString())
    assert not ShareWeights().run(after, context()).modified


def test_old_opsets(parse: Parse) -> None:
    proto = parse(MODELS["matmul"][0], {"w": gaussian(96, 64)}, opset=5)
    after, ctx = load(proto.SerializeToString()), context()
    if after.opset_imports[""] > 5:
        pytest.skip("upgraded when it was read")
    assert not ShareWeights().run(after, ctx).modified
    assert "upgrade-opset" in ctx.skipped[0].reason


@pytest.mark.parametrize(
    "settings", [{"bits": 1}, {"bits": 4}, {"bits": 4, "granularity": "group", "group_channels": 16}]
)
@pytest.mark.parametrize("name", ["conv", "odd", "lstm", "matmul"])
def test_a_second_run_finds_nothing(parse: Parse, name: str, settings: Mapping[str, Any]) -> None:
    _, after, stats, _ = share(model(parse, name), **settings)
    assert stats.modified
    again, ctx = after.clone(), context()
    assert not ShareWeights(ShareWeightsConfig(**settings, min_elements=0)).run(again, ctx).modified
    assert ir.to_proto(again) == ir.to_proto(after)


def test_units_are_what_exclude_takes(parse: Parse) -> None:
    proto = model(parse, "lstm")
    (unit,) = ShareWeights().units(load(proto.SerializeToString()), context())
    assert unit.op_type == "LSTM"
    assert not share(proto, exclude=unit.nodes)[2].modified


def test_two_runs_give_the_same_bytes(parse: Parse, samples: Any) -> None:
    some = samples([{"x": gaussian(3, 96)}])
    first, second = (serialized(share(model(parse, "matmul"), some, bits=3)[1]) for _ in range(2))
    assert first == second


def test_weighting_by_inputs_needs_samples(parse: Parse) -> None:
    with pytest.raises(PassError, match="calibration samples"):
        share(model(parse, "matmul"), weighting="inputs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "from 1 to 8"),
        ({"bits": 9}, "from 1 to 8"),
        ({"bits": 0.1, "method": "entropy"}, "from 0.25 to 8"),
        ({"bits": 2.5}, "whole number"),
        ({"bits_of": {"a": 12}}, "for a"),
        ({"bits_of": {"a": "b"}}, "from 1 to 8"),
        ({"init": "lucky"}, "init must be one of"),
        ({"init": "linear", "method": "entropy"}, "kmeans"),
        ({"granularity": "row"}, "granularity"),
        ({"codebook": "powers", "method": "entropy"}, "method of its own"),
        ({"codebook": "powers", "init": "linear"}, "method of its own"),
        ({"codebook": "powers", "bits_of": {"a": 1}}, "2 bits or more"),
        ({"codebook": "shift"}, "codebook"),
        ({"group_channels": 0}, "group_channels"),
        ({"min_elements": -1}, "min_elements"),
    ],
)
def test_settings_that_make_no_sense(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Step("share-weights", settings).make()


def test_settings_in_a_recipe() -> None:
    recipe = Recipe((Step("share-weights", {"bits": 3, "bits_of": {"conv 1": 5}, "exclude": ["a"]}),))
    again = Recipe.from_toml(recipe.to_toml())
    assert again.steps[0].make().config == recipe.steps[0].make().config


@pytest.mark.parametrize("name", MODELS)
def test_the_simulation_answers_like_the_rewritten_model(parse: Parse, name: str) -> None:
    before, after, _, _ = share(model(parse, name), bits=3)
    work = ShareWeights(ShareWeightsConfig(bits=3))
    simulation = work.simulate(before, context())
    assert simulation is not None
    session, given = open_session(simulation.model), feed(before)
    everything = session.run({**given, **simulation.switches(())})["y"]
    np.testing.assert_allclose(everything, open_session(after).run(given)["y"], rtol=1e-4, atol=1e-5)
    nothing = session.run({**given, **simulation.switches([u.name for u in work.units(before, context())])})["y"]
    np.testing.assert_allclose(nothing, open_session(before).run(given)["y"], rtol=1e-4, atol=1e-5)
    empty = load(parse("g (float[N] x) => (float[N] y) { y = Relu(x) }").SerializeToString())
    assert work.simulate(empty, context()) is None
