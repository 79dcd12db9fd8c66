"""Which layers of a pruned model differ from the original, and in which order they can be fitted."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.cleanup._graph import constant
from onnxcomp.statistics import reads

from .linear import Layer, alone

__all__ = ["differing", "in_stages", "one_way"]


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


def in_stages(graph: ir.Graph, layers: Iterable[Layer]) -> list[list[Layer]]:
    """Group layers by the most layers that must be fitted before them; those of a group can be fitted at once."""
    own = {layer.node: layer for layer in layers}
    bits = {node: 1 << place for place, node in enumerate(own)}
    behind: dict[str, int] = {}  # by tensor: a bit for each layer on the way to it
    needs: dict[ir.Node, int] = {}
    for node in graph:
        mask = 0
        for name in reads(node):
            mask |= behind.get(name, 0)
        mask |= bits.get(node, 0)
        behind |= {str(value.name): mask for value in node.outputs}
    for node, layer in own.items():
        skip = 0 if layer.skip is None else behind.get(str(layer.skip.name), 0)
        needs[node] = behind.get(layer.source, 0) | skip
    order = list(own)
    depths: dict[ir.Node, int] = {}
    todo = list(own)
    while todo:
        ready = [n for n in todo if all(order[k] in depths for k in _places(needs[n]))]
        if not ready:
            raise AssertionError("layers wait for each other")
        for node in ready:
            depths[node] = 1 + max((depths[order[k]] for k in _places(needs[node])), default=-1)
        todo = [node for node in todo if node not in depths]
    stages: list[list[Layer]] = [[] for _ in range(1 + max(depths.values(), default=-1))]
    for node, depth in depths.items():
        stages[depth].append(own[node])
    return stages


def _places(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]
