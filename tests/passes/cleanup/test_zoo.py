"""The whole cleanup on real models."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.data import open_samples
from onnxcomp.facts import all_nodes, input_specs
from onnxcomp.model import load, open_session, size
from onnxcomp.passbase import Pass, PassContext
from onnxcomp.passes.cleanup.batch_norm import FoldBatchNorm
from onnxcomp.passes.cleanup.bias import FoldBias
from onnxcomp.passes.cleanup.constants import LiftConstants
from onnxcomp.passes.cleanup.dead_code import RemoveDeadCode
from onnxcomp.passes.cleanup.deduplicate import DeduplicateInitializers
from onnxcomp.passes.cleanup.fold_constants import FoldConstants
from onnxcomp.passes.cleanup.gelu import FuseGelu
from onnxcomp.passes.cleanup.hard_swish import FuseHardSwish
from onnxcomp.passes.cleanup.identities import RemoveIdentities
from onnxcomp.passes.cleanup.layer_norm import FuseLayerNorm
from onnxcomp.target import get_target

SEQUENCE: tuple[type[Pass], ...] = (
    LiftConstants,
    RemoveIdentities,
    FoldConstants,
    FoldBias,
    FoldBatchNorm,
    FoldBias,
    FuseHardSwish,
    FuseGelu,
    FuseLayerNorm,
    RemoveIdentities,
    DeduplicateInitializers,
    RemoveDeadCode,
)
ZOO = os.environ.get("ONNXCOMP_ZOO")
MODELS = sorted(path.parent for path in Path(ZOO).glob("*/model.onnx")) if ZOO else []


def _run(model) -> list[str]:
    ctx = PassContext(get_target("cpu-x86-vnni"))
    return [rewrite.name for rewrite in SEQUENCE if rewrite().run(model, ctx).modified]


def _samples(folder: Path, model) -> Iterator[dict[str, np.ndarray]]:
    data = next(path for path in (folder / "eval", folder / "eval.npz") if path.exists())
    for feed in islice(iter(open_samples(data, input_specs(model))), 8):
        yield dict(feed)


def _sqnr(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = np.sum((np.asarray(wanted, np.float64) - got) ** 2)
    return float(10 * np.log10(np.sum(np.asarray(wanted, np.float64) ** 2) / noise)) if noise else float("inf")


@pytest.mark.zoo
@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_cleanup_of_a_real_model(folder):
    original, model = load(folder / "model.onnx"), load(folder / "model.onnx")
    _run(model)
    assert _run(model) == []
    assert size(model) <= size(original)
    for node in all_nodes(model):
        if node.op_type == "BatchNormalization":
            assert node.inputs[0].producer() is None or node.inputs[0].producer().op_type != "Conv"
    before, after = open_session(original, optimize=False), open_session(model, optimize=False)
    for feed in _samples(folder, model):
        wanted, got = before.run(feed), after.run(feed)
        assert list(got) == list(wanted)
        for name, array in wanted.items():
            assert got[name].shape == array.shape
            assert _sqnr(array, got[name]) > 80, name
