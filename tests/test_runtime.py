import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from onnxcomp import runtime
from onnxcomp.errors import DataError, EnvironmentUnavailable, ModelError
from onnxcomp.runtime import Session, limits, optimized_graph

Parse = Callable[..., onnx.ModelProto]
ADD = (
    "g (float[N, 2] x, int64[1] i) => (float[N, 2] y, float[N, 2] z) { f = Cast <to = 1> (i) y = Add(x, f) z = Neg(y) }"
)
FEED = {"x": np.ones((3, 2), np.float32), "i": np.array([4])}


@pytest.fixture
def session(parse: Parse) -> Session:
    return Session(parse(ADD).SerializeToString())


def identity(*, opset: int, ir_version: int) -> bytes:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version).SerializeToString()


def test_limits_are_the_newest_that_load() -> None:
    newest = limits()
    Session(identity(opset=newest.opset, ir_version=8))
    Session(identity(opset=13, ir_version=newest.ir_version))
    with pytest.raises(ModelError):
        Session(identity(opset=13, ir_version=newest.ir_version + 1))
    if newest.opset < onnx.defs.onnx_opset_version():
        with pytest.raises(ModelError):
            Session(identity(opset=newest.opset + 1, ir_version=8))


def test_runs_and_names_the_outputs(session: Session) -> None:
    assert session.outputs == ("y", "z")
    outputs = session.run(FEED)
    assert list(outputs) == ["y", "z"]
    np.testing.assert_array_equal(outputs["y"], np.full((3, 2), 5))
    np.testing.assert_array_equal(outputs["z"], np.full((3, 2), -5))
    assert list(session.run(FEED, ["z"])) == ["z"]


def test_runs_from_a_path(parse: Parse, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(parse(ADD).SerializeToString())
    assert Session(path, threads=0).run(FEED)["y"][0, 0] == 5


@pytest.mark.parametrize(
    "feed",
    [
        {"x": FEED["x"]},
        {},
        FEED | {"x": FEED["x"].astype(np.float64)},
        FEED | {"x": np.ones((3, 5), np.float32)},
        FEED | {"x": np.ones(2, np.float32)},
        FEED | {"other": FEED["x"]},
    ],
    ids=["missing", "empty", "dtype", "shape", "rank", "name"],
)
def test_a_feed_that_does_not_fit_is_a_data_error(session: Session, feed: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="do not fit"):
        session.run(feed)


def test_sizes_that_do_not_fit_are_told(session: Session) -> None:
    with pytest.raises(DataError, match="index: 1 Got: 5 Expected: "):
        session.run(FEED | {"x": np.ones((3, 5), np.float32)})


def test_a_node_that_fails_is_a_model_error(parse: Parse) -> None:
    text = "g (float[4] x, int64[M] s) => (float[M] y) { y = Reshape(x, s) }"
    with pytest.raises(ModelError, match="while running"):
        Session(parse(text).SerializeToString()).run({"x": np.zeros(4, np.float32), "s": np.array([3])})


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08"], ids=["empty", "garbage", "no graph"])
def test_bytes_that_are_no_model(content: bytes) -> None:
    with pytest.raises(ModelError, match="refuses"):
        Session(content)


def test_models_that_cannot_be_loaded(parse: Parse, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="refuses"):
        Session(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="NoSuchOp"):
        Session(parse("g (float[1] x) => (float[1] y) { y = NoSuchOp(x) }").SerializeToString())


def test_optimized_graph_shows_what_runs(parse: Parse, tmp_path: Path) -> None:
    text = "g (float[1, 2, 5, 5] x) => (float[1, 3, 5, 5] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w) y = Relu(c) }"
    model = parse(text, {"w": np.ones((3, 2, 3, 3))})
    optimized = onnx.load_from_string(optimized_graph(model.SerializeToString()))
    assert [node.op_type for node in optimized.graph.node] == ["FusedConv"]
    onnx.save(model, tmp_path / "m.onnx")
    assert onnx.load_from_string(optimized_graph(tmp_path / "m.onnx")).graph.node[0].op_type == "FusedConv"
    with pytest.raises(ModelError):
        optimized_graph(b"garbage")


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentUnavailable, match="not installed") as caught:
        Session(b"")
    assert caught.value.exit_code == 4
    assert "pip install" in str(caught.value.hint)
    with pytest.raises(EnvironmentUnavailable):
        runtime.optimized_graph(b"")


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "int4", "uint4", "int2", "uint2"],
)
@pytest.mark.parametrize("shape", [(3,), (), (0, 2), (2, 5)])
def test_types_that_numpy_does_not_have_go_in_and_come_out(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    number = helper.np_dtype_to_tensor_dtype(kind)
    floats = np.ones(shape, np.float32)
    if dtype not in ("int2", "uint2"):
        floats.reshape(-1)[1:2] = 3
    for source, target, value in ((1, number, floats), (number, 1, floats.astype(kind))):
        cast = helper.make_node("Cast", ["x"], ["y"], to=target)
        infos = [helper.make_tensor_value_info(n, t, shape) for n, t in (("x", source), ("y", target))]
        graph = helper.make_graph([cast], "g", infos[:1], infos[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", limits().opset)], ir_version=13)
        session = Session(model.SerializeToString())
        for outputs in (None, ["y"]):
            (result,) = session.run({"x": value}, outputs).values()
            assert result.dtype == (kind if target == number else np.float32)
            assert result.shape == shape
            np.testing.assert_array_equal(result.astype(np.float32), floats)
