"""Which layers of a pruned model differ from the original, and in which order they can be fitted."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant
from onnxcomp.statistics import reads

from .gates import Gates
from .linear import Layer, alone

__all__ = ["differing", "in_stages", "one_way"]


Fittable = TypeVar("Fittable", bound=Layer | Gates)


def differing(model: ir.Model, original: ir.Model) -> set[ir.Node]:
    """Return the nodes whose output may not be the original's: they, or what they read, have other constants.

    Nodes are the same where they have the same name.
    """
    known = {str(node.name): node for node in original.graph}
    found: set[ir.Node] = set()
    tensors: set[str] = set()
    for node in model.graph:
        other = known.get(str(node.name))
        if other is None or not reads(node).isdisjoint(tensors) or not _alike(node, other):
            found.add(node)
            tensors |= {str(value.name) for value in node.outputs}
    return found


def _alike(node: ir.Node, other: ir.Node) -> bool:
    if node.op_type != other.op_type or len(node.inputs) != len(other.inputs):
        return False
    for mine, theirs in zip(node.inputs, other.inputs, strict=True):
        a, b = constant(mine), constant(theirs)
        if (a is None) != (b is None) or (a is not None and b is not None and not np.array_equal(a, b)):
            return False
        if a is None and (mine is None) != (theirs is None):
            return False
        if a is None and mine is not None and theirs is not None and mine.name != theirs.name:
            return False
    return True


def one_way(layers: Sequence[Layer]) -> list[Layer]:
    """Where two layers are added to each other, let one alone make up for the other: that with more weights."""
    by_result = {str(layer.result.name): layer for layer in layers}
    found = []
    for layer in layers:
        other = None if layer.skip is None else by_result.get(str(layer.skip.name))
        mutual = other is not None and other.skip is layer.result
        if (
            other is not None
            and mutual
            and (other.columns.length, layers.index(other))
            > (
                layer.columns.length,
                layers.index(layer),
            )
        ):
            found.append(alone(layer))
        else:
            found.append(layer)
    return found


def in_stages(graph: ir.Graph, layers: Sequence[Fittable]) -> list[list[Fittable]]:
    """Group layers by the most layers that must be fitted before them; those of a group can be fitted at once."""
    bits: dict[ir.Node, int] = {}
    for place, layer in enumerate(layers):
        bits[layer.node] = bits.get(layer.node, 0) | 1 << place
    behind: dict[str, int] = {}  # by tensor: a bit for each layer on the way to it
    for node in graph:
        mask = bits.get(node, 0)
        for name in reads(node):
            mask |= behind.get(name, 0)
        behind |= {str(value.name): mask for value in node.outputs}
    needs = [_places(_union(behind.get(name, 0) for name in layer.mine)) for layer in layers]
    depths: dict[int, int] = {}
    stages: list[list[Fittable]] = []
    while len(depths) < len(layers):
        ready = [k for k in range(len(layers)) if k not in depths and all(other in depths for other in needs[k])]
        if not ready:
            raise AssertionError("layers wait for each other")
        depths |= dict.fromkeys(ready, len(stages))
        stages.append([layers[k] for k in ready])
    return stages


def _places(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


def _union(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found
