"""Models as real exporters write them, through the whole of `optimize`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.api import optimize
from onnxcomp.data import Feed, Samples, synthetic
from onnxcomp.errors import DataError
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session
from onnxcomp.runtime import Session

pytestmark = pytest.mark.untraced

FOLDER = Path(__file__).parent / "fixtures"
MODELS = sorted(FOLDER.glob("*.onnx"))
STRINGS = FOLDER / "sklearn_strings.onnx"
LEAST_SQNR = 20.0  # dB, what `optimize` holds itself to where there are no labels


def made_up(model: ir.Model) -> list[Feed]:
    return list(synthetic(input_specs(model), count=8, seed=1, batch=1, bounds=input_bounds(model)))


def words_and_numbers() -> list[Feed]:
    rng = np.random.default_rng(0)
    return [
        {"word": np.array([[word]], object), "numbers": rng.normal(size=(1, 2)).astype(np.float32)}
        for word in ("red", "green", "blue", "red")
    ]


def fidelity(first: Session, second: Session, feeds: Sequence[Feed]) -> Fidelity:
    found = Fidelity()
    for feed in feeds:
        found.add(first.run(feed), second.run(feed))
    return found


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_optimize_gives_an_equal_model_or_the_original(
    path: Path, samples: Callable[..., Samples], tmp_path: Path
) -> None:
    original = load(path)
    feeds = words_and_numbers() if path == STRINGS else made_up(original)
    result = optimize(path, calibration=samples(feeds), time_budget=1.0)
    outcome = result.report.outcome
    assert [(report.name, report.failure) for report in outcome.cleanup if report.failure] == []
    saved = tmp_path / "model.onnx"
    result.save(saved)
    onnx.checker.check_model(saved)
    if outcome.winner is None:
        assert saved.read_bytes() == path.read_bytes()
    else:
        assert fidelity(open_session(original), Session(saved), feeds).sqnr >= LEAST_SQNR
        assert fidelity(open_session(result.model), Session(saved), feeds).sqnr >= 60


def test_strings_can_not_be_made_up() -> None:
    with pytest.raises(DataError, match="'word' is no numeric tensor") as caught:
        optimize(STRINGS)
    assert caught.value.hint is not None


def test_files_are_small_and_their_makers_known() -> None:
    sizes = {path.name: path.stat().st_size for path in MODELS}
    assert {name: size for name, size in sizes.items() if size > 100_000} == {}
    assert sum(sizes.values()) < 1_000_000
    families = json.loads((FOLDER / "versions.json").read_text(encoding="utf-8")).values()
    assert sorted(name for family in families for name in family["models"]) == sorted(sizes)
    assert all(version for family in families for version in family["packages"].values())
