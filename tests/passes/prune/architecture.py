"""What an architecture is: a builder, and the channel groups that pruning ought to find in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from tests.passes.prune.builder import Net

__all__ = ["OUTPUT", "Architecture"]

OUTPUT = "output"  # the channels are a graph output


@dataclass(frozen=True)
class Architecture:
    """A network in small, and what can be pruned in it.

    Attributes:
        build: Makes the graph; prunable widths go through `Net.wide`.
        groups: Layers whose output channels go together (names of nodes with a blank between them), and how many
            units can go one by one. A unit has several channels where those must go together: a head, the group of a
            norm, what becomes the pixels of one channel.
        frozen: Layers whose channels must stay, wholly or in part, and why.
        peers: Share of the parameters that onnxsim 0.8.1 and Torch-Pruning 1.6.1 keep of the full-sized network at
            ratio 0.5; None where they fail or were not tried.
    """

    build: Callable[[Net], onnx.ModelProto]
    groups: Mapping[str, int]
    frozen: Mapping[str, str]
    peers: tuple[float | None, float | None] = (None, None)
