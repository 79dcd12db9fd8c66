"""What discovery finds in real architectures, however they are written, and what is left of them at ratio 0.5."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.model import load, serialized
from onnxcomp.passbase import PassContext
from onnxcomp.passes.prune.groups import Channels, Group, discover, prepare
from onnxcomp.passes.prune.shrink import masked
from onnxcomp.passes.prune.verify import difference, verified
from onnxcomp.target import get_target
from tests.passes.prune.architecture import Architecture
from tests.passes.prune.architectures import ARCHITECTURES, feed, layers, parameters
from tests.passes.prune.builder import STYLES, Net, Style

pytestmark = pytest.mark.untraced

CTX = PassContext(get_target("cpu-x86-vnni"))


def found_in(proto: onnx.ModelProto) -> tuple[ir.Model, Channels]:
    model = prepare(load(proto.SerializeToString()), CTX)
    return model, discover(model, CTX, feed=feed(proto))


def half_of(group: Group) -> np.ndarray:
    """Keep half of the channels of a group, at random."""
    return np.random.default_rng(0).permutation(group.channels) < group.channels // 2


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_what_is_stated_is_found_and_without_half_of_it_the_rest_answers_like_the_masked_model(
    architecture: Architecture, style: Style
) -> None:
    whole, half = (architecture.build(Net(style, share=share)) for share in (1.0, 0.5))
    model, channels = found_in(whole)
    found = {frozenset(item.node for item in group.producers): group.channels for group in channels.groups}
    assert found == {frozenset(members.split()): count for members, count in architecture.groups.items()}
    assert len(found) == len(channels.groups)

    kept = {group.name: half_of(group) for group in channels.groups}
    result = verified(model, channels, kept, feed(whole), CTX)
    assert result.declined == {}
    small = onnx.ModelProto.FromString(serialized(result.model))
    onnx.checker.check_model(small, full_check=True)
    assert layers(small) == layers(half)
    if not style.deduplicated:
        assert parameters(small) == parameters(half)
    for batch in (2, 3) if style.dynamic else (2,):
        other = feed(whole, 1, batch)
        assert difference(masked(model, channels, kept), result.model, other) < 1e-5
        assert difference(model, result.model, other) > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_what_is_left_can_be_pruned_in_the_same_way(architecture: Architecture) -> None:
    whole = architecture.build(Net())
    model, channels = found_in(whole)
    result = verified(model, channels, {group.name: half_of(group) for group in channels.groups}, feed(whole), CTX)
    again = discover(prepare(result.model, CTX), CTX, feed=feed(whole))
    left = {group.name: group.channels for group in again.groups}
    assert {(g.name, g.channels // 2) for g in channels.groups if g.channels > 3} <= left.items()
