"""What rewriting a node saves: its time and its constants before, less those of all that stands in its place after.

A pass puts nodes of its own around those that it rewrites (quantizers, casts, look-ups). They count for the node that
reads what they make, or, at the end of the graph, for the one whose result they read. That goes by names: a pass keeps
the name of what it rewrites. So nothing need be known of the pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from onnxcomp.data import Feed
from onnxcomp.facts import name_nodes
from onnxcomp.measure import node_bytes, node_times

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Savings", "measure_savings"]

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Savings:
    """Costs of nodes before and after a rewrite, by the name that they have before.

    Attributes:
        seconds_before: Per run, from onnxruntime's profile.
        seconds_after: Of what stands in their place.
        bytes_before: Of the constants that they read.
        bytes_after: Of what stands in their place.
    """

    seconds_before: Mapping[str, float]
    seconds_after: Mapping[str, float]
    bytes_before: Mapping[str, int]
    bytes_after: Mapping[str, int]

    def seconds(self, nodes: Iterable[str]) -> float:
        """Return the seconds that rewriting these nodes saves; below 0 where it costs some."""
        return sum(self.seconds_before.get(name, 0.0) - self.seconds_after.get(name, 0.0) for name in nodes)

    def bytes(self, nodes: Iterable[str]) -> int:
        """Return the bytes that rewriting these nodes saves; below 0 where it costs some."""
        return sum(self.bytes_before.get(name, 0) - self.bytes_after.get(name, 0) for name in nodes)


def measure_savings(before: "ir.Model", after: "ir.Model", feed: Feed, *, threads: int) -> Savings:
    """Profile a model and what passes made of it.

    Args:
        before: What the passes got.
        after: What they made of it.
        feed: What both run on.
        threads: Intra-op threads.

    Raises:
        ModelError: onnxruntime refuses one of them.
    """
    before, after = before.clone(), after.clone()
    name_nodes(before.graph)
    name_nodes(after.graph)
    owners = _owners({str(node.name) for node in before.graph}, after)
    return Savings(
        node_times(before, feed, threads=threads),
        _by_owner(node_times(after, feed, threads=threads), owners),
        node_bytes(before),
        _by_owner(node_bytes(after), owners),
    )


def _by_owner(costs: Mapping[str, _Number], owners: Mapping[str, str]) -> dict[str, _Number]:
    found: dict[str, _Number] = {}
    for name, cost in costs.items():
        if name in owners:
            found[owners[name]] = found.get(owners[name], 0) + cost
    return found


def _owners(names: set[str], model: "ir.Model") -> dict[str, str]:
    """Say for which of the named nodes each node of a model counts."""
    found = {str(node.name): str(node.name) for node in model.graph if node.name in names}
    nodes = [node for node in model.graph if node.name not in names]
    for node in reversed(nodes):  # readers come later in the graph
        readers = (str(reader.name) for output in node.outputs for reader in output.consumers())
        owner = next((found[reader] for reader in readers if reader in found), None)
        if owner is not None:
            found[str(node.name)] = owner
    for node in nodes:
        makers = (value.producer() for value in node.inputs if value is not None)
        owner = next((found[str(maker.name)] for maker in makers if maker and str(maker.name) in found), None)
        if owner is not None:
            found.setdefault(str(node.name), owner)
    return found
