"""The opset upgrade: converts, keeps the outputs, does nothing where it need not."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from onnxcomp.errors import ModelError, RecipeError
from onnxcomp.facts import opset
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup.upgrade_opset import UpgradeOpset, UpgradeOpsetConfig
from onnxcomp.target import TARGETS


def squeezing_model(version):
    """Return a model that says "squeeze axis 1, softmax" in the form of opset 11, where axes are attributes."""
    nodes = [
        helper.make_node("Squeeze", ["x"], ["y"], axes=[1]),
        helper.make_node("Softmax", ["y"], ["z"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1, 5])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 5])
    graph = helper.make_graph(nodes, "g", [x], [z])
    imports = [helper.make_opsetid("", version)]
    return load(helper.make_model(graph, opset_imports=imports, ir_version=7).SerializeToString())


def upgrade(model, minimum):
    return UpgradeOpset(UpgradeOpsetConfig(minimum)).run(model, PassContext(TARGETS["cpu-x86-vnni"]))


def test_converts_and_keeps_the_outputs():
    model = squeezing_model(11)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 1, 5)).astype(np.float32)}
    before = open_session(model).run(feed)
    stats = upgrade(model, 13)
    assert stats.modified
    assert opset(model) == 13
    np.testing.assert_allclose(open_session(model).run(feed)["z"], before["z"], rtol=1e-6)


def test_attributes_that_become_inputs_become_initializers():
    text = (
        '<ir_version: 4, opset_import: ["": 9]> g (float[4] x) => (float[4] y) { y = Clip <min = 0.0, max = 6.0> (x) }'
    )
    model = load(onnx.parser.parse_model(text).SerializeToString())
    assert upgrade(model, 13).modified
    assert [node.op_type for node in model.graph] == ["Clip"]
    assert sorted(float(v.const_value.numpy()) for v in model.graph.initializers.values()) == [0.0, 6.0]


def test_a_new_enough_model_is_left_alone():
    model = squeezing_model(11)
    assert not upgrade(model, 11).modified
    assert opset(model) == 11


def test_a_second_run_does_nothing():
    model = squeezing_model(11)
    upgrade(model, 13)
    assert not upgrade(model, 13).modified


def test_models_with_functions_are_declined():
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 11)]
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="local")], "g", [x], [y])
    imports = [helper.make_opsetid("", 11), helper.make_opsetid("local", 1)]
    proto = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    model = load(proto.SerializeToString())
    with pytest.raises(ModelError, match="functions"):
        upgrade(model, 13)
    assert opset(model) == 11


@pytest.mark.parametrize("minimum", [0, 6, 27])
def test_impossible_versions_are_refused(minimum):
    with pytest.raises(RecipeError, match="minimum"):
        UpgradeOpsetConfig(minimum)
