"""Print what half of all channel groups leaves of each architecture: ``python -m tests.passes.prune.table``.

The widths are 16 times those of the tests, closer to the networks that other tools were measured on; their figures are
those of the full-sized networks.
"""

import numpy as np
import onnx

from onnxcomp.model import load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.shrink import shrunk
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES, feed, parameters
from tests.passes.prune.builder import Net

__all__ = ["kept"]

SCALE = 16


def kept(name: str, scale: int = SCALE) -> tuple[int, int, float]:
    """Return how many groups and units there are, and the share of the parameters that half of the units leaves."""
    proto, ctx = ARCHITECTURES[name].build(Net(scale=scale)), PassContext(get_target("cpu-x86-vnni"))
    model = prepare(load(proto.SerializeToString()), ctx)
    channels = discover(model, ctx, feed=feed(proto))
    masks = {group.name: np.arange(group.channels) < group.channels // 2 for group in channels.groups}
    small = onnx.ModelProto.FromString(serialized(shrunk(model, channels, masks, ctx)))
    units = sum(group.channels for group in channels.groups)
    return len(channels.groups), units, parameters(small) / parameters(proto)


if __name__ == "__main__":
    print("| architecture | groups | units | parameters kept | onnxsim | Torch-Pruning |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, architecture in ARCHITECTURES.items():
        groups, units, share = kept(name)
        peers = " | ".join("-" if peer is None else f"{peer:.2f}" for peer in architecture.peers)
        print(f"| {name} | {groups} | {units} | {share:.3f} | {peers} |", flush=True)
