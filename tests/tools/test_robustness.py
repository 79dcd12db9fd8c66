"""The test models of the onnx package on their way through onnxcomp, and the tool that sends them."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import robustness
from onnx_cases import Case, constants_planted
from robustness import Verdict, check, run_shard

PARTS = 2 if "ONNXCOMP_SLOW" in os.environ else 6  # of which two are run: all take two minutes
X = np.array([-1, 2], np.float32)


def case(body: str, expected: object, *, inputs: dict[str, np.ndarray] | None = None) -> Case:
    declared = ", ".join(f"float[2] {name}" for name in inputs or {"x": X})
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({declared}) => (float[2] y) {{ {body} }}'
    return Case(
        "made", onnx.parser.parse_model(text), [(inputs or {"x": X}, [np.asarray(expected, np.float32)])], 1e-3, 1e-7
    )


def assert_sound(verdicts: list[Verdict]) -> None:
    assert [verdict for verdict in verdicts if verdict.outcome == "failed"] == []
    # The package's own expansion of AffineGrid gives Range a vector, which onnxruntime refuses once it sees it
    assert {v.name for v in verdicts if v.outcome == "passed" and v.reason and "affine_grid" not in v.name} == set()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_node_and_small_models_give_what_onnx_expects(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)  # being measured would make the processes twice as slow
    verdicts = run_shard(part, PARTS, only="^(?!light/)")
    assert_sound(verdicts)
    counts = Counter(verdict.outcome for verdict in verdicts)
    assert counts["passed"] > 3000 / PARTS
    assert counts["refused"] < 500 / PARTS


@pytest.mark.slow
@pytest.mark.skipif("ONNXCOMP_SLOW" not in os.environ, reason="takes a minute: ONNXCOMP_SLOW=1 runs it")
def test_light_models_give_what_onnx_expects() -> None:
    verdicts = run_shard(0, 1, only="^light/")
    assert_sound(verdicts)
    assert len(verdicts) == 9
    assert {verdict.outcome for verdict in verdicts} == {"passed"}


def test_a_right_answer_passes(tmp_path: Path) -> None:
    assert check(case("y = Relu(x)", [0, 2.0]), tmp_path) == Verdict("made", "passed")
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("expected", [[0, 3.0], [[0, 2.0]], [0], [float("nan"), 2]])
def test_what_onnxruntime_answers_otherwise_is_refused(expected: list[object], tmp_path: Path) -> None:
    assert check(case("y = Relu(x)", expected), tmp_path).outcome == "refused"


def test_what_onnxruntime_does_not_load_is_refused(tmp_path: Path) -> None:
    verdict = check(case("y = NoSuchOperator(x)", X), tmp_path)
    assert verdict.outcome == "refused"
    assert "NoSuchOperator" in verdict.reason


def test_a_foreign_exception_fails_even_where_onnxruntime_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bytes) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(robustness, "load", broken)
    for made in (case("y = Relu(x)", [0, 2.0]), case("y = NoSuchOperator(x)", X)):
        assert check(made, tmp_path) == Verdict("made", "failed", "IndexError: a bug")


def test_a_model_that_is_saved_wrongly_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = case("y = Neg(x)", X).model.SerializeToString()
    monkeypatch.setattr(robustness, "save", lambda _, path: path.write_bytes(other))
    verdict = check(case("y = Relu(x)", [0, 2.0]), tmp_path)
    assert verdict.outcome == "failed"
    assert "output y: 2 of 2 elements differ" in verdict.reason


def test_inputs_become_constants_but_for_one() -> None:
    planted = constants_planted(case("y = Add(x, b)", X + 1, inputs={"x": X, "b": np.ones(2, np.float32)}))
    assert planted is not None
    assert [value.name for value in planted.model.graph.input] == ["x"]
    assert [tensor.name for tensor in planted.model.graph.initializer] == ["b"]
    assert list(planted.runs[0][0]) == ["x"]
    assert constants_planted(case("y = Relu(x)", X)) is None


DYING = """
import os, sys
sys.path[:0] = [{tools!r}]
import onnx
import robustness
from onnx_cases import Case

def check(case, folder, begun):
    if case.name == "b":
        os.abort()
    if case.name == "c":
        begun()
        os.abort()
    return robustness.Verdict(case.name, "passed")

robustness.all_cases = lambda: [Case(name, onnx.ModelProto(), [({{}}, [])], 0, 0) for name in "abcde"]
robustness.check = check
sys.exit(robustness.main())
"""


def test_the_death_of_a_process_costs_one_model(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING.format(tools=str(Path(robustness.__file__).parent)), encoding="utf-8")
    found = run_shard(0, 1, only="[abcd]", script=str(script))
    assert [(verdict.name, verdict.outcome) for verdict in found] == [
        ("a", "passed"),
        ("b", "refused"),
        ("c", "failed"),
        ("d", "passed"),
    ]


def test_prints_figures(run_tool: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_tool("robustness", "--only", "node/test_(relu|lstm_batchwise)$", "--shards", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["all", "passed", "1", "refused", "1", "failed", "0"]


@pytest.mark.parametrize("arguments", [("--only", "("), ("--shards", 0)])
def test_wrong_usage(run_tool: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[object, ...]) -> None:
    assert run_tool("robustness", *arguments).returncode == 2
