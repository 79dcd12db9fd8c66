"""Whatever the network: masked equals shrunk, keeping all changes nothing, and pruning twice is pruning once."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.model import load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.shrink import masked, shrunk
from onnxcomp.passes.prune.verify import TOLERANCE, difference, verified
from onnxcomp.target import get_target
from tests.passes.prune.architectures import feed
from tests.passes.prune.random_nets import networks

pytestmark = pytest.mark.untraced

CTX = PassContext(get_target("cpu-x86-vnni"))
Masks = dict[str, np.ndarray]


def drawn(counts: dict[str, int], rng: np.random.Generator) -> Masks:
    """Draw masks that keep something."""
    masks = {name: rng.random(count) < 0.6 for name, count in counts.items()}
    for mask in masks.values():
        mask[rng.integers(mask.size)] = True
    return masks


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 99))
def test_pruning_random_networks(proto: onnx.ModelProto, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = prepare(load(proto.SerializeToString()), CTX)
    channels = discover(model, CTX, feed=feed(proto))
    counts = {group.name: group.channels for group in channels.groups}
    everything = {name: np.ones(count, np.bool_) for name, count in counts.items()}
    assert difference(model, shrunk(model, channels, everything, CTX), feed(proto)) == 0

    first = verified(model, channels, drawn(counts, rng), feed(proto), CTX)
    # nothing but a part that would be left empty is declined: no rule is wrong
    assert not [reason for reason in first.declined.values() if "differs" in reason]
    onnx.checker.check_model(onnx.ModelProto.FromString(serialized(first.model)), full_check=True)
    for other in (1, 2):
        assert difference(masked(model, channels, first.kept), first.model, feed(proto, other)) <= TOLERANCE

    small = prepare(first.model, CTX)
    left = discover(small, CTX, feed=feed(proto))
    same = {g.name: g.channels for g in left.groups if g.name in first.kept and g.channels == first.kept[g.name].sum()}
    second = verified(small, left, drawn(same, rng), feed(proto), CTX)
    both = {name: mask.copy() for name, mask in first.kept.items()}
    for name, mask in second.kept.items():
        both[name][np.flatnonzero(both[name])] = mask
    assert difference(shrunk(model, channels, both, CTX), second.model, feed(proto)) <= TOLERANCE
