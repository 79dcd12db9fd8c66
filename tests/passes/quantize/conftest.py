"""Fixtures for quantization: run a pass on a small model and look at what onnxruntime makes of it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.data import Feed
from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session, serialized
from onnxcomp.passbase import Pass, PassContext, PassStats
from onnxcomp.runtime import optimized_graph
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

RUNS = 4


@dataclass
class Quantized:
    """A model before and after a pass."""

    before: ir.Model
    after: ir.Model
    stats: PassStats
    ctx: PassContext
    feeds: Sequence[Feed]

    @property
    def ops(self) -> Counter[str]:
        """Operators of the file."""
        return Counter(node.op_type for node in self.after.graph)

    @property
    def fused(self) -> Counter[str]:
        """Operators that onnxruntime runs."""
        int8 = self.ctx.target.activations == "int8"
        optimized = onnx.load_from_string(optimized_graph(serialized(self.after), int8=int8))
        return Counter(node.op_type for node in optimized.graph.node)

    @property
    def reasons(self) -> dict[str, str]:
        return {skip.node: skip.reason for skip in (*self.ctx.skipped, *self.stats.skipped)}

    @property
    def sqnr(self) -> float:
        """Signal-to-noise ratio of the worst output, dB."""
        first, second = open_session(self.before), open_session(self.after)
        fidelity = Fidelity()
        for feed in self.feeds:
            fidelity.add(first.run(feed), second.run(feed))
        return fidelity.sqnr

    def check(self) -> None:
        """Hold the result to what every quantized model must be."""
        proto = ir.to_proto(self.after)
        onnx.checker.check_model(proto, full_check=True)
        nodes = [node.name for node in self.after.graph]
        assert len(set(nodes)) == len(nodes)
        values = [value.name for node in self.after.graph.all_nodes() for value in node.outputs if value.name]
        assert len(set(values)) == len(values)
        for name, value in self.after.graph.initializers.items():
            assert value.uses() or value.is_graph_output() or value.is_graph_input(), f"{name} is left over"
        assert [v.name for v in self.after.graph.inputs] == [v.name for v in self.before.graph.inputs]
        assert [v.name for v in self.after.graph.outputs] == [v.name for v in self.before.graph.outputs]
        load(serialized(self.after))


def _feeds(model: ir.Model, runs: int = RUNS, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Draw Gaussian inputs (small integers for integer inputs); unknown dimensions become 2."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        feed = {}
        for value in model.graph.inputs:
            if value.is_initializer():
                continue
            shape = tuple(d if isinstance(d, int) else 2 for d in value.shape or ())
            dtype = np.dtype(value.dtype.numpy())  # type: ignore[union-attr]
            if dtype.kind == "f":
                feed[str(value.name)] = rng.normal(size=shape).astype(dtype)
            elif dtype.kind == "b":
                feed[str(value.name)] = np.ones(shape, bool)
            else:
                feed[str(value.name)] = rng.integers(0, 4, shape).astype(dtype)
        found.append(feed)
    return found


@pytest.fixture
def quantize(samples: Any) -> Callable[..., Quantized]:
    def run(
        rewrite: Pass[Any], proto: onnx.ModelProto, feeds: Sequence[Feed] | None = None, *, target: str = "cpu-x86-vnni"
    ) -> Quantized:
        before = load(proto.SerializeToString())
        feeds = _feeds(before) if feeds is None else feeds
        ctx = PassContext(get_target(target), samples=samples(feeds), ranges=RangeStore(before, samples(feeds)))
        after = before.clone()
        stats = rewrite.run(after, ctx)
        return Quantized(before, after, stats, ctx, feeds)

    return run


@pytest.fixture
def again(samples: Any) -> Callable[..., Quantized]:
    """Run a pass a second time, on its own result."""

    def run(rewrite: Pass[Any], first: Quantized) -> Quantized:
        ctx = PassContext(get_target("cpu-x86-vnni"), samples=samples(first.feeds))
        ctx.ranges = RangeStore(first.after, samples(first.feeds))
        after = first.after.clone()
        return Quantized(first.after, after, rewrite.run(after, ctx), ctx, first.feeds)

    return run


@pytest.fixture
def gaussian() -> Callable[..., np.ndarray]:
    """Draw float32 weights of a shape, scaled so that activations keep their size."""

    def draw(*shape: int, seed: int = 0, fan_in: int | None = None) -> np.ndarray:
        fan_in = fan_in or int(np.prod(shape[1:])) or 1
        return (np.random.default_rng((seed, *shape)).normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    return draw


@pytest.fixture
def weights(gaussian: Callable[..., np.ndarray]) -> Mapping[str, np.ndarray]:
    """Weights that many models share, by name."""
    return {
        "w33": gaussian(8, 8, 3, 3),
        "v33": gaussian(8, 8, 3, 3, seed=1),
        "b8": gaussian(8, fan_in=4),
        "m": gaussian(64, 32),
        "n": gaussian(32, 16),
        "b32": gaussian(32, fan_in=4),
    }
