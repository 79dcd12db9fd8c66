"""A chain of layers of which some do not survive 8 bits: a channel before them is thousands of times the others."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.data import Feed
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.metrics import Fidelity
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier
from onnxcomp.recipe import Recipe
from onnxcomp.search import race
from onnxcomp.search.variants import Variants
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target

WIDTH = 64
LAYERS = 8


@dataclass
class Chain:
    """A model of the layers ``fc0`` to ``fc7``, with what a search needs."""

    model: ir.Model
    feeds: Sequence[Feed]
    ctx: PassContext

    def variants(self, recipe: Recipe) -> Variants:
        return Variants(self.model, recipe, self.ctx, Verifier(self.model, self.feeds[:2]))

    def sqnr(self, model: ir.Model) -> float:
        first, second = open_session(self.model), open_session(model)
        fidelity = Fidelity()
        for feed in self.feeds[2:]:
            fidelity.add(first.run(feed), second.run(feed))
        return fidelity.sqnr

    def acceptable(self, model: ir.Model) -> bool:
        return self.sqnr(model) >= 20


@pytest.fixture
def chain(parse: Callable[..., Any], samples: Any) -> Callable[..., Chain]:
    def make(*harmful: int) -> Chain:
        rng = np.random.default_rng(0)
        weights = {f"w{i}": rng.normal(size=(WIDTH, WIDTH)) * np.sqrt(2 / WIDTH) for i in range(LAYERS)}
        for index in harmful:
            if index:  # else the first channel of the inputs is to be large
                weights[f"w{index - 1}"][:, 0] = 3000 * np.abs(weights[f"w{index - 1}"][:, 0])
            weights[f"w{index}"][0] /= 30_000
        layers = [f"[fc{i}] h{i} = MatMul(r{i}, w{i})  [act{i}] r{i + 1} = LeakyRelu(h{i})" for i in range(LAYERS)]
        text = f"g (float[N, {WIDTH}] r0) => (float[N, {WIDTH}] r{LAYERS}) {{ {' '.join(layers)} }}"
        model = load(parse(text, weights).SerializeToString())
        feeds = [{"r0": rng.normal(size=(16, WIDTH)).astype(np.float32)} for _ in range(4)]
        for feed in feeds if 0 in harmful else ():
            feed["r0"][:, 0] *= 3000
        data = samples(feeds)
        ctx = PassContext(get_target("cpu-x86-vnni"), samples=data, ranges=RangeStore(model, data))
        return Chain(model, feeds, ctx)

    return make


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make up the time of every candidate, as a share of the original's; `other` for those not named.

    Channels are pruned only where it is said how the time of what is pruned compares with the same unpruned.
    """
    search = importlib.import_module("onnxcomp.search.optimize")
    untouched = search.prune

    def pretend(*, other: float = 0.5, fused: float = 1.0, pruned: float | None = None, **ratios: float) -> None:
        alike = {"fused": fused, "pruned": pruned or 1.0}
        monkeypatch.setattr(search, "prune", untouched if pruned else lambda *_, **__: ([], None))

        def beside_original(name: str) -> float:
            return ratios.get(name, other) * (alike["pruned"] if "pruned to" in name else 1.0)

        def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
            for run in contenders.values():
                run()  # everything that is timed must run
            # variants of one candidate, raced among themselves, are all alike
            found = {
                name: beside_original(name) if baseline == "original" else alike.get(name, 1.0)
                for name in contenders
                if name != baseline
            }
            timings = [
                Timing(name, 0.001 * ratio, 0.002, 0.003, 10, 0.001 * ratio)
                for name, ratio in ({baseline: 1.0} | found).items()
            ]
            bounds = {name: Ratio(ratio, ratio * 0.999, ratio * 1.001) for name, ratio in found.items()}
            return Comparison(tuple(timings), bounds, rounds=10, seconds=9.0, settled=True)

        monkeypatch.setattr(race, "interleave", interleave)

    pretend()
    return pretend
