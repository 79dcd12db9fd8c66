"""Tensors through every codec: round trip, size near the entropy, independent chunks, both backends alike."""

import dataclasses
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.coding import CHUNK, Codec, CodedTensor, Coder, CodingError, decode_tensor, encode_tensor, entropy
from tests.coding.conftest import use

KINDS = {
    "random": lambda rng, n: rng.bytes(n),
    "skewed": lambda rng, n: np.minimum(rng.geometric(0.3, n), 255).astype(np.uint8).tobytes(),
    "nibbles": lambda rng, n: rng.binomial(15, 0.4, n).astype(np.uint8).tobytes(),
    "sparse": lambda rng, n: (rng.integers(0, 255, n) * (rng.random(n) < 0.1)).astype(np.uint8).tobytes(),
    "one": lambda _, n: b"\x07" * n,
    "zeros": lambda _, n: bytes(n),
    "repeated": lambda rng, n: (rng.bytes(37) * n)[:n],
}


def size(coded: CodedTensor) -> int:
    return sum(len(stream.head) + sum(map(len, stream.chunks)) for stream in coded.streams)


@pytest.mark.usefixtures("backend")
@given(
    codec=st.sampled_from([None, *Codec]),
    kind=st.sampled_from(list(KINDS)),
    elements=st.integers(0, 3000),
    width=st.sampled_from([1, 2, 4, 8]),
    columns=st.integers(0, 30),
    rotated=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(codec, kind, elements, width, columns, rotated, seed) -> None:  # type: ignore[no-untyped-def]  # noqa: PLR0917
    content = KINDS[kind](np.random.default_rng(seed), elements * width)
    data = np.frombuffer(content, np.uint8)
    matrices = _matrices(len(data), columns)
    coded = encode_tensor(data, width=width, rotated=rotated, matrices=matrices, codec=codec)
    assert codec is None or coded.codec == codec
    assert decode_tensor(coded, len(data)).tobytes() == content


def _matrices(size: int, columns: int) -> list[tuple[int, int]]:
    """Cut bytes into two matrices, and one of what is left."""
    if columns == 0 or size < 3 * columns:
        return []
    rows = size // columns // 2
    left = size - 2 * rows * columns
    return [(rows, columns), (columns, rows)] + ([(left, 1)] if left else [])


def dense(count: int) -> np.ndarray:
    """Indices of 16 centroids of normal weights."""
    return np.clip(np.round(np.random.default_rng(0).normal(size=count) * 2.5 + 8), 0, 15).astype(np.uint8)


def sparse(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.where(rng.random(count) < 0.9, 0, rng.integers(1, 16, count)).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "codec", "bound"),
    [
        pytest.param(dense(1 << 20), None, 1.01, id="dense"),
        pytest.param(dense(1 << 20), Codec.HUFFMAN, 1.01, id="dense, Huffman of pairs"),
        pytest.param(dense(1 << 20), Codec.RANS, 1.01, id="dense, rANS"),
        pytest.param(sparse(1 << 20), None, 1.03, id="sparse"),
        pytest.param(sparse(1 << 20), Codec.MASK, 1.03, id="sparse, mask"),
        pytest.param(sparse(1 << 20), Codec.RANS, 1.03, id="sparse, rANS"),
    ],
)
def test_sizes_are_near_the_entropy(data: np.ndarray, codec: Codec | None, bound: float) -> None:
    assert size(encode_tensor(data, codec=codec)) * 8 <= bound * entropy(np.bincount(data))


def test_scale_classes_go_below_the_entropy() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300, 1000)) * 20 * np.exp(rng.normal(size=(300, 1)))
    data = np.clip(np.round(matrix), -127, 127).astype(np.int8).reshape(-1).view(np.uint8)
    coded = encode_tensor(data, matrices=[(300, 1000)])
    assert coded.codec is Codec.RANS
    assert size(coded) * 8 < 0.95 * coded.bound
    assert decode_tensor(coded, data.size).tobytes() == data.tobytes()


def test_matrices_of_one_stream_share_tables_by_scale() -> None:
    """Of signed and of unsigned bytes alike: less than the entropy of all of them."""
    rng = np.random.default_rng(0)
    matrices = [np.clip(np.round(rng.normal(size=(40, 60)) * scale), -127, 127) for scale in np.geomspace(2, 60, 20)]
    signed = np.concatenate([matrix.astype(np.int8).reshape(-1) for matrix in matrices]).view(np.uint8)
    for data in (signed, signed ^ 128):
        coded = encode_tensor(data, matrices=[(40, 60)] * 20)
        assert coded.codec is Codec.RANS
        assert size(coded) * 8 < 0.97 * coded.bound
        assert decode_tensor(coded, data.size).tobytes() == data.tobytes()


def test_floats_shrink_by_what_their_exponents_have_too_much() -> None:
    data = np.random.default_rng(0).normal(size=100_000).astype(np.float32).view(np.uint8)
    coded = encode_tensor(data, width=4, rotated=True)
    assert coded.codec is Codec.PLANES
    assert size(coded) < 0.85 * data.size


def test_a_repetitive_beginning_does_not_mislead() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.tile(rng.normal(size=100), 500), rng.normal(size=150_000)]).astype(np.float32)
    assert encode_tensor(values.view(np.uint8), width=4, rotated=True).codec is Codec.PLANES


def test_the_smallest_codec_is_taken() -> None:
    repeated = np.frombuffer(np.random.default_rng(0).bytes(1000) * 50, np.uint8)
    assert encode_tensor(repeated).codec is Codec.DEFLATE
    assert encode_tensor(np.frombuffer(np.random.default_rng(0).bytes(5000), np.uint8)).codec is Codec.RAW


@pytest.mark.parametrize("codec", [Codec.HUFFMAN, Codec.RANS, Codec.DEFLATE, Codec.RAW])
def test_chunks_decode_on_their_own_and_at_the_same_time(codec: Codec) -> None:
    data = np.minimum(np.random.default_rng(0).geometric(0.1, 2 * CHUNK + 999), 255).astype(np.uint8)
    with ThreadPoolExecutor(2) as pool:
        coded = encode_tensor(data, codec=codec, each=pool.map)
        assert [len(stream.chunks) for stream in coded.streams] == [3]
        assert decode_tensor(coded, data.size, each=pool.map).tobytes() == data.tobytes()
    # The middle chunk can be swapped for another one of the same symbols: nothing runs on from chunk to chunk
    stream = coded.streams[0]
    first, _, last = stream.chunks
    other = dataclasses.replace(stream, chunks=(first, first, last))
    found = decode_tensor(dataclasses.replace(coded, streams=(other,)), data.size)
    assert found.tobytes() == np.concatenate([data[:CHUNK], data[:CHUNK], data[2 * CHUNK :]]).tobytes()


@pytest.mark.parametrize("codec", list(Codec))
def test_both_backends_agree(both: pytest.MonkeyPatch, codec: Codec) -> None:
    for kind in ("skewed", "nibbles", "sparse"):
        data = np.frombuffer(KINDS[kind](np.random.default_rng(3), 60_000), np.uint8)
        written = []
        for backend in ("numba", "numpy"):
            use(backend, both)
            written.append(encode_tensor(data, width=2, matrices=[(300, 100), (300, 100)], codec=codec))
        assert written[0] == written[1]
        for backend in ("numba", "numpy"):
            use(backend, both)
            assert decode_tensor(written[0], data.size).tobytes() == data.tobytes()


def _stream(**changes: object) -> CodedTensor:
    coded = encode_tensor(dense(5000), codec=Codec.RANS)
    return dataclasses.replace(coded, streams=(dataclasses.replace(coded.streams[0], **changes),))


@pytest.mark.parametrize(
    "changes",
    [{"chunks": ()}, {"lanes": 0}, {"size": 4999}, {"head": b""}, {"coder": Coder.RAW}, {"coder": Coder.HUFFMAN},
     {"coder": Coder.DEFLATE}, {"paired": True}, {"lanes": 3}],
)  # fmt: skip
def test_contradictions_are_errors(changes: dict[str, object]) -> None:
    with pytest.raises(CodingError):
        decode_tensor(_stream(**changes), 5000)


def test_a_head_that_claims_a_huge_matrix_is_refused() -> None:
    with pytest.raises(CodingError):
        decode_tensor(_stream(head=b"x\x9c" + bytes(100)), 5000)


def _head(top: int, *numbers: int, rest: int = 0) -> bytes:
    return zlib.compress(bytes([top]) + np.array(numbers, "<u4").tobytes() + bytes(rest))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (_head(0, 5000), "cut short"),
        (_head(16, 0, rest=512 * 17), "cut short"),
        (_head(1, 1 << 31), "cut short"),
        (_head(1, 1, 1 << 31, 1 << 31, rest=1024), "not as long"),
        (_head(1, 1, 50, 99, rest=149 + 1024), "do not fit 5000 symbols"),
        (_head(0, 1, 50, 100, rest=150 + 512), "do not fit 5000 symbols"),
        (_head(1, 2, 50, 100, 0, 7, rest=157 + 1024), "do not fit 5000 symbols"),
        (_head(1, 1, 50, 100, rest=150 + 1024), "do not sum to 4096"),
    ],
)
def test_heads_that_contradict_themselves_are_refused(head: bytes, says: str) -> None:
    with pytest.raises(CodingError, match=says):
        decode_tensor(_stream(head=head), 5000)


def test_masks_that_contradict_their_values_are_errors() -> None:
    coded = encode_tensor(sparse(4000), codec=Codec.MASK)
    other = encode_tensor(dense(4000), codec=Codec.MASK)
    for streams in (
        (other.streams[0], coded.streams[1]),
        (coded.streams[0], other.streams[1]),
        coded.streams[:1],
        (),
    ):
        with pytest.raises(CodingError):
            decode_tensor(dataclasses.replace(coded, streams=streams), 4000)
