"""What channel groups consist of and cost, for people."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import ChannelGroup, Grouping, Skip

from .groups import Channels, Group
from .pricing import costs_by_node
from .walk import Slice

__all__ = ["listing"]


def listing(model: ir.Model, channels: Channels, times: Mapping[str, float] | None = None) -> Grouping:
    """Describe what `discover` found in a prepared model.

    Args:
        model: Prepared.
        channels: Found in it.
        times: Seconds of each node, by name; None: they are not known.
    """
    nodes = {str(node.name): node for node in model.graph}
    costs = costs_by_node(model, channels.shapes)
    every = np.concatenate([np.zeros(0, np.int32), *(group.labels for group in channels.groups)])
    return Grouping(
        tuple(_described(group, channels, nodes, costs, times) for group in channels.groups),
        tuple(Skip(name, nodes[name].op_type, reason) for name, reason in channels.frozen.items()),
        sum(_touched(channels.slices, every, channels, nodes).values()),
    )


def _described(
    group: Group,
    channels: Channels,
    nodes: Mapping[str, ir.Node],
    costs: Mapping[str, int | None],
    times: Mapping[str, float] | None,
) -> ChannelGroup:
    touched = _touched((*group.producers, *group.parameters, *group.inputs), group.labels, channels, nodes)
    shares: dict[str, float] = {}
    for (name, index), elements in touched.items():
        whole = math.prod(channels.shape(nodes[name].inputs[index]))
        shares[name] = max(shares.get(name, 0.0), elements / whole)
    known = all(costs[name] is not None for name, _ in touched)
    spent = None if times is None else sum(times.get(name, 0.0) * share for name, share in shares.items())
    return ChannelGroup(
        group.name,
        group.kind,
        group.channels,
        tuple(dict.fromkeys(item.node for item in group.producers)),
        tuple(dict.fromkeys(reader.node for reader in group.consumers)),
        sum(touched.values()),
        round(sum((costs[name] or 0) * share for name, share in shares.items())) if known else None,
        None if times is None or spent is None else spent / max(sum(times.values()), 1e-12),
    )


def _touched(
    slices: Iterable[Slice], labels: np.ndarray, channels: Channels, nodes: Mapping[str, ir.Node]
) -> dict[tuple[str, int], int]:
    """Count the elements of each constant, by node and input, that would go with all channels of these labels."""
    left: dict[tuple[str, int], dict[int, int]] = {}
    for item in slices:
        kept = int((~np.isin(item.labels, labels)).sum())
        axes = left.setdefault((item.node, item.input), {})
        axes[item.axis] = min(kept, axes.get(item.axis, kept))
    found = {}
    for (name, index), axes in left.items():
        shape = channels.shape(nodes[name].inputs[index])
        stays = math.prod(axes.get(axis, size) for axis, size in enumerate(shape))
        if stays < math.prod(shape):
            found[name, index] = math.prod(shape) - stays
    return found
