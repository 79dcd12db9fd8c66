from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import infer_shapes, load
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.placement import Placement, constant, plan, scaled_axis
from onnxcomp.target import TARGETS, get_target

Parse = Callable[..., onnx.ModelProto]
ANCHORS = ("Conv", "Gemm", "MatMul")


@pytest.fixture
def placed(parse: Parse, weights: Any) -> Callable[..., tuple[Placement, dict[str, str]]]:
    """Plan a graph; return the plan and why nodes were declined. Every node is called after its output."""

    def run(
        nodes: str, *, exclude: tuple[str, ...] = (), anchors: tuple[str, ...] = ANCHORS, target: str = "cpu-x86-vnni"
    ) -> Any:
        text = f"g (float[N, 8, 8, 8] x) => (float y) {{ {nodes} }}"
        proto = parse(
            text, {"w": weights["w33"], "one": np.float32(1), "low": np.float32(-1), "shape": np.array([0, 0, -1])}
        )
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        for node in proto.graph.node:
            node.name = node.output[0]
        model = load(proto.SerializeToString())
        infer_shapes(model)
        ctx = PassContext(get_target(target))
        placement = plan(model.graph, ctx, anchors=anchors, exclude=exclude)
        return placement, {skip.node: skip.reason for skip in ctx.skipped}

    return run


def names(placement: Placement) -> list[str]:
    return [str(node.name) for node in placement.roles]


CONV = "Conv <pads = [1, 1, 1, 1]>"


@pytest.mark.parametrize(
    ("nodes", "integer"),
    [
        (f"y = {CONV} (x, w)", "y"),
        (f"a = Sigmoid(x) b = {CONV} (a, w) y = Sigmoid(b)", "b"),  # joins at the ends stay float
        (f"a = {CONV} (x, w) b = Sigmoid(a) y = {CONV} (b, w)", "a b y"),
        (f"a = {CONV} (x, w) b = Reshape(a, shape) y = Neg(b)", "a"),
        (f"a = {CONV} (x, w) b = MaxPool <kernel_shape = [1, 1]> (a) y = {CONV} (b, w)", "a b y"),
        (f"a = {CONV} (x, w) b = Add(a, x) c = Mul(b, one) y = {CONV} (c, w)", "a b c y"),
        (f"a = {CONV} (x, w) b = Add(a, x) c = Erf(b) y = {CONV} (c, w)", "a y"),  # b feeds no integers
        (f"a = {CONV} (x, w) b = Tanh(a) c = Add(b, b) y = {CONV} (c, w)", "a y"),  # c is fed by none
        (f"a = {CONV} (x, w) b = Sigmoid(a) c = Sigmoid(b) y = Sigmoid(c)", "a"),  # a chain that ends in floats
    ],
)
def test_joins_and_movers_stand_between_integers(placed: Any, nodes: str, integer: str) -> None:
    placement, reasons = placed(nodes)
    assert names(placement) == integer.split()
    declined = {name for name in reasons if reasons[name].startswith("no integer")}
    assert declined.isdisjoint(names(placement))


def test_every_node_with_a_role_is_placed_or_explained(placed: Any) -> None:
    placement, reasons = placed(f"a = Sigmoid(x) b = {CONV} (a, w) c = Add(b, b) y = Softmax(c)")
    assert {*names(placement), *reasons} == {"a", "b", "c", "y"}
    assert reasons == {"a": "no integer producer", "c": "no integer consumer", "y": "no integer consumer"}


def test_settings(placed: Any) -> None:
    nodes = f"a = {CONV} (x, w) b = {CONV} (a, w) y = {CONV} (b, w)"
    placement, reasons = placed(nodes, exclude=("b",))
    assert names(placement) == ["a", "y"]
    assert reasons == {"b": "excluded"}
    placement, _ = placed(nodes, anchors=("Gemm",))
    assert names(placement) == []


@pytest.mark.parametrize(
    ("nodes", "tails"),
    [
        (f"a = {CONV} (x, w) y = Relu(a)", {"a": "y"}),
        (f"a = {CONV} (x, w) b = Relu(a) y = Relu(b)", {"a": "b"}),
        (f"a = {CONV} (x, w) y = Clip(a, low, one)", {"a": "y"}),
        (f"a = {CONV} (x, w) y = Clip(a, , one)", {"a": "y"}),
        (f"a = {CONV} (x, w) y = Clip(a, one)", {}),  # cuts above 0
        (f"a = {CONV} (x, w) y = Clip(a, , low)", {}),
        (f"a = {CONV} (x, w) r = Relu(a) y = Add(a, r)", {}),  # something else reads it too
        (f"a = {CONV} (x, w) y = Add(a, a)", {}),
    ],
)
def test_tails(placed: Any, nodes: str, tails: dict[str, str]) -> None:
    placement, _ = placed(nodes)
    assert {str(a.name): str(b.name) for a, b in placement.tails.items()} == tails
    for node in placement.roles:
        tail = placement.tails.get(node, node)
        assert placement.output(node) is tail.outputs[0]
        assert placement.is_source(tail.outputs[0])


@pytest.mark.parametrize("target", [name for name, facts in TARGETS.items() if facts.roles])
def test_results_are_rounded_behind_their_tails_everywhere(placed: Any, target: str) -> None:
    placement, _ = placed(f"a = {CONV} (x, w) r = Relu(a) y = {CONV} (r, w)", target=target)
    assert names(placement) == ["a", "y"]
    assert [tail.op_type for tail in placement.tails.values()] == ["Relu"]


def test_constants(parse: Parse) -> None:
    text = "g (float[2] x, float[2] d) => (float[2] y) { a = Add(x, w) y = Add(a, d) }"
    model = load(parse(text, {"w": np.ones(2), "d": np.ones(2)}).SerializeToString())
    first, second = model.graph
    assert constant(first.inputs[1]) is not None
    assert constant(second.inputs[1]) is None  # callers may give another value
    assert constant(first.inputs[0]) is None
    assert constant(second.inputs[0]) is None
    assert constant(None) is None


def test_the_axis_of_output_channels(parse: Parse) -> None:
    text = """g (float[4, 4] x, float[1, 4, 1, 1] i)
        => (float[4, 4] a, float[4, 4] b, float[4, 4] c, float[1, 4, 1, 1] d)
        { a = MatMul(x, w) b = Gemm(x, w) c = Gemm <transB = 1> (x, w) d = Conv(i, k) }"""
    model = load(parse(text, {"w": np.ones((4, 4)), "k": np.ones((4, 4, 1, 1))}).SerializeToString())
    assert [scaled_axis(node) for node in model.graph] == [1, 1, 0, 0]


def test_types_must_be_known(parse: Parse, weights: Any) -> None:
    text = "g (float[N, 8, 8, 8] x) => (float y) { a = Conv(x, w) y = Neg(a) }"
    model = ir.from_proto(parse(text, {"w": weights["w33"]}))
    ctx = PassContext(get_target("cpu-x86-vnni"))
    assert not plan(model.graph, ctx, anchors=ANCHORS, exclude=()).roles
    assert ctx.skipped[0].reason == "the type of a tensor is unknown"
