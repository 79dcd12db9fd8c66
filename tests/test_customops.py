"""Libraries of custom operators, and models whose operators nobody knows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcomp.customops import HINT, custom_operators, libraries
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.model import load, open_session

Parse = Callable[..., onnx.ModelProto]
FOREIGN = """<ir_version: 8, opset_import: ["": 17, "com.example": 1, "ai.onnx.contrib": 1]>
g (float[4] x) => (float[4] y) { %s }"""


def model(body: str) -> bytes:
    return onnx.parser.parse_model(FOREIGN % body).SerializeToString()


def test_an_unknown_domain_is_named_with_what_helps() -> None:
    with pytest.raises(ModelError, match=r"\(the model has operators of com\.example\)") as caught:
        load(model("y = com.example.Blur(x)"))
    assert caught.value.hint == HINT


def test_an_unknown_domain_inside_a_body_is_found() -> None:
    branches = "then_branch = t () => (float[4] a) { a = com.example.Blur(x) }, "
    branches += "else_branch = e () => (float[4] b) { b = Neg(x) }"
    body = f"c = Constant <value = bool {{1}}> () y = If (c) <{branches}>"
    with pytest.raises(ModelError, match=r"com\.example"):
        load(model(body))


def test_other_refusals_do_not_speak_of_libraries() -> None:
    with pytest.raises(ModelError, match="NoSuchOperator") as caught:
        load(model("y = NoSuchOperator(x)"))
    assert caught.value.hint != HINT


def test_functions_of_the_model_itself_are_no_foreign_operators() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
    g (float[4] x) => (float[4] y) { z = local.twice(x) y = NoSuchOperator(z) }
    <domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    with pytest.raises(ModelError) as caught:
        load(onnx.parser.parse_model(text).SerializeToString())
    assert caught.value.hint != HINT


def test_a_library_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such library"), custom_operators([tmp_path / "none.so"]):
        pass
    assert libraries() == ()


def test_a_single_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="list of paths"), custom_operators(str(tmp_path)):
        pass


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("no library", encoding="utf-8")
    with custom_operators([path]), pytest.raises(UsageError, match=r"text\.so is no library of custom operators"):
        load(model("y = Relu(x)"))
    load(model("y = Relu(x)"))


def test_libraries_are_known_inside_only(tmp_path: Path) -> None:
    first, second = tmp_path / "a.so", tmp_path / "b.so"
    first.touch()
    second.touch()
    with custom_operators([first]):
        with custom_operators([first, second]):
            assert [Path(path).name for path in libraries()] == ["a.so", "b.so"]
        assert [Path(path).name for path in libraries()] == ["a.so"]
    assert libraries() == ()


def test_operators_of_a_library_run_and_are_left_alone() -> None:
    extensions = pytest.importorskip("onnxruntime_extensions")
    from onnxcomp.api import optimize

    content = model("a = Identity(x) y = ai.onnx.contrib.NegPos(a)")
    proto = onnx.ModelProto.FromString(content)
    proto.graph.node[-1].output.append("z")
    with pytest.raises(ModelError, match=r"ai\.onnx\.contrib"):
        load(proto.SerializeToString())
    with custom_operators([extensions.get_library_path()]):
        result = optimize(proto.SerializeToString(), time_budget=1.0)
        assert "NegPos" in [node.op_type for node in result.model.graph]
        x = np.array([1, -2, 3, -4], np.float32)
        assert open_session(result.model).run({"x": x})["y"].tolist() == [0, -2, 0, -4]


@pytest.mark.parametrize("content", [None, b"no library"])
def test_the_command_line_refuses_what_is_no_library(
    content: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from onnxcomp.cli.app import build_app, run

    (tmp_path / "model.onnx").write_bytes(model("y = Relu(x)"))
    library = tmp_path / "ops.so"
    if content is not None:
        library.write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run(build_app(), ["optimize", str(tmp_path / "model.onnx"), "--custom-ops", str(library)]) == 2
    assert "library of custom operators" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
