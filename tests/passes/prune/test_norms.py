"""Channels that a normalization or another statistic takes together: what is left of them is one over what stays."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup.layer_norm import FuseLayerNorm
from onnxcomp.passes.cleanup.upgrade_opset import UpgradeOpset, UpgradeOpsetConfig
from onnxcomp.passes.prune.channels import PruneChannels, PruneChannelsConfig
from onnxcomp.passes.prune.groups import discover, prepare
from onnxcomp.passes.prune.shrink import masked
from onnxcomp.passes.prune.verify import difference, verified
from onnxcomp.target import get_target
from tests.passes.prune.architectures import ARCHITECTURES, feed
from tests.passes.prune.builder import STYLES, Net

CTX = PassContext(get_target("cpu-x86-vnni"))
IMAGE, ROWS = (2, 4, 3, 3), (2, 5, 8)


_FLOATS = {
    "w0": (8, 4, 1, 1), "w1": (3, 8, 1, 1), "m0": (8, 8), "m1": (8, 3), "half": (1, 2, 1, 1), "g": (8,), "h": (8,),
    "eps": (), "g1": (1,), "h1": (1,), "g2": (2,), "h2": (2,), "g3": (8, 3, 3), "h3": (8, 3, 3),
}  # fmt: skip
_SIZES = {"axis1": [1], "one_group": [0, 1, -1, 1], "like_image": [0, 8, 3, 3], "sizes": [8], "zero": [0], "two": [2]}


def built(body: str, opset: int, image: bool) -> onnx.ModelProto:
    """Put operators between two layers: ``a`` is [2, 8, 3, 3] or [2, 5, 8], made by ``first``; ``last`` reads ``b``."""
    shape, kind, maker, reader = ("2, 4, 3, 3", "Conv", "w0", "w1") if image else ("2, 5, 8", "MatMul", "m0", "m1")
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": {opset}]>
        net (float[{shape}] x) => (float[a, b, c{", d" if image else ""}] y) {{
        [first] a = {kind}(x, {maker})  {body}
        [last] y = {kind}(b, {reader}) }}""")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(1.0, 0.5, size).astype(np.float32) for name, size in _FLOATS.items()}
    arrays |= {name: np.array(value) for name, value in _SIZES.items()}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(arrays[name], name) for name in arrays if name in read)
    return model


CASES = {
    "layer": ("b = LayerNormalization(a, g, h)", 17, False, 8),
    "layer over an image": ("b = LayerNormalization <axis = 1> (a, g3, h3)", 17, True, 8),
    "root mean square": ("b = RMSNormalization(a, g)", 23, False, 8),
    "one group": ("b = GroupNormalization <num_groups = 1> (a, g, h)", 21, True, 8),
    "one group, a parameter for it": ("b = GroupNormalization <num_groups = 1> (a, g1, h1)", 18, True, 8),
    "two groups": ("b = GroupNormalization <num_groups = 2> (a, g, h)", 21, True, 2),
    "two groups, a parameter for each": ("b = GroupNormalization <num_groups = 2> (a, g2, h2)", 18, True, 2),
    "one group by InstanceNormalization": (
        "r = Reshape(a, one_group)  n = InstanceNormalization(r, g1, h1)  b = Reshape(n, like_image)", 17, True, 8),
    "each by itself": ("b = InstanceNormalization(a, g, h)", 17, True, 8),
    "unit length": ("b = LpNormalization <axis = 1> (a)", 17, True, 8),
    "attention over the mean and the largest": (
        "m = ReduceMean <axes = [1]> (a)  l = ReduceMax <axes = [1]> (a)  c = Concat <axis = 1> (m, l)"
        "s = Conv(c, half)  p = Sigmoid(s)  b = Mul(a, p)", 17, True, 8),
    "the mean is subtracted": ("m = ReduceMean(a, axis1)  b = Sub(a, m)", 18, True, 8),
    "written out, with a scale and a shift per position": (
        "m = ReduceMean <axes = [-1]> (a)  d = Sub(a, m)  s = Mul(d, d)  v = ReduceMean <axes = [-1]> (s)"
        "e = Add(v, eps)  r = Sqrt(e)  i = Reciprocal(r)  j = Mul(i, g)  n = Mul(m, j)  o = Sub(h, n)"
        "p = Mul(a, j)  b = Add(p, o)", 17, False, 8),
    "nothing is taken of another axis": (
        "e = Slice(a, zero, zero, two)  b = Concat <axis = 2> (a, e)", 17, True, 8),
    "the mean and the smallest are added": (
        "m = ReduceMean <axes = [1]> (a)  l = ReduceMin <axes = [1]> (a)  s = Add(m, l)  t = Tanh(a)  b = Mul(s, t)",
        17, True, 8),
}  # fmt: skip


@pytest.mark.parametrize(("body", "opset", "image", "count"), CASES.values(), ids=CASES)
def test_half_of_what_is_normalized_goes(body: str, opset: int, image: bool, count: int) -> None:
    model = prepare(load(built(body, opset, image).SerializeToString()), CTX)
    sample = {"x": np.random.default_rng(1).normal(size=IMAGE if image else ROWS).astype(np.float32)}
    channels = discover(model, CTX, feed=sample)
    (group,) = channels.groups
    assert (group.name, group.channels) == ("first", count)
    kept = {"first": np.arange(count) % 2 == 1}
    result = verified(model, channels, kept, sample, CTX)
    assert result.declined == {}
    small = {str(node.name): node for node in result.model.graph}
    weight = small["last"].inputs[1]
    assert weight is not None
    assert 4 in tuple(weight.shape or ())
    assert difference(masked(model, channels, kept), result.model, sample) < 1e-5

    again = discover(prepare(result.model, CTX), CTX, feed=sample)  # and once more
    kept = {"first": np.arange(again.groups[0].channels) == 0}
    if again.groups[0].channels > 1:
        assert verified(prepare(result.model, CTX), again, kept, sample, CTX).declined == {}


def test_units_go_with_their_initial_states_of_zeros() -> None:
    """As wide as the batch, one tensor for two layers."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
        net (float[5, n, 6] x) => (float[5, n, 3] y)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] six = {6}> {
        s = Shape(x)  n = Gather(s, one)  c = Concat <axis = 0> (two, n, six)  z = ConstantOfShape(c)
        h0 = Slice(z, zero, one, zero)  h1 = Slice(z, one, two, zero)
        [lstm0] r0 = LSTM <hidden_size = 6> (x, w0, r, , , h0, h0)  q0 = Squeeze(r0, one)
        [lstm1] r1 = LSTM <hidden_size = 6> (q0, w1, r, , , h1, h1)  q1 = Squeeze(r1, one)
        y = MatMul(q1, m) }""")
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (1, 24, 6), "w1": (1, 24, 6), "r": (1, 24, 6), "m": (6, 3)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    prepared = prepare(load(model.SerializeToString()), CTX)
    sample = {"x": rng.normal(size=(5, 2, 6)).astype(np.float32)}
    channels = discover(prepared, CTX, feed=sample)
    assert [(group.kind, group.channels) for group in channels.groups] == [("unit", 6)]
    kept = {channels.groups[0].name: np.arange(6) % 2 == 0}
    result = verified(prepared, channels, kept, sample, CTX)
    assert result.declined == {}
    other = {"x": rng.normal(size=(5, 3, 6)).astype(np.float32)}
    assert difference(masked(prepared, channels, kept), result.model, other) < 1e-5


def test_a_normalization_answers_as_if_what_is_removed_were_the_mean_of_the_rest() -> None:
    proto = built("b = LayerNormalization <epsilon = 0.5> (a, g, h)", 17, False)
    model = prepare(load(proto.SerializeToString()), CTX)
    sample = {"x": np.random.default_rng(1).normal(size=ROWS).astype(np.float32)}
    channels, stays = discover(model, CTX, feed=sample), np.arange(8) < 3
    small = verified(model, channels, {"first": stays}, sample, CTX).model
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    a = (sample["x"] @ weights["m0"]).astype(np.float64)
    a[..., ~stays] = a[..., stays].mean(axis=-1, keepdims=True)
    centred = a - a.mean(axis=-1, keepdims=True)
    b = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 0.5) * weights["g"] + weights["h"]
    expected = b[..., stays] @ weights["m1"][stays]
    (found,) = open_session(small, optimize=False).run(sample).values()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_written_out_and_fused_they_give_the_same_model() -> None:
    proto = ARCHITECTURES["vit"].build(Net(STYLES["chains"]))
    answers = []
    for fused in (False, True):
        model = load(proto.SerializeToString())
        if fused:
            UpgradeOpset(UpgradeOpsetConfig(minimum=17)).run(model, CTX)
            assert FuseLayerNorm().run(model, CTX).modified
        model = prepare(model, CTX)
        channels = discover(model, CTX, feed=feed(proto))
        stream = next(group for group in channels.groups if "patches" in group.members)
        assert stream.normalized
        kept = {stream.name: np.arange(stream.channels) % 3 > 0}
        result = verified(model, channels, kept, feed(proto), CTX)
        assert result.declined == {}
        answers.append(next(iter(open_session(result.model, optimize=False).run(feed(proto)).values())))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_the_channels_stay_where_the_settings_say_so() -> None:
    proto = ARCHITECTURES["geglu"].build(Net())
    model, ctx = load(proto.SerializeToString()), PassContext(get_target("cpu-x86-vnni"))
    stats = PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, streams=False)).run(model, ctx)
    assert stats.counters["groups pruned"] == 2
    assert [skip.node for skip in ctx.skipped if "statistics" in skip.reason] == ["in"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = ReduceMax <keepdims = 0> (x)  t = Expand(s, sizes)  b = LayerNormalization(a, t)", "normalizes it"),
        ("b, mean = LayerNormalization(a, g, h)", "statistics of a normalization are used"),
        ("b = Softmax(a)", "Softmax is taken over it"),
    ],
)
def test_it_declines(body: str, reason: str) -> None:
    proto = built(body, 17, False)
    if "mean" in body:
        proto.graph.output.append(onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, [2, 5, 1]))
    model = prepare(load(proto.SerializeToString()), CTX)
    channels = discover(model, CTX, feed={"x": np.ones(ROWS, np.float32)})
    assert not channels.groups
    assert reason in channels.frozen["first"]


def test_what_is_normalized_by_a_sizeless_scale_is_cut_too() -> None:
    """A scale of one number for all channels has no axis to cut."""
    proto = built("n = LayerNormalization(a, g1)  b = Mul(n, g)", 17, False)
    model = prepare(load(proto.SerializeToString()), CTX)
    sample = {"x": np.random.default_rng(1).normal(size=ROWS).astype(np.float32)}
    channels = discover(model, CTX, feed=sample)
    result = verified(model, channels, {"first": np.arange(8) < 4}, sample, CTX)
    assert result.declined == {}
    assert result.model.graph.initializers["g"].const_value is not None
    assert result.model.graph.initializers["g"].const_value.size == 4


@pytest.mark.parametrize("streams", [True, False])
def test_a_mean_of_channels_may_be_an_output_of_the_model(streams: bool) -> None:
    proto = built("m = ReduceMean <axes = [-1]> (a)  b = Relu(a)", 17, False)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [2, 5, 1]))
    model, ctx = load(proto.SerializeToString()), PassContext(get_target("cpu-x86-vnni"))
    PruneChannels(PruneChannelsConfig(ratio=0.5, round=1, streams=streams)).run(model, ctx)
    found = open_session(model, optimize=False).run({"x": np.ones(ROWS, np.float32)})
    assert list(found) == ["y", "m"]
    assert found["m"].shape == (2, 5, 1)
