"""What the nodes of a model cost: seconds by onnxruntime's own profile, bytes of the constants that they read.

onnxruntime rewrites a graph before it runs it, and names what it makes of several nodes after one of them or after the
tensor at their end. Each of its kernels counts for one node here: of those that may be inside, the one whose operator
the kernel's name holds (``FusedConv`` for the Conv, not for the Relu behind it).
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp import runtime
from onnxcomp.data import Feed
from onnxcomp.model import materialized

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["node_bytes", "node_times"]

_KERNEL = "_kernel_time"
_MARKS = re.compile(r"^fused |(/\w+Fusion/?|_nchwc|_token_\d+)+$")
_DEEPEST = 3  # nodes behind an operator that its kernel may do as well: a bias, a residual, an activation


def node_times(model: "ir.Model", feed: Feed, *, threads: int = 1, runs: int = 20) -> dict[str, float]:
    """Return the median seconds that onnxruntime spends on each node of the main graph, by the name of the node.

    What a node does inside the kernel of another counts there. Kernels whose name tells nothing are left out.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    with materialized(model) as source:
        profile = _kernel_times(source, feed, threads=threads, runs=runs)
    places = {output.name: node for node in model.graph for output in node.outputs if output.name}
    places |= {node.name: node for node in model.graph if node.name}
    kernels = [(places[name], op_type, taken) for (name, op_type), taken in profile.items() if name in places]
    found: dict[ir.Node, float] = {}
    for node, op_type, taken in kernels:
        if node.op_type in op_type:
            found[node] = found.get(node, 0.0) + taken
    exact = frozenset(found)
    for last, op_type, taken in kernels:
        if last.op_type not in op_type:
            node = _inside(last, op_type, exact)
            found[node] = found.get(node, 0.0) + taken
    return {str(node.name): taken for node, taken in found.items()}


def node_bytes(model: "ir.Model") -> dict[str, int]:
    """Return the bytes of the initializers that each node of the main graph reads, by the name of the node.

    One that several nodes read counts for the first of them.
    """
    found: dict[str, int] = {}
    counted: set[ir.Value] = set()
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.is_initializer() and value.const_value is not None and value not in counted:
                counted.add(value)
                found[str(node.name)] = found.get(str(node.name), 0) + value.const_value.nbytes
    return found


def _kernel_times(model: bytes | Path, feed: Feed, *, threads: int, runs: int) -> dict[tuple[str, str], float]:
    """Return the median seconds of each kernel, by its name (a node's, or of a tensor that it makes) and its type.

    onnxruntime renames what it rewrites: a layout-changed node is called after its output, a fused one after a node
    that went in, with a mark behind or before. The marks are taken off.
    """
    durations: dict[tuple[str, str], list[float]] = {}
    for event in runtime.profile(model, feed, threads=threads, runs=runs):
        plain = _MARKS.sub("", event["name"].removesuffix(_KERNEL))
        durations.setdefault((plain, event["args"]["op_name"]), []).append(event["dur"] / 1e6)
    return {kernel: float(np.median(values)) for kernel, values in durations.items()}


def _inside(last: "ir.Node", op_type: str, taken: "frozenset[ir.Node]") -> "ir.Node":
    """Return the nearest node before the last one that a kernel of this type may have begun with; else the last one.

    Args:
        last: The kernel has its name, or that of its output.
        op_type: Of the kernel.
        taken: Nodes that have a kernel of their own.
    """
    level = [last]
    for _ in range(_DEEPEST):
        values = (value for node in level for value in node.inputs)
        level = [made for value in values if value is not None and (made := value.producer()) is not None]
        for node in level:
            if node.op_type in op_type and node not in taken:
                return node
    return last
