"""Blocks that are removed whole: which there are, which one goes, and that what is left is the model without it."""

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxcomp.data import Samples, synthetic
from onnxcomp.errors import RecipeError
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.blocks import PruneBlocks, PruneBlocksConfig
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.groups import prepare
from onnxcomp.passes.prune.residual import gated, residual_blocks
from onnxcomp.passes.prune.trace import inputs_for, shapes_of
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES, feed
from tests.passes.prune.builder import STYLES, Net

TARGET = get_target("cpu-x86-vnni")
LAYERS = {  # of each block
    "resnet-basic": ["1a.conv1 1a.conv2", "1b.conv1 1b.conv2", "2b.conv1 2b.conv2"],  # 2a has a shortcut with weights
    "efficientnet": ["1b.expand 1b.dw 1b.reduce 1b.excite 1b.project"],
    "vit": ["1.q 1.k 1.v 1.o", "1.up 1.down", "2.q 2.k 2.v 2.o", "2.up 2.down"],
    "packed-encoder": ["1.qkv 1.o", "1.up 1.down", "2.qkv 2.o", "2.up 2.down"],
    "convnext": [f"{block}.dw {block}.up {block}.out" for block in ("1a", "1b", "2a", "2b", "2c")],
    "densenet": [],
}


def samples_for(model: ir.Model, count: int = 4) -> Samples:
    return synthetic(input_specs(model), count=count, seed=3, bounds=input_bounds(model), size=8)


def context(model: ir.Model | None = None) -> PassContext:
    return PassContext(TARGET, samples=None if model is None else samples_for(model))


def parsed(body: str, outputs: str = "float[2, 4] y") -> ir.Model:
    """Make a model of ``x`` [2, 4] and square weights ``a``, ``b`` and ``c``; ``b`` is small."""
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 17]>
        net (float[2, 4] x) => ({outputs}) {{ {body} }}""")
    rng = np.random.default_rng(0)
    for name, size in {"a": 1.0, "b": 0.01, "c": 0.5}.items():
        array = (rng.normal(size=(4, 4)) * size).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load(model.SerializeToString())


def answers(model: ir.Model, given: Any) -> dict[str, Any]:
    return dict(open_session(model, optimize=False).run(given))


@pytest.mark.parametrize("style", ["plain", "folded", "dynamic", "chains"])
@pytest.mark.parametrize("name", LAYERS)
def test_blocks_are_found_however_the_network_is_written(name: str, style: str) -> None:
    proto = ARCHITECTURES[name].build(Net(STYLES[style]))
    model = prepare(load(proto.SerializeToString()), context())
    blocks, refused = residual_blocks(model, shapes_of(model, feed(proto)))
    assert [set(block.layers) for block in blocks] == [set(layers.split()) for layers in LAYERS[name]]
    assert not refused


@pytest.mark.parametrize("name", ["resnet-basic", "vit", "packed-encoder"])
def test_what_is_left_answers_like_the_model_in_which_the_blocks_give_nothing(name: str) -> None:
    proto = ARCHITECTURES[name].build(Net())
    model = load(proto.SerializeToString())
    ctx = context(model)
    original = prepare(model, ctx)
    blocks, _ = residual_blocks(original, shapes_of(original, feed(proto)))
    stats = PruneBlocks(PruneBlocksConfig(count=2, runs=2)).run(model, ctx)
    assert stats.counters["blocks removed"] == 2
    assert stats.counters["parameters removed"] > 0
    small = onnx.ModelProto.FromString(serialized(model))
    onnx.checker.check_model(small, full_check=True)

    nodes = {node.name for node in small.graph.node}
    gone = [block for block in blocks if not nodes & set(block.layers)]
    assert len(gone) == 2
    assert all(set(block.layers) <= nodes for block in blocks if block not in gone)
    silent, gates = gated(original, gone)
    zeros = {gate: np.zeros((), np.float32) for gate in gates.values()}
    (expected,), (found,) = answers(silent, feed(proto) | zeros).values(), answers(model, feed(proto)).values()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ctx.origin is not None
    assert ctx.origin.kept == {}
    assert answers(ctx.origin.model, feed(proto)).keys() == answers(model, feed(proto)).keys()


@pytest.mark.parametrize("sums", ["p = MatMul(x, {0})  u = Add(x, p)  q = MatMul(u, {1})  y0 = Add(u, q)"])
@pytest.mark.parametrize(("order", "goes"), [("ab", "b"), ("ba", "b"), ("ca", "c")])
def test_the_block_goes_that_is_heard_least(sums: str, order: str, goes: str) -> None:
    model = parsed(sums.format(*order) + " y = Identity(y0)")
    ctx = context(model)
    assert PruneBlocks(PruneBlocksConfig(count=1)).run(model, ctx).modified
    assert goes not in model.graph.initializers
    assert ({*order} - {goes}) <= set(model.graph.initializers)
    assert [skip.reason.split(":")[0] for skip in ctx.skipped] == ["it matters more"]


def test_the_others_are_measured_again_without_what_is_gone() -> None:
    """Two blocks cancel: once one of them is gone the other one is the loudest, and the third one goes."""
    body = """n = Neg(a)
        p = MatMul(x, a)  u = Add(x, p)  q = MatMul(x, n)  v = Add(u, q)  r = MatMul(v, c)  w = Add(v, r)
        y = Identity(w)"""
    model = parsed(body)
    blocks, _ = residual_blocks(prepare(model, context()), shapes_of(prepare(model, context()), feed_of(model)))
    assert len(blocks) == 3
    assert PruneBlocks(PruneBlocksConfig(count=2)).run(model, context(model)).counters["blocks removed"] == 2
    assert "c" not in model.graph.initializers


def feed_of(model: ir.Model) -> Any:
    return inputs_for(model, None, seed=0)


def test_a_block_goes_with_those_that_it_holds() -> None:
    model = parsed("p = MatMul(x, b)  q = MatMul(p, a)  r = Add(p, q)  s = MatMul(r, b)  u = Add(x, s)  y = Tanh(u)")
    stats = PruneBlocks(PruneBlocksConfig(ratio=1.0)).run(model, context(model))
    assert stats.counters["blocks removed"] in (1, 2)
    assert [node.op_type for node in model.graph] == ["Tanh"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("p = MatMul(x, a)  q = MatMul(x, c)  y = Add(p, q)", ""),  # none goes past the other
        ("p = Tanh(x)  q = Add(x, p)  y = MatMul(q, a)", ""),  # no weights would go
        ("p = MatMul(x, a)  q = Add(x, p)  r = Tanh(p)  y = Add(q, r)", ""),  # what is added is needed elsewhere
        ("p = MatMul(x, a)  m = ReduceSum <keepdims = 1> (p)  q = Add(x, m)  y = Tanh(q)", "repeated"),
        ("p = MatMul(x, a)  y = Add(x, p)", "output of the model"),
    ],
)
def test_it_declines(body: str, why: str) -> None:
    model = parsed(body)
    ctx, before = context(model), ir.to_proto(model)
    assert not PruneBlocks().run(model, ctx).modified
    assert ir.to_proto(model) == before
    assert any(why in skip.reason for skip in ctx.skipped) if why else not ctx.skipped


TWO = "p = MatMul(x, a)  u = Add(x, p)  q = MatMul(u, c)  v = Add(u, q)  y = Tanh(v)"


def test_settings_and_units() -> None:
    units = PruneBlocks().units(parsed(TWO), context())
    assert len(units) == 2
    first, second = (unit.name for unit in units)
    for config, left, why in (
        (PruneBlocksConfig(names=(second,)), {"a"}, "others are named"),
        (PruneBlocksConfig(ratio=1.0, exclude=(first,)), {"a"}, "excluded"),
        (PruneBlocksConfig(count=5, ignore=(second,)), {"c"}, "ignored"),
        (PruneBlocksConfig(count=5), set(), ""),
        (PruneBlocksConfig(ratio=0.9), {"a"}, "matters more"),
    ):
        model = parsed(TWO)
        ctx = context(model)
        assert PruneBlocks(config).run(model, ctx).modified
        assert set(model.graph.initializers) - {"b"} == left
        assert all(why in skip.reason for skip in ctx.skipped)
    model = parsed(TWO)
    assert not PruneBlocks(PruneBlocksConfig(count=0)).run(model, context(model)).modified
    ctx = context()
    assert not PruneBlocks().run(model, ctx).modified  # without samples
    assert {skip.reason for skip in ctx.skipped} == {"no calibration samples tell how much it matters"}
    with pytest.raises(RecipeError, match="no residual block 'third'"):
        PruneBlocks(PruneBlocksConfig(names=("third",))).run(model, context())


@pytest.mark.parametrize(
    "setting",
    [{"count": -1}, {"ratio": 1.5}, {"runs": 0}, {"count": 1, "ratio": 0.5}, {"ratio": 0.5, "names": ("a",)}],
)
def test_wrong_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        PruneBlocks.from_settings(setting)


def test_it_goes_behind_channel_pruning_and_remembers_the_first_model() -> None:
    model = load(ARCHITECTURES["vit"].build(Net()).SerializeToString())
    ctx = context(model)
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, criterion="l2")).run(model, ctx)
    first = ctx.origin
    assert PruneBlocks(PruneBlocksConfig(runs=1)).run(model, ctx).modified
    assert ctx.origin is first
