"""`diff` of models whose differences are known."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run

Parse = Callable[..., onnx.ModelProto]
TEXT = "g (float[N,4] x) => (float[N,3] y) {{ h = MatMul(x, w) i = Add(h, b) y = {last}(i) }}"


@pytest.fixture
def paths(parse: Parse, tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3)), "b": [1.0, 2, 3]}
    models = [parse(TEXT.format(last="Relu"), weights), parse(TEXT.format(last="Abs"), weights)]
    models[1].graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array((1.1 * weights["w"]).astype(np.float32), "w"))
    found = []
    for name, model in zip("ab", models, strict=True):
        found.append(str(tmp_path / f"{name}.onnx"))
        Path(found[-1]).write_bytes(model.SerializeToString())
    return found


def test_what_changed_is_told(paths: list[str]) -> None:
    found = onnxcomp.diff(*paths)
    assert [(o.op_type, o.first, o.second) for o in found.operators] == [("Abs", 0, 1), ("Relu", 1, 0)]
    (weight,) = found.tensors
    assert (weight.name, weight.change, weight.first, weight.second) == ("w", "other values", *["float32[4, 3]"] * 2)
    assert weight.sqnr == pytest.approx(20, abs=0.01)
    assert found.unchanged == 1
    assert found.first.macs == found.second.macs == 12
    assert "inputs are the same" in found.render()


def test_the_page_shows_both_sides(paths: list[str]) -> None:
    page = onnxcomp.diff(*paths).html()
    for said in ("inputs are the same", "1 weight changed, 1 did not", "Weights that differ", "20.0 dB", "a.onnx"):
        assert said.lower() in page.lower(), said


def test_equal_models(paths: list[str]) -> None:
    found = onnxcomp.diff(paths[0], paths[0])
    assert "Weights that differ" not in found.html()
    assert (found.operators, found.tensors, found.unchanged) == ((), (), 2)


def test_types_shapes_and_names(parse: Parse) -> None:
    def model(kept: str, weights: dict[str, np.ndarray], width: str = "N") -> bytes:
        text = f"g (float[{width},3] x) => (float[N,3] y) {{ c = Cast<to=1>({kept}) y = Add(x, c) }}"
        return parse(text, weights).SerializeToString()

    ones = np.ones(3, np.float32)
    first = model("k", {"k": ones, "s": ones, "gone": ones})
    second = model("k", {"k": ones.astype(np.float16), "s": np.ones(1, np.float32), "new": ones}, width="2")
    found = onnxcomp.diff(first, second)
    changes = {tensor.name: (tensor.change, tensor.sqnr) for tensor in found.tensors}
    assert changes == {
        "k": ("other type", np.inf),
        "s": ("other shape", None),
        "gone": ("removed", None),
        "new": ("added", None),
    }
    assert "inputs differ: x float32['N', 3] and x float32[2, 3]" in found.render()


def test_the_command(paths: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(build_app(), ["inspect", *paths, "--format", "json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["kind"] == "diff"
    assert printed["first"]["parameters"] == 15
    assert run(build_app(), ["inspect", *paths, "--nodes"]) == 2
    assert "side by side" in capfd.readouterr().err
    assert run(build_app(), ["inspect", paths[0], "nowhere.onnx"]) == 2
    assert "nowhere.onnx" in capfd.readouterr().err
