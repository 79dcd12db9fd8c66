"""The simulation against the rewritten model itself, for choices of nodes."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.quantize.static import QuantizeStatic, QuantizeStaticConfig
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
CONV = "Conv <pads = [1, 1, 1, 1]>"
NODES = (
    f"[c0] a = {CONV} (x, w33, b8) [r0] b = Relu(a) [c1] c = {CONV} (b, v33) [s] d = Add(c, b) "
    "[p] e = MaxPool <kernel_shape = [1, 1]> (d) [h] f = HardSwish(e) [c2] y = Conv <pads = [1, 1, 1, 1]> (f, w33)"
)
CHOICES: list[tuple[str, ...]] = [(), ("c0",), ("c1", "s"), ("c2",), ("c0", "c1"), ("c0", "c1", "s", "p")]
TINY = 1e-9


@pytest.fixture
def case(parse: Parse, weights: Any, samples: Any) -> Any:
    proto = parse(f"g (float[N, 8, 8, 8] x) => (float[N, 8, 8, 8] y) {{ {NODES} }}", weights)
    model = load(proto.SerializeToString())
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(2, 8, 8, 8)).astype(np.float32)} for _ in range(4)]
    data = samples(feeds)
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(model, data))
    return model, feeds, ctx


def noise(expected: list[dict[str, Any]], answers: list[dict[str, Any]]) -> float:
    fidelity = Fidelity()
    for one, other in zip(expected, answers, strict=True):
        fidelity.add(one, other)
    return fidelity.noise


@pytest.mark.parametrize("left_out", CHOICES)
def test_makes_the_noise_of_the_real_thing(case: Any, left_out: Collection[str]) -> None:
    model, feeds, ctx = case
    expected = [open_session(model).run(feed) for feed in feeds]
    simulation = QuantizeStatic().simulate(model, ctx)
    assert simulation is not None
    session = open_session(simulation.model)
    simulated = noise(expected, [session.run({**feed, **simulation.switches(left_out)}) for feed in feeds])
    real = model.clone()
    QuantizeStatic(QuantizeStaticConfig(exclude=tuple(left_out))).run(real, ctx)
    measured = noise(expected, [open_session(real).run(feed) for feed in feeds])
    assert simulated > TINY
    assert 10 * abs(np.log10(simulated / measured)) < 1.0  # dB


def test_with_all_left_out_nothing_is_rounded(case: Any) -> None:
    model, feeds, ctx = case
    units = QuantizeStatic().units(model, ctx)
    simulation = QuantizeStatic().simulate(model, ctx)
    assert simulation is not None
    switches = simulation.switches({name for unit in units for name in unit.nodes})
    assert not any(value.any() for value in switches.values())
    session, original = open_session(simulation.model), open_session(model)
    for feed in feeds:
        np.testing.assert_allclose(session.run({**feed, **switches})["y"], original.run(feed)["y"], atol=1e-5)


def test_leaves_the_model_as_it_was(case: Any) -> None:
    model, _, ctx = case
    names = [node.op_type for node in model.graph]
    QuantizeStatic().simulate(model, ctx)
    assert [node.op_type for node in model.graph] == names
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_there_is_none_where_nothing_is_quantized(parse: Parse, samples: Any) -> None:
    model = load(parse("g (float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }", {}).SerializeToString())
    data = samples([{"x": np.ones((1, 4), np.float32)}])
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(model, data))
    assert QuantizeStatic().simulate(model, ctx) is None
