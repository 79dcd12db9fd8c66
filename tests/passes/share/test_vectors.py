"""Sub-vectors of weights that share values: what is written, what is left to single numbers, how good it is."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from onnxcomp.errors import RecipeError
from onnxcomp.model import load, open_session, serialized, size
from onnxcomp.passes.cleanup._graph import Names
from onnxcomp.passes.share._form import Shared, form_bytes, write_form
from onnxcomp.passes.share._vectors import vectors_shared
from onnxcomp.passes.share._weights import weights_of
from onnxcomp.passes.share.share_weights import ShareWeights, ShareWeightsConfig
from onnxcomp.recipe import Step
from onnxcomp.storage import pack_file, unpack_file
from tests.conftest import _parse
from tests.passes.share.test_share_weights import MODELS, Parse, context, feed, folded, gaussian, model, share, weights
from tests.passes.share.test_share_weights import sqnr as sqnr_of

pytestmark = pytest.mark.untraced


def rows(array: np.ndarray, name: str) -> np.ndarray:
    """Return a weight with a row for each output, or what stands for it."""
    matrix = array.T if name in ("matmul", "odd") else array
    return matrix.reshape(-1, matrix.shape[-1]) if name == "lstm" else matrix.reshape(len(matrix), -1)


def distinct(array: np.ndarray, name: str, d: int) -> int:
    """Count the different sub-vectors, without those that are shorter."""
    matrix = rows(array, name)
    whole = matrix.shape[1] // d * d
    return len(np.unique(matrix[:, :whole].reshape(-1, d), axis=0))


@pytest.mark.parametrize(
    ("name", "bits", "d", "opset"),
    [
        ("matmul", 4, 4, 17),
        ("gemm", 6, 4, 9),
        ("conv", 4, 2, 21),
        ("grouped", 3, 3, 17),
        ("transposed", 2, 3, 17),
        ("table", 5, 2, 17),
        ("lstm", 4, 4, 17),
    ],
)
def test_the_runtime_folds_it_to_a_few_vectors(parse: Parse, name: str, bits: int, d: int, opset: int) -> None:
    before, after, stats, _ = share(model(parse, name, opset), bits=bits, vector=d)
    matrices = [shape for shape in MODELS[name][1].values() if len(shape) > 1]
    assert stats.counters == {f"weights of {bits} bits for {d} numbers": len(matrices)}
    for array in weights(folded(after)):
        assert distinct(array, name, d) <= 2**bits < len(np.unique(array))
    assert not ShareWeights(ShareWeightsConfig(min_elements=0)).run(after.clone(), context()).modified
    assert np.isfinite(open_session(after).run(feed(before))["y"]).all()


@pytest.mark.parametrize("name", ["odd", "conv", "gemm", "lstm"])
def test_the_graph_holds_what_was_chosen(parse: Parse, name: str) -> None:
    """The simulation computes with the weights that indices and codebook stand for, the rewritten model with these."""
    settings: dict[str, Any] = {"bits": 4, "vector": 4}
    before, after, stats, _ = share(model(parse, name), **settings)
    assert set(stats.counters) == {"weights of 4 bits for 4 numbers"}
    simulation = ShareWeights(ShareWeightsConfig(**settings)).simulate(before, context())
    assert simulation is not None
    expected = open_session(simulation.model).run({**feed(before), **simulation.switches(())})["y"]
    np.testing.assert_allclose(open_session(after).run(feed(before))["y"], expected, rtol=1e-4, atol=1e-5)


@given(
    outputs=st.integers(2, 40),
    inputs=st.integers(2, 40),
    transposed=st.booleans(),
    d=st.integers(2, 6),
    k=st.integers(1, 40),
    opset=st.sampled_from([17, 21]),
)
@trials(max_examples=15, derandomize=True)
def test_any_shape(*, outputs: int, inputs: int, transposed: bool, d: int, k: int, opset: int) -> None:
    """Each sub-vector becomes the nearest one of the codebook, and that is what the graph computes with."""
    assume(inputs >= d)
    original = gaussian(outputs, inputs)
    text = f"g (float[N, {inputs}] x) => (float[N, {outputs}] y) {{ y = Gemm <transB = {int(transposed)}> (x, w) }}"
    proto = _parse(text, {"w": original if transposed else original.T.copy()}, opset=opset)
    proto.ir_version = 10
    work = load(proto.SerializeToString())
    (weight,) = weights_of(work)
    shared = vectors_shared(weight, None, None, d=d, k=k, damping=None, seed=0)
    (book,) = shared.codebooks
    assert book.shape[0] <= k
    expected = shared.values if transposed else shared.values.T
    for start in range(0, inputs, d):
        part = original[:, start : start + d]
        distances = ((part[:, None] - book[:, : part.shape[1]]) ** 2).sum(axis=2)
        chosen = ((part - expected[:, start : start + d]) ** 2).sum(axis=1)
        np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-2, atol=1e-4)
    write_form(work, Names(work), weight.value, shared, opset)
    (found,) = open_session(work).run({"x": np.eye(inputs, dtype=np.float32)}).values()
    np.testing.assert_array_equal(found.T, expected)


def test_less_error_than_single_numbers_at_as_many_bits(parse: Parse) -> None:
    proto, original = model(parse, "conv"), gaussian(64, 16, 3, 3)
    single, pairs = (weights(folded(share(proto, bits=bits, vector=d)[1]))[0] for bits, d in ((2, 1), (4, 2)))
    assert sqnr_of(original, pairs) > sqnr_of(original, single) + 0.4


def test_feedback_changes_outputs_less(parse: Parse, samples: Any) -> None:
    runs = [{"x": np.cumsum(gaussian(4, 96, seed=n), axis=1) / 3} for n in range(30)]
    noise, proto = [], model(parse, "gemm")
    for assignment in ("nearest", "feedback"):
        _, after, _, _ = share(proto, samples(runs[:20]), bits=5, vector=2, assignment=assignment)
        (found,) = weights(folded(after))
        noise.append(sum(float(((run["x"] @ (found - gaussian(64, 96)).T) ** 2).sum()) for run in runs[20:]))
    assert noise[1] < 0.5 * noise[0]


@pytest.mark.parametrize("name", ["grouped", "lstm"])
def test_feedback_of_groups_and_recurrent_layers(parse: Parse, samples: Any, name: str) -> None:
    proto = model(parse, name)
    given_x = feed(load(proto.SerializeToString()))["x"]
    smooth = np.cumsum(np.random.default_rng(1).normal(size=(70, *given_x.shape)), axis=-1).astype(np.float32) / 3
    runs = [{"x": x} for x in smooth]
    noise = []
    for assignment in ("nearest", "feedback"):
        before, after, _, _ = share(proto, samples(runs[:60]), bits=6, vector=2, assignment=assignment)
        assert all(distinct(array, name, 2) <= 64 for array in weights(folded(after)))
        sessions = [open_session(of) for of in (before, after)]
        pairs = [tuple(session.run(run)["y"] for session in sessions) for run in runs[60:]]
        noise.append(sum(float(((a - b) ** 2).sum()) for a, b in pairs))
    assert noise[1] < 0.9 * noise[0]


def test_zeros_of_pruned_weights_stay(parse: Parse) -> None:
    weight = gaussian(96, 64)
    weight[np.random.default_rng(3).random(weight.shape) < 0.5] = 0
    _, after, stats, _ = share(_parse(MODELS["matmul"][0], {"w": weight}), bits=6, vector=4)
    assert stats.counters == {"weights of 2 bits": 1}
    (found,) = weights(folded(after))
    assert (found[weight == 0] == 0).all()
    assert len(np.unique(found)) == 4


def test_small_weights_share_single_numbers(parse: Parse) -> None:
    text = "g (float[N, 64] x) => (float[N, 32] y) { a = MatMul(x, w) [last] y = MatMul(a, v) }"
    proto = parse(text, {"w": gaussian(64, 128), "v": gaussian(128, 32)})
    assert share(proto, bits=7, vector=4)[2].counters == {
        "weights of 2 bits": 1,
        "weights of 7 bits for 4 numbers": 1,
    }
    assert share(proto, bits=7, vector=4, bits_of={"last": 6})[2].counters == {
        "weights of 6 bits for 4 numbers": 1,
        "weights of 7 bits for 4 numbers": 1,
    }


@pytest.mark.parametrize(("scale", "halved"), [(1.0, True), (1e6, False), (1e-9, False)])
def test_the_codebook_takes_two_bytes_a_number_where_that_is_close(parse: Parse, scale: float, halved: bool) -> None:
    proto = parse(MODELS["matmul"][0], {"w": gaussian(96, 64) * np.float32(scale)})
    _, after, _, _ = share(proto, bits=6, vector=4)
    tables = [v for v in after.graph.initializers.values() if tuple(v.shape or ()) == (64, 4)]
    assert [table.dtype for table in tables] == [ir.DataType.FLOAT16 if halved else ir.DataType.FLOAT]
    (found,) = weights(folded(after))
    assert sqnr_of(gaussian(96, 64), found / scale) > 6


def test_weights_of_float16(parse: Parse) -> None:
    text = "g (float16[N, 128] x) => (float16[N, 128] y) { y = MatMul(x, w) }"
    before, after, stats, _ = share(parse(text, {"w": gaussian(128, 128).astype(np.float16)}), bits=8, vector=4)
    assert stats.counters == {"weights of 8 bits for 4 numbers": 1}
    first, second = (open_session(of).run(feed(before))["y"] for of in (before, after))
    assert sqnr_of(first.astype(np.float32), second) > 8


def test_the_size_is_foreseen(parse: Parse) -> None:
    _, after, _, _ = share(model(parse, "conv"), bits=6, vector=4)
    books = np.zeros((1, 64, 4), np.float32)
    shared = Shared(np.zeros((64, 36), np.uint8), books, (64, 16, 3, 3))
    assert abs(size(after) - form_bytes(shared, 17)) < 400


def test_packed_and_unpacked(parse: Parse, tmp_path: Path) -> None:
    content = serialized(share(model(parse, "conv"), bits=6, vector=4)[1])
    packed = pack_file(content, tmp_path / "m.onnxz")
    unpack_file(tmp_path / "m.onnxz", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == content
    (indices,) = (tensor for tensor in packed.tensors if tensor.dtype == "UINT8")
    assert indices.stored <= 64 * 36 * 6 / 8 + 120


def test_two_runs_give_the_same_bytes(parse: Parse, samples: Any) -> None:
    some = samples([{"x": gaussian(30, 96)}])
    first, second = (serialized(share(model(parse, "matmul"), some, bits=6, vector=4)[1]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vector": 0}, "from 1 to 16"),
        ({"vector": 17}, "from 1 to 16"),
        ({"vector": 2.5}, "must be int"),
        ({"vector": True}, "vector must be"),
        ({"vector": 4, "method": "entropy"}, "per tensor"),
        ({"vector": 4, "init": "linear"}, "per tensor"),
        ({"vector": 4, "codebook": "powers"}, "per tensor"),
        ({"vector": 4, "granularity": "model"}, "per tensor"),
        ({"vector": 4, "granularity": "group"}, "per tensor"),
        ({"vector": 4, "bits": 9}, "from 1 to 8"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Step("share-weights", settings).make()
