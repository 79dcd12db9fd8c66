"""What a rewrite saves: with all that it puts around the nodes, and whatever the pass is."""

from collections.abc import Callable
from typing import Any

import pytest

from onnxcomp.measure import node_bytes
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search import savings
from onnxcomp.search.savings import measure_savings

STATIC = Step("quantize-static", {"anchors": ["MatMul"]})
DYNAMIC = Step("quantize-dynamic")


@pytest.mark.parametrize("step", [STATIC, DYNAMIC], ids=lambda step: step.name)
def test_constants_of_the_result_count_for_the_nodes_that_they_serve(chain: Callable[..., Any], step: Step) -> None:
    case = chain()
    variants = case.variants(Recipe((step,)))
    after = variants.build(()).model
    found = measure_savings(variants.base, after, case.feeds[0], threads=1)
    layers = [f"fc{i}" for i in range(8)]
    assert sum(found.bytes_after.values()) == sum(node_bytes(after).values())
    assert all(0.6 < found.bytes([name]) / (64 * 64 * 4) < 0.75 for name in layers)  # a byte in the place of four
    assert found.bytes(layers) == sum(found.bytes([name]) for name in layers)
    assert found.bytes(["act0"]) <= 0


def test_the_time_of_added_nodes_counts_for_those_that_they_serve(
    chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = chain()
    variants = case.variants(Recipe((DYNAMIC,)))
    after = variants.build(()).model

    def times(model: Any, _feed: Any, **_: Any) -> dict[str, float]:
        return dict.fromkeys([str(node.name) for node in model.graph], 1.0)

    monkeypatch.setattr(savings, "node_times", times)
    found = measure_savings(variants.base, after, case.feeds[0], threads=1)
    assert sum(found.seconds_after.values()) == len(after.graph)  # nothing is lost
    assert found.seconds(["fc3"]) == 1 - 5  # DynamicQuantizeLinear, MatMulInteger, Cast, Mul, Mul
    assert found.seconds(["act3"]) == 0


def test_a_rewrite_of_nothing_saves_nothing(chain: Callable[..., Any]) -> None:
    case = chain()
    found = measure_savings(case.model, case.model, case.feeds[0], threads=1)
    assert found.bytes([f"fc{i}" for i in range(8)]) == 0
    assert found.bytes(["no such node"]) == 0
    assert found.seconds(["no such node"]) == 0
