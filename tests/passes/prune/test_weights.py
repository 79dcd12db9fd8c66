"""Weights that become zero: how many, where, what the rest does about it, what is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.data import Samples, open_samples
from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import input_specs
from onnxcomp.model import load, open_session, save
from onnxcomp.passbase import PassContext, PassStats
from onnxcomp.passes.prune.weights import PruneWeights, PruneWeightsConfig
from onnxcomp.passes.share.share_weights import ShareWeights, ShareWeightsConfig
from onnxcomp.storage import pack_file, unpack_file
from onnxcomp.target import get_target

Parse = Callable[..., onnx.ModelProto]
NET = """g (float[N, 16, 6, 6] x) => (float[N, 20] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)  r = Relu(a)
    c = Conv <group = 2> (r, w1)  s = Relu(c)  f = Flatten(s)
    h = MatMul(f, w2)  t = Relu(h)  y = Gemm <transB = 1> (t, w3, b3)
}"""
SHAPES = {"w0": (24, 16, 3, 3), "b0": (24,), "w1": (16, 12, 3, 3), "w2": (256, 48), "w3": (20, 48), "b3": (20,)}
OWN = ("w0", "w1", "w2", "w3")


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


@pytest.fixture
def net(parse: Parse) -> ir.Model:
    values = {name: array(*shape) / np.sqrt(max(np.prod(shape[1:]), 1)) for name, shape in SHAPES.items()}
    proto = parse(NET, {name: value.astype(np.float32) for name, value in values.items()}, opset=17)
    return load(proto.SerializeToString())


@pytest.fixture
def samples(net: ir.Model, tmp_path: Path) -> Samples:
    """Channels that follow each other: what is lost in one, others can give."""
    common = array(120, 4, 6, 6, seed=1)
    mixed = np.einsum("oc,nchw->nohw", array(16, 4, seed=2), common) + 0.3 * array(120, 16, 6, 6, seed=3)
    np.savez(tmp_path / "samples.npz", x=mixed.astype(np.float32))
    return open_samples(tmp_path / "samples.npz", input_specs(net), batch=8)


def prune(
    model: ir.Model, samples: Samples | None = None, **settings: Any
) -> tuple[ir.Model, PassStats, dict[str, str]]:
    ctx = PassContext(get_target("cpu-x86-vnni"), samples=samples, threads=1)
    after = model.clone()
    stats = PruneWeights(PruneWeightsConfig(**settings)).run(after, ctx)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    return after, stats, {skip.node: skip.reason for skip in ctx.skipped}


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: model.graph.initializers[name].const_value.numpy() for name in OWN}  # type: ignore[union-attr]


def error(before: ir.Model, after: ir.Model, samples: Samples) -> float:
    first, second = (open_session(model) for model in (before, after))
    runs = [(first.run(feed)["y"], second.run(feed)["y"]) for feed in samples]
    return float(sum(((a - b) ** 2).sum() for a, b in runs) / sum((a**2).sum() for a, _ in runs))


def zeros(array: np.ndarray) -> int:
    return int((array == 0).sum())


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
@pytest.mark.parametrize("sparsity", [0.3, 0.75])
def test_each_layer_has_exactly_its_share(net: ir.Model, samples: Samples, method: Any, sparsity: float) -> None:
    after, stats, _ = prune(net, samples, method=method, sparsity=sparsity)
    found = {name: zeros(weight) for name, weight in weights(after).items()}
    assert found == {name: round(sparsity * weight.size) for name, weight in weights(net).items()}
    assert stats.counters["zeros"] == sum(found.values())
    assert stats.counters["layers pruned"] == 4


def test_what_stays_makes_up_for_what_goes(net: ir.Model, samples: Samples) -> None:
    plain, recovered, surgeon, balanced = (
        error(net, prune(net, samples, sparsity=0.6, **settings)[0], samples)
        for settings in (
            {"method": "magnitude", "recover": False},
            {"method": "magnitude"},
            {"method": "sparsegpt"},
            {"method": "sparsegpt", "scope": "global"},
        )
    )
    assert surgeon < recovered < plain
    assert surgeon < plain / 2
    assert balanced < surgeon * 1.1


def test_steps_recover_in_between(net: ir.Model, samples: Samples) -> None:
    steps = {"sparsity": 0.7, "schedule": "polynomial", "steps": 3}
    after, stats, _ = prune(net, samples, method="magnitude", **steps)
    assert stats.counters["zeros"] == sum(round(0.7 * weight.size) for weight in weights(net).values())
    once = prune(net, samples, method="magnitude", sparsity=0.7)[0]
    assert error(net, after, samples) < error(net, once, samples)


@pytest.mark.parametrize("with_samples", [True, False])
def test_all_layers_together_have_their_share(net: ir.Model, samples: Samples, *, with_samples: bool) -> None:
    after, _, _ = prune(net, samples if with_samples else None, sparsity=0.6, scope="global")
    found = {name: zeros(weight) for name, weight in weights(after).items()}
    sizes = {name: weight.size for name, weight in weights(net).items()}
    assert sum(found.values()) == round(0.6 * sum(sizes.values()))
    assert len({round(found[name] / sizes[name], 2) for name in OWN}) > 1
    if not with_samples:
        after_all = np.concatenate([weight.reshape(-1) for weight in weights(after).values()])
        before_all = np.concatenate([weight.reshape(-1) for weight in weights(net).values()])
        assert np.abs(before_all[after_all == 0]).max() <= np.abs(before_all[after_all != 0]).min()


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4"])
@pytest.mark.parametrize("with_samples", [True, False])
def test_a_pattern_lies_along_the_input_axis(
    net: ir.Model, samples: Samples, pattern: str, *, with_samples: bool
) -> None:
    kept, of = map(int, pattern.split(":"))
    after, _, _ = prune(net, samples if with_samples else None, pattern=pattern)
    for name, weight in weights(after).items():
        matrix = weight if name == "w3" else np.moveaxis(weight, 0 if name == "w2" else 1, -1)
        assert (np.count_nonzero(matrix.reshape(-1, of), axis=1) == kept).all(), name
    again, stats, reasons = prune(after, samples if with_samples else None, pattern=pattern)
    assert not stats.modified
    assert len(reasons) == 4
    assert ir.to_proto(again) == ir.to_proto(after)


def test_a_second_run_does_nothing_and_more_keeps_the_zeros(net: ir.Model, samples: Samples) -> None:
    once, _, _ = prune(net, samples, sparsity=0.5)
    _, stats, reasons = prune(once, samples, sparsity=0.5)
    assert not stats.modified
    assert set(reasons.values()) == {"as many of its weights are zero already"}
    more, _, _ = prune(once, samples, sparsity=0.8)
    for name, weight in weights(more).items():
        assert not weight[weights(once)[name] == 0].any()


def test_zeros_stay_zeros_when_values_are_shared_and_packed(net: ir.Model, samples: Samples, tmp_path: Path) -> None:
    pruned, _, _ = prune(net, samples, sparsity=0.7)
    shared = pruned.clone()
    ShareWeights(ShareWeightsConfig(bits=3)).run(shared, PassContext(get_target("cpu-x86-vnni")))
    save(shared, tmp_path / "shared.onnx")
    pack_file(tmp_path / "shared.onnx", tmp_path / "model.onnxz")
    unpack_file(tmp_path / "model.onnxz", tmp_path / "back.onnx")
    back = load(tmp_path / "back.onnx")
    tables = [v.const_value.numpy() for v in back.graph.initializers.values() if "shared" in str(v.name)]  # type: ignore[union-attr]
    assert sum(zeros(table) > 0 for table in tables if table.dtype == np.float32) == 4
    first, second = (open_session(model).run(next(iter(samples)))["y"] for model in (shared, back))
    np.testing.assert_array_equal(first, second)


def test_what_is_left_alone(parse: Parse, samples: Samples) -> None:
    text = """g (float[N, 64] x) => (float[N, 64] y, float[N, 5] z) {
        a = MatMul(x, shared)  b = MatMul(a, shared)  c = MatMul(b, broken)  d = MatMul(c, out)
        e = MatMul(d, ignored)  f = MatMul(e, excluded)  y = Relu(f)  k = MatMul(f, odd)  z = MatMul(k, small)
    }"""
    sizes = {"shared": (64, 64), "broken": (64, 64), "out": (64, 64), "ignored": (64, 64), "excluded": (64, 64)}
    values = {name: array(*shape) for name, shape in {**sizes, "odd": (64, 9), "small": (9, 5)}.items()}
    values["broken"][0, 0] = np.nan
    model = load(parse(text, values, opset=17).SerializeToString())
    for index, node in enumerate(model.graph):
        node.name = "again" if index == 1 else f"read_{node.inputs[-1].name}"
    model.graph.outputs.append(model.graph.initializers["out"])
    ctx = PassContext(get_target("cpu-x86-vnni"))
    config = PruneWeightsConfig(exclude=("read_excluded",), ignore=("*_ign*",), pattern="2:5")
    assert not PruneWeights(config).run(model, ctx).modified
    assert {skip.node: skip.reason for skip in ctx.skipped} == {
        "read_shared": "the weight is used elsewhere too",
        "again": "the weight is used elsewhere too",
        "read_broken": "the weight holds NaN or infinity",
        "read_out": "the weight is used elsewhere too",
        "read_ignored": "it is to be ignored",
        "read_excluded": "excluded",
        "read_odd": "its input axis of 64 is no multiple of 5",
        "read_small": "the weight is too small to pay",
    }


def test_units_are_the_layers(net: ir.Model) -> None:
    ctx = PassContext(get_target("cpu-x86-vnni"))
    found = PruneWeights(PruneWeightsConfig()).units(net, ctx)
    assert [unit.op_type for unit in found] == ["Conv", "Conv", "MatMul", "Gemm"]
    after, _, reasons = prune(net, exclude=(found[2].name,))
    assert zeros(weights(after)["w2"]) == 0
    assert reasons == {found[2].name: "excluded"}


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"pattern": "4:2"},
        {"pattern": "2-4"},
        {"pattern": "2:4", "scope": "global"},
        {"steps": 2},
        {"schedule": "polynomial", "steps": 0},
        {"method": "sparsegpt", "recover": False},
        {"damping": 2.0},
        {"positions": 0},
    ],
)
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        PruneWeightsConfig(**settings)


def test_sparsegpt_needs_samples(net: ir.Model) -> None:
    with pytest.raises(PassError, match="needs calibration samples"):
        prune(net, method="sparsegpt")
