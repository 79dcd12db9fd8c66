"""The architectures that pruning is tested on: valid, alive, written as said, and stated as a whole."""

import numpy as np
import onnx
import pytest

from onnxcomp.runtime import Session
from tests.passes.prune.architecture import Architecture
from tests.passes.prune.architectures import ARCHITECTURES, feed, layers, parameters, weights
from tests.passes.prune.builder import STYLES, Net, Style

EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def run(model: onnx.ModelProto, seed: int = 0, batch: int = 2) -> np.ndarray:
    (output,) = Session(model.SerializeToString()).run(feed(model, seed, batch)).values()
    return np.asarray(output)


def ops(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@EVERY
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_each_is_valid_and_alive_however_it_is_written(architecture: Architecture, style: Style) -> None:
    model = architecture.build(Net(style))
    onnx.checker.check_model(model, full_check=True)
    first, second = run(model, 0), run(model, 1)
    assert np.isfinite(first).all()
    assert first.std() > 0.01
    assert np.abs(first[0] - first[1]).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    assert np.abs(first).max() < 100
    assert ("Constant" in ops(model)) == style.constants
    assert bool(model.graph.initializer) != style.constants
    if style.dynamic:
        assert run(model, batch=3).size == first.size // 2 * 3
    if style.chains:
        assert not ops(model) & {"LayerNormalization", "Flatten"}


@EVERY
def test_every_layer_is_stated_to_be_prunable_or_frozen_and_half_of_it_is_a_network(architecture: Architecture) -> None:
    whole, half = architecture.build(Net()), architecture.build(Net(share=0.5))
    units = dict.fromkeys(architecture.frozen, 0)
    for members, count in architecture.groups.items():
        assert count % 2 == 0
        for name in members.split():
            units[name] = units.get(name, 0) + count
    before, after = layers(whole), layers(half)
    assert set(units) == set(before)
    for name, count in units.items():
        assert after[name] == (before[name] // 2 if count else before[name]), name
        assert count == 0 or before[name] % count == 0, name
    onnx.checker.check_model(half, full_check=True)
    assert np.isfinite(run(half)).all()
    assert parameters(half) < parameters(whole)


@pytest.mark.parametrize("name", [name for name, found in ARCHITECTURES.items() if any(found.peers)])
def test_what_is_stated_is_as_much_as_the_better_peer_finds(name: str) -> None:
    build, peers = ARCHITECTURES[name].build, ARCHITECTURES[name].peers
    kept = parameters(build(Net(scale=16, share=0.5))) / parameters(build(Net(scale=16)))
    assert round(kept, 2) <= min(filter(None, peers))


def test_styles_differ_as_stated() -> None:
    nets = {name: ARCHITECTURES["shufflenet-v2"].build(Net(style)) for name, style in STYLES.items()}
    assert "BatchNormalization" not in ops(nets["folded"])
    assert all("BatchNormalization" in ops(model) for name, model in nets.items() if name != "folded")
    assert len(weights(nets["deduplicated"])) < len(weights(nets["plain"])) // 2
    assert {"Shape", "Gather", "Div", "Unsqueeze", "Concat"} <= ops(nets["chains"])
    assert "Shape" not in ops(nets["dynamic"])
    plain = run(nets["plain"])
    for name in ("constants", "dynamic", "chains"):
        np.testing.assert_allclose(run(nets[name]), plain, rtol=1e-5, atol=1e-6)
