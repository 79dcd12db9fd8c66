"""How often `bench` is right about a model that is slower by a known share: the copy, the counts, and one short run."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_repeatability as tool
import numpy as np
import onnx
import pytest

from onnxcomp.errors import UsageError
from onnxcomp.measure import Ratio
from onnxcomp.runtime import Session


def test_the_slowed_copy_gives_the_same_answers(sample_models: Path) -> None:
    model = onnx.load(sample_models / "resnet8" / "model.onnx")
    copy = tool.slowed(model, 100)
    onnx.checker.check_model(copy)
    feed = {"image": np.arange(784, dtype=np.uint8).reshape(1, 1, 28, 28)}
    first, second = Session(model.SerializeToString()).run(feed), Session(copy.SerializeToString()).run(feed)
    assert (first["logits"] == second["logits"]).all()
    assert second["repeatability_chain_last"].shape == (1,)
    assert [node.op_type for node in copy.graph.node].count("Tanh") == 4


def test_a_model_of_texts_is_refused(parse: Callable[..., onnx.ModelProto]) -> None:
    with pytest.raises(UsageError, match="holds no numbers"):
        tool.slowed(parse("g (string[1] x) => (string[1] y) { y = Identity(x) }"), 10)


@pytest.mark.parametrize(
    ("found", "width"), [([1.1, 1.051], 500), ([1.1, 1.06, 1.02, 1.2, 1.3, 1.4], 500), ([1.2] * 6, None)]
)
def test_the_chain_that_comes_nearest_is_taken(
    found: list[float], width: int | None, sample_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = sample_models / "lenet5" / "model.onnx", tmp_path / "copy.onnx"
    ratios = iter(found)
    monkeypatch.setattr(tool, "compare", lambda *_, **__: ([], [Ratio(next(ratios), 0.9, 1.9)]))
    if width is None:
        with pytest.raises(UsageError, match=r"0\.150 off"):
            tool.fit(onnx.load(source), source, copy, {}, 0.05, rounds=1)
        return
    assert tool.fit(onnx.load(source), source, copy, {}, 0.05, rounds=1) == width
    assert copy.read_bytes() == tool.slowed(onnx.load(source), width).SerializeToString()


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [Ratio(1.0, 0.99, 1.01), Ratio(1.01, 1.005, 1.015), Ratio(1.04, 1.03, 1.05), Ratio(0.9, 0.0, 2.0)]
    slow = [Ratio(1.05, 1.04, 1.06), Ratio(1.05, 1.01, 1.09), Ratio(1.05, 1.03, 1.06), Ratio(0.9, 0.8, 0.95)]

    def bench(*_: Any, seed: int, **__: Any) -> Any:
        models = [SimpleNamespace(ratio=ratio) for ratio in (None, same[seed], slow[seed])]
        return SimpleNamespace(models=models, settings=SimpleNamespace(half_width=0.02))

    monkeypatch.setattr(tool.onnxcomp, "bench", bench)
    row, reports = tool.measure([], 0, SimpleNamespace(runs=4, seconds=1.0, confidence=0.99))
    assert len(reports) == 4
    assert (row.false_claims, row.found) == (1, 2)
    assert (row.self_excludes, row.slowed_excludes) == (2, 4)
    assert not row.kept


@pytest.mark.parametrize(("claims", "found", "kept"), [(1, 18, True), (2, 20, False), (0, 17, False)])
def test_the_bounds(claims: int, found: int, kept: bool) -> None:
    assert tool.Row(0, 20, claims, found, 0, 0, 1.0, 1.05, 1.0).kept == kept


def test_a_short_run_under_load(run_tool: Callable[..., Any], sample_models: Path, tmp_path: Path) -> None:
    files = tmp_path / "r.json", tmp_path / "r.md"
    model = sample_models / "resnet8" / "model.onnx"
    # a copy that takes twice the time is found on any machine
    done = run_tool(
        "bench_repeatability", model, "--runs", 1, "--seconds", 0.3, "--rounds", 2, "--load", 1, "--slowdown", 2,
        "--json", files[0], "--markdown", files[1],
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(files[0].read_text(encoding="utf-8"))
    (row,) = document["rows"]
    assert (row["load"], row["runs"]) == (1, 1)
    assert row["slowed_ratio"] > 1.2 * row["self_ratio"]
    assert document["width"] > 1
    assert "intervals overlap" in files[1].read_text(encoding="utf-8")


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--runs", "0"]) == 2
    assert "--runs" in capsys.readouterr().err


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["nowhere.onnx"]) == 2
    assert "nowhere.onnx" in capsys.readouterr().err
