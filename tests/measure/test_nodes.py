"""Costs of nodes: every kernel of a profile counts for one node, every constant for one reader."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from onnxcomp.measure import node_bytes, node_times, nodes
from onnxcomp.model import load

CONV = "Conv <pads = [1, 1, 1, 1]>"
# Two convolutions, each with what a kernel may do at its end; the second one's result is added to another branch
NODES = (
    f"[c0] a = {CONV} (x, w) [r0] b = Relu(a) [side] s = {CONV} (x, v) "
    f"[c1] c = {CONV} (b, w) [sum] d = Add(s, c) [r1] y = Relu(d)"
)


@pytest.fixture
def model(parse: Callable[..., Any]) -> Any:
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3))
    return load(
        parse(
            f"g (float[1, 8, 16, 16] x) => (float[1, 8, 16, 16] y) {{ {NODES} }}", {"w": weight, "v": -weight}
        ).SerializeToString()
    )


def profiled(monkeypatch: pytest.MonkeyPatch, kernels: Mapping[tuple[str, str], float]) -> None:
    monkeypatch.setattr(nodes, "_kernel_times", lambda *_, **__: dict(kernels))


def test_a_kernel_of_several_nodes_counts_for_the_one_that_it_is_named_for(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Named after the tensors at their ends, as onnxruntime does where it changes the layout
    profiled(
        monkeypatch, {("b", "Conv"): 1.0, ("side", "Conv"): 2.0, ("y", "FusedConv"): 4.0, ("lost", "Reorder"): 8.0}
    )
    assert node_times(model, {}) == {"c0": 1.0, "side": 2.0, "c1": 4.0}


def test_kernels_of_one_node_add_up_and_unknown_types_stay_where_their_name_is(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled(monkeypatch, {("c0", "Conv"): 1.0, ("a", "Conv"): 2.0, ("r1", "Magic"): 4.0})
    assert node_times(model, {}) == {"c0": 3.0, "r1": 4.0}


def test_no_kernel_of_a_real_profile_counts_twice(model: Any) -> None:
    found = node_times(model, {"x": np.ones((1, 8, 16, 16), np.float32)})
    assert {"c0", "side", "c1"} <= set(found)  # whether onnxruntime fuses the rest is its own affair
    assert set(found) <= {"c0", "side", "c1", "r0", "sum", "r1"}
    assert all(seconds > 0 for seconds in found.values())


def test_a_constant_counts_for_its_first_reader(model: Any) -> None:
    assert node_bytes(model) == {"c0": 8 * 8 * 3 * 3 * 4, "side": 8 * 8 * 3 * 3 * 4}  # c1 has the weights of c0


@pytest.mark.parametrize("product", ["Gemm(x, w, b)", "MatMul(x, w) [sum] s = Add(h, b)"])
@pytest.mark.parametrize("behind", ["Relu", "LeakyRelu", "Tanh"])
def test_a_product_counts_with_what_is_fused_into_it(parse: Callable[..., Any], product: str, behind: str) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64))
    last = "s" if "Add" in product else "h"
    text = f"g (float[8, 64] x) => (float[8, 64] y) {{ [fc] h = {product} [act] y = {behind}({last}) }}"
    found = node_times(
        load(parse(text, {"w": weight, "b": weight[0]}).SerializeToString()), {"x": np.ones((8, 64), np.float32)}
    )
    assert found["fc"] > 0
