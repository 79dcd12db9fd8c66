"""Where a run's time goes, by onnxruntime's profile: node by node, by type of operator, and by what ran them.

onnxruntime rewrites a graph before it runs it: the nodes are those that are left, the types those of its kernels. Nodes
of bodies count like others. On a GPU a kernel's time is that of starting it: shares of time are rough there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxcomp import runtime
from onnxcomp.errors import EnvironmentUnavailable
from onnxcomp.runtime import Provider

__all__ = ["Fallback", "NodeTime", "OperatorTime", "check_device", "fallback", "node_profile", "operator_times"]

_WITH_BODIES = frozenset({"If", "Loop", "Scan"})  # their time is that of the nodes inside
_KERNEL = "_kernel_time"
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What one node takes in a run.

    Attributes:
        name: As onnxruntime calls it, after its own rewriting.
        op_type: Of its kernel.
        provider: What ran it, by onnxruntime's name.
        seconds: Of one run: the median of its calls, as often as a run calls it.
    """

    name: str
    op_type: str
    provider: str
    seconds: float


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """What all nodes of one type take in a run.

    Attributes:
        op_type: As onnxruntime runs it, after its own rewriting.
        nodes: How many there are.
        seconds: Of one run, all of them together.
    """

    op_type: str
    nodes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fallback:
    """What ran on the CPU although another provider was asked for.

    Attributes:
        nodes: How many, of those that ran.
        nodes_share: The same as a share.
        time_share: Of the time of all nodes.
        op_types: Of those nodes, the slowest first.
    """

    nodes: int
    nodes_share: float
    time_share: float
    op_types: tuple[str, ...]


def node_profile(
    model: bytes | Path,
    feed: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    runs: int = 20,
    provider: Provider = "cpu",
) -> list[NodeTime]:
    """Return what each node takes in a run, the slowest first.

    Raises:
        EnvironmentUnavailable: The provider is not there.
        ModelError: onnxruntime refuses the model.
    """
    calls: dict[tuple[str, str, str], list[float]] = {}
    for event in runtime.profile(model, feed, threads=threads, runs=runs, provider=provider):
        told = event["args"]
        if told["op_name"] not in _WITH_BODIES:
            kernel = event["name"].removesuffix(_KERNEL), told["op_name"], told.get("provider", _CPU)
            calls.setdefault(kernel, []).append(event["dur"] / 1e6)
    found = [NodeTime(*kernel, float(np.median(times)) * len(times) / runs) for kernel, times in calls.items()]
    return sorted(found, key=lambda node: -node.seconds)


def operator_times(nodes: Sequence[NodeTime]) -> list[OperatorTime]:
    """Sum up nodes by type, the slowest type first."""
    sums: dict[str, list[float]] = {}
    for node in nodes:
        sums.setdefault(node.op_type, []).append(node.seconds)
    found = [OperatorTime(op_type, len(times), sum(times)) for op_type, times in sums.items()]
    return sorted(found, key=lambda one: -one.seconds)


def fallback(nodes: Sequence[NodeTime], provider: Provider) -> Fallback | None:
    """Sum up what fell back to the CPU; None where the CPU was asked for, or nothing ran."""
    if provider == "cpu" or not nodes:
        return None
    fallen = [node for node in nodes if node.provider == _CPU]
    total = sum(node.seconds for node in nodes) or 1.0
    return Fallback(
        nodes=len(fallen),
        nodes_share=len(fallen) / len(nodes),
        time_share=sum(node.seconds for node in fallen) / total,
        op_types=tuple(one.op_type for one in operator_times(fallen)),
    )


def check_device(
    name: str, model: bytes | Path, feed: Mapping[str, np.ndarray], *, threads: int, provider: Provider
) -> None:
    """Refuse a model that would run on the CPU from end to end, whatever was asked for.

    Raises:
        EnvironmentUnavailable: The provider is not there, or runs none of its nodes.
        ModelError: onnxruntime refuses the model.
    """
    if provider == "cpu":
        return
    fallen = fallback(node_profile(model, feed, threads=threads, provider=provider, runs=1), provider)
    if fallen is not None and fallen.nodes_share == 1:
        raise EnvironmentUnavailable(
            f"{provider} runs no node of {name}: its times would be the CPU's",
            hint=f"its operators are {', '.join(fallen.op_types)}; leave out --provider or --target: the CPU is timed",
        )
