"""HardSwish in operators that have integer kernels."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext, PassStats
from onnxcomp.passes.cleanup.expand_hard_swish import ExpandHardSwish
from onnxcomp.passes.cleanup.hard_swish import FuseHardSwish
from onnxcomp.target import TARGETS

FEED = {"x": np.linspace(-8, 8, 101, dtype=np.float32).reshape(1, 101)}


def model(*nodes, opset=14, dtype=TensorProto.FLOAT):
    x = helper.make_tensor_value_info("x", dtype, [1, 101])
    y = helper.make_tensor_value_info("y", dtype, [1, 101])
    graph = helper.make_graph(list(nodes), "g", [x], [y])
    imports = [helper.make_opsetid("", opset)]
    return load(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def gated(alpha=1 / 6, beta=0.5, swapped=False):
    inputs = ["h", "x"] if swapped else ["x", "h"]
    return (
        helper.make_node("HardSigmoid", ["x"], ["h"], alpha=alpha, beta=beta),
        helper.make_node("Mul", inputs, ["y"]),
    )


def expand(target: ir.Model) -> PassStats:
    return ExpandHardSwish().run(target, PassContext(TARGETS["cpu-x86-vnni"]))


def kinds(target: ir.Model) -> list[str]:
    return sorted(node.op_type for node in target.graph)


@pytest.mark.parametrize(
    "nodes",
    [(helper.make_node("HardSwish", ["x"], ["y"]),), gated(), gated(swapped=True)],
    ids=["op", "gate", "swapped"],
)
def test_expands_and_keeps_the_outputs(nodes):
    target = model(*nodes)
    before = open_session(target).run(FEED)["y"]
    assert expand(target).modified
    assert kinds(target) == ["Add", "Clip", "Mul", "Mul"]
    np.testing.assert_allclose(open_session(target).run(FEED)["y"], before, atol=1e-6)
    assert not expand(target).modified  # a second run finds nothing


def test_what_is_fused_again_is_the_short_form():
    target = model(helper.make_node("HardSwish", ["x"], ["y"]))
    expand(target)
    assert FuseHardSwish().run(target, PassContext(TARGETS["cpu-x86-vnni"])).modified
    assert kinds(target) == ["HardSigmoid", "Mul"]


def test_two_share_their_constants():
    target = model(helper.make_node("HardSwish", ["x"], ["t"]), helper.make_node("HardSwish", ["t"], ["y"]))
    assert expand(target).counters == {"HardSwish expanded": 2}
    assert len(target.graph.initializers) == 4


def other_use():
    return (*gated()[:1], helper.make_node("Mul", ["x", "h"], ["p"]), helper.make_node("Add", ["p", "h"], ["y"]))


@pytest.mark.parametrize(
    "nodes",
    [
        gated(alpha=0.2),
        gated(beta=0.4),
        (helper.make_node("HardSigmoid", ["x"], ["y"], alpha=1 / 6),),
        (*gated()[:1], helper.make_node("Mul", ["h", "h"], ["y"])),
        other_use(),
    ],
    ids=["other slope", "other offset", "no product", "another product", "gate used elsewhere"],
)
def test_near_misses_are_left_alone(nodes):
    target = model(*nodes)
    before = kinds(target)
    assert not expand(target).modified
    assert kinds(target) == before


def test_old_opsets_are_declined_with_a_reason():
    target = model(*gated(), opset=9)
    stats = expand(target)
    assert not stats.modified
    assert "opset 11" in stats.skipped[0].reason
