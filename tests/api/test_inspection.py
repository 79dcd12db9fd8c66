"""`inspect` on models whose figures are known by hand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxcomp import inspect
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.report.inspection import Inspection, Verdict
from onnxcomp.target import TARGETS

Parse = Callable[..., onnx.ModelProto]
RNG = np.random.default_rng(0)


def look(model: onnx.ModelProto, **settings: Any) -> Inspection:
    return inspect(model.SerializeToString(), **settings)


def operators(found: Inspection) -> dict[str, tuple[int, int, int, int]]:
    return {o.op_type: (o.count, o.parameters, o.macs, o.unknown) for o in found.operators}


def verdicts(found: Inspection) -> Mapping[str, Verdict]:
    assert found.quantization is not None
    return {verdict.name: verdict for verdict in found.quantization.nodes}


def test_figures_of_a_small_model(parse: Parse) -> None:
    model = parse(
        "g (float[N, 8] x) => (float[N, 4] y) { a = MatMul(x, w)  b = Add(a, c)  y = Relu(b) }",
        {"w": RNG.normal(size=(8, 4)), "c": np.zeros(4)},
    )
    found = look(model, batch=3)
    assert (found.parameters, found.macs, found.macs_known) == (36, 3 * 8 * 4, 3 * 8 * 4)
    assert operators(found) == {"MatMul": (1, 32, 96, 0), "Add": (1, 4, 0, 0), "Relu": (1, 0, 0, 0)}
    assert found.run_shapes == "x 3x8"
    assert [(t.name, t.type, t.shape) for t in found.inputs] == [("x", "float32", ("N", 8))]
    assert [(w.dtype, w.tensors, w.elements, w.bytes) for w in found.weights] == [("float32", 2, 36, 144)]
    assert found.opsets[""] == 17
    assert not found.quantized
    assert found.refusal == ""
    assert found.nodes == ()
    assert found.quantization is None


def test_shapes_that_depend_on_values_are_those_of_the_run(parse: Parse) -> None:
    """No shape inference can tell how many elements are not zero."""
    model = parse(
        "g (float[8] x) => (float[M, 4] y) { n = NonZero(x)  t = Transpose(n)  f = Cast<to=1>(t)  y = MatMul(f, w) }",
        {"w": np.ones((1, 4))},
    )
    assert look(model).macs == 8 * 4


@pytest.mark.parametrize(("times", "expected"), [(0, 0), (3, 3 * 2 * 5 * 5)])
def test_bodies_count_as_often_as_they_run(parse: Parse, times: int, expected: int) -> None:
    model = parse(
        """g (float[2, 5] x) => (float[2, 5] y) {
            y = Loop (n, , x) <body = b (int64 i, bool go, float[2, 5] s) => (bool again, float[2, 5] r)
                { again = Identity(go)  [inner] r = MatMul(s, w) }>
        }""",
        {"w": np.eye(5), "n": np.int64(times)},
    )
    found = look(model, nodes=True)
    assert found.macs == expected
    assert found.subgraphs == 1
    inner = next(node for node in found.nodes if node.name == "inner")
    assert inner.place.endswith(".body")


def test_functions_are_looked_into(parse: Parse) -> None:
    model = parse("g (float[2, 5] x) => (float[2, 5] y) { y = mine.Twice(x, w) }", {"w": np.eye(5)})
    body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("MatMul", ["c", "b"], ["d"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Twice", ["a", "b"], ["d"], body, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    found = look(model)
    assert found.functions == ("mine::Twice",)
    assert operators(found) == {"MatMul": (2, 25, 100, 0)}


def test_a_model_that_the_runtime_refuses_is_shown_and_unknown_is_called_unknown(parse: Parse) -> None:
    model = parse(
        "g (float[N, 8] x) => (float[N, 4] y) { h = other.Mystery(x)  a = MatMul(x, w)  y = Relu(a) }",
        {"w": np.ones((8, 4))},
    )
    model.opset_import.append(helper.make_opsetid("other", 1))
    found = look(model, quantization=True)
    assert "Mystery" in found.refusal
    assert found.macs is None
    assert found.macs_known == 32
    assert operators(found)["other::Mystery"] == (1, 0, 0, 1)
    text = found.render()
    assert "at least 32 MACs" in text
    assert "unknown" in text
    assert "other" in verdicts(found)["Mystery.0"].static_reason


def test_inputs_that_nobody_can_make_up(parse: Parse) -> None:
    found = look(parse("g (string[N] x) => (string[N] y) { y = Identity(x) }"))
    assert found.inputs[0].type == "string"
    assert any("'x'" in note for note in found.notes)
    assert found.macs == 0


def test_external_data_counts(parse: Parse, tmp_path: Path) -> None:
    model = parse("g (float[1, 64] x) => (float[1, 64] y) { y = MatMul(x, w) }", {"w": np.ones((64, 64))})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    found = inspect(tmp_path / "m.onnx")
    assert found.external == {"w.bin": 64 * 64 * 4}
    assert found.size == (tmp_path / "m.onnx").stat().st_size + 64 * 64 * 4
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"w\.bin is missing"):
        inspect(tmp_path / "m.onnx")


@pytest.mark.parametrize("calibrated", [False, True])
def test_every_node_of_a_network_gets_its_verdict(sample_models: Path, calibrated: bool) -> None:
    source = sample_models / "resnet8" / "model.onnx"
    data = sample_models / "fashion_mnist" / "calibration.npz" if calibrated else None
    found = inspect(source, quantization=True, nodes=True, calibration=data, target="cpu-x86-vnni")
    every = verdicts(found)
    assert {n.name for n in found.nodes if n.op_type != "Constant"} == every.keys()
    static = {kind: {v.static for v in every.values() if v.op_type == kind} for kind in ("Conv", "Relu", "Sub")}
    assert static == {"Conv": {True}, "Relu": {True}, "Sub": {False}}
    assert all(v.static or v.static_reason for v in every.values())
    assert all(v.dynamic or v.dynamic_reason for v in every.values())
    assert not any(v.dynamic for v in every.values() if v.op_type == "Conv")
    assert found.quantization is not None
    assert ("checked" in found.quantization.checked) == calibrated


@pytest.mark.parametrize("target", TARGETS)
def test_no_node_is_without_a_reason_on_any_target(sample_models: Path, target: str) -> None:
    found = inspect(sample_models / "resnet8" / "model.onnx", quantization=True, nodes=True, target=target)
    every = verdicts(found)
    assert {n.name for n in found.nodes if n.op_type != "Constant"} == every.keys()
    assert all(v.static or v.static_reason for v in every.values())
    assert all(v.dynamic or v.dynamic_reason for v in every.values())
    facts = TARGETS[target]
    assert any(v.static for v in every.values()) == bool(facts.roles)
    if not facts.roles:
        assert {v.static_reason for v in every.values() if v.op_type == "Conv"} == {facts.no_static}


def test_reasons_come_from_the_passes(parse: Parse) -> None:
    weight = np.ones((64, 64))
    model = parse(
        """g (float[1, 64] x) => (float[1, 64] y) {
            [broken] a = MatMul(x, w)  [big] b = MatMul(a, v)  [tan] y = Tan(b) }""",
        {"w": np.full((64, 64), np.nan), "v": weight},
    )
    every = verdicts(look(model, quantization=True, target="cpu-x86-vnni"))
    assert every["broken"].static_reason == every["broken"].dynamic_reason == "the weight holds NaN or infinity"
    assert every["big"].static
    assert every["big"].dynamic
    assert every["tan"].static_reason == "no integer kernel of this type on cpu-x86-vnni"


def test_a_spread_of_ranges_is_seen_with_samples_only(parse: Parse, tmp_path: Path) -> None:
    model = parse(
        """g (float[N, 8] x) => (float[N, 8] y) {
            a = MatMul(x, w)  b = MatMul(x, v)  [sum] c = Add(a, b)  y = MatMul(c, w) }""",
        {"w": np.eye(8), "v": np.eye(8) * 1e6},
    )
    np.savez(tmp_path / "rows.npz", x=RNG.normal(size=(16, 8)).astype(np.float32))
    settings: dict[str, Any] = {"quantization": True, "target": "cpu-x86-vnni"}
    assert verdicts(look(model, **settings))["sum"].static
    checked = verdicts(look(model, calibration=tmp_path / "rows.npz", **settings))["sum"]
    assert not checked.static
    assert "differ" in checked.static_reason


def test_json_holds_everything(parse: Parse) -> None:
    model = parse("g (float[N, 8] x) => (float[N, 8] y) { y = MatMul(x, w) }", {"w": np.eye(8)})
    found = json.loads(look(model, nodes=True, quantization=True).to_json())
    assert (found["kind"], found["schema_version"]) == ("inspect", 1)
    assert found["nodes"][0]["macs"] == 64
    assert found["quantization"]["nodes"][0]["op_type"] == "MatMul"


def test_a_target_that_does_not_exist(parse: Parse) -> None:
    with pytest.raises(UsageError, match="abacus"):
        look(parse("g (float[1] x) => (float[1] y) { y = Relu(x) }"), target="abacus")


def test_the_share_of_time_of_channel_groups(sample_models: Path) -> None:
    model = sample_models / "lenet5" / "model.onnx"
    plain, timed = (inspect(model, groups=True, latency=latency) for latency in (False, True))
    assert plain.groups is not None
    assert timed.groups is not None
    assert {group.time for group in plain.groups.groups} == {None}
    assert all(group.time is not None and 0 < group.time < 1 for group in timed.groups.groups)
    assert " time " in timed.render()
    assert " time " not in plain.render()
    with pytest.raises(UsageError, match="of groups"):
        inspect(model, latency=True)
