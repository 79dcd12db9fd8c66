from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from onnxcomp.model import load
from onnxcomp.passes.quantize.editor import GraphEditor, drop_unused_initializers, name_nodes

Parse = Callable[..., onnx.ModelProto]
BRANCHED = """g (bool c, float[3] x, float[3] q5) => (float[3] y) {
    q0 = Neg(x)
    z = Add(q0, q5)
    y = If (c) <
        then_branch = t () => (float[3] q3) { q1 = Neg(z) q3 = Add(q1, w) },
        else_branch = e () => (float[3] q) <float[3] q4 = {1.0, 2.0, 3.0}> { q = Add(z, q4) }
    >
}"""


def test_names_are_new_everywhere(parse: Parse) -> None:
    model = load(parse(BRANCHED, {"w": np.ones(3), "q2": np.ones(3)}).SerializeToString())
    editor = GraphEditor(model.graph)
    node = editor.node("Neg", [model.graph.inputs[1]])
    value = editor.constant(np.float32(1))
    assert node.outputs[0].name == node.name == "q6"
    assert value.name == "q7"
    assert model.graph.initializers["q7"] is value


def test_equal_constants_are_shared(parse: Parse) -> None:
    model = load(parse("g (float[1] x) => (float[1] y) { y = Neg(x) }").SerializeToString())
    editor = GraphEditor(model.graph)
    one = editor.constant(np.float32(1))
    assert editor.constant(np.array(1, np.float32)) is one
    others = [np.array([1], np.float32), np.float64(1), np.float32(-1), np.int32(1), np.array([[1]], np.float32)]
    assert len({id(editor.constant(other)) for other in others} | {id(one)}) == 6
    assert editor.constant(np.float32(0.0)) is not editor.constant(np.float32(-0.0))


def test_inserting_behind_a_tensor(parse: Parse) -> None:
    model = load(parse("g (float[1] x) => (float[1] y) { a = Neg(x) y = Neg(a) }").SerializeToString())
    editor = GraphEditor(model.graph)
    x, a = model.graph.inputs[0], model.graph.node(0).outputs[0]
    editor.after(a, [editor.node("Abs", [a])])
    editor.after(x, [editor.node("Exp", [x])])
    assert [node.op_type for node in model.graph] == ["Exp", "Neg", "Abs", "Neg"]


def test_every_node_gets_a_name_of_its_own(parse: Parse) -> None:
    model = ir.from_proto(parse("g (float[1] x) => (float[1] y) { a = Neg(x) b = Abs(a) c = Neg(b) y = Abs(c) }"))
    for node, name in zip(model.graph, ("n", None, "n", "Neg.2"), strict=True):
        node.name = name
    name_nodes(model.graph)
    names = [node.name for node in model.graph]
    assert names[0] == "n"
    assert len(set(names)) == 4
    assert all(names)
    name_nodes(model.graph)
    assert [node.name for node in model.graph] == names


def test_unused_initializers_go(parse: Parse) -> None:
    text = "g (float[3] x, float[3] given) => (float[3] y, float[3] out) { y = Add(x, used) }"
    weights = dict.fromkeys(("used", "unused", "given", "out"), np.ones(3))
    model = ir.from_proto(parse(text, weights))
    drop_unused_initializers(model.graph)
    assert set(model.graph.initializers) == {"used", "given", "out"}
    branched = load(parse(BRANCHED, {"w": np.ones(3), "unused": np.ones(3)}).SerializeToString())
    drop_unused_initializers(branched.graph)
    assert set(branched.graph.initializers) == {"w"}  # read by a branch
