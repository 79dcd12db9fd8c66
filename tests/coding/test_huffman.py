"""Canonical Huffman codes: lengths, codes, chunks."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.coding import CodingError
from onnxcomp.coding import huffman as h

COUNTS = st.lists(st.integers(0, 10**9), min_size=256, max_size=256).map(np.array)
FEW = st.dictionaries(st.integers(0, 255), st.integers(1, 10**12), min_size=2, max_size=12)


def spread(found: dict[int, int]) -> np.ndarray:
    counts = np.zeros(256, np.int64)
    counts[list(found)] = list(found.values())
    return counts


def kraft(lengths: np.ndarray) -> float:
    return float((0.5 ** lengths[lengths > 0].astype(float)).sum())


@given(COUNTS | FEW.map(spread))
@settings(max_examples=60)
def test_codes_are_complete_limited_and_free_of_prefixes(counts: np.ndarray) -> None:
    lengths = h.code_lengths(counts)
    if not counts.any():
        assert not lengths.any()
        return
    assert kraft(lengths) == 1
    assert lengths.max() <= 12
    assert (lengths[counts > 0] > 0).all()
    codes = h.codes(lengths)
    texts = sorted(f"{codes[s]:0{lengths[s]}b}" for s in np.flatnonzero(lengths))
    assert not any(b.startswith(a) for a, b in itertools.pairwise(texts))


def test_codes_are_canonical() -> None:
    lengths = np.zeros(256, np.uint8)
    lengths[[7, 9, 200, 3]] = [1, 2, 3, 3]
    codes = h.codes(lengths)
    assert [int(codes[s]) for s in (7, 9, 3, 200)] == [0b0, 0b10, 0b110, 0b111]


@given(FEW)
@settings(max_examples=60)
def test_lengths_are_as_good_as_those_of_a_plain_huffman_tree(found: dict[int, int]) -> None:
    """At most 12 symbols have no code longer than 11 bits, so the limit does not bind."""
    weights = sorted(found.values())
    total = 0
    while len(weights) > 1:
        joined = weights.pop(0) + weights.pop(0)
        total += joined
        weights = sorted([*weights, joined])
    counts = spread(found)
    assert int((h.code_lengths(counts) * counts).sum()) == total


def test_the_limit_binds_where_a_tree_would_be_deeper() -> None:
    counts = np.zeros(256, np.int64)
    counts[:40] = [int(1.6**i) + 1 for i in range(40)]
    lengths = h.code_lengths(counts)
    assert lengths.max() == 12
    assert kraft(lengths) == 1


def test_a_single_symbol_gets_a_complete_code() -> None:
    lengths = h.code_lengths(np.bincount([255], minlength=256))
    assert {int(s): int(lengths[s]) for s in np.flatnonzero(lengths)} == {255: 1, 0: 1}


@given(st.binary(min_size=2, max_size=3000), st.integers(1, 70))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(backend: str, content: bytes, lanes: int) -> None:
    symbols = np.frombuffer(content, np.uint8)
    lengths = h.code_lengths(np.bincount(symbols, minlength=256))
    cut = len(symbols) // 2
    chunks = [h.encode(part, lengths, lanes) for part in (symbols[:cut], symbols[cut:])]
    found = h.decode(chunks, [cut, len(symbols) - cut], lengths, lanes)
    assert found.tobytes() == content


CHANGES = {
    "cut": lambda c: c[:-1],
    "longer": lambda c: c + b"\0",
    "no lanes": lambda c: c[:3],
    "another bit": lambda c: c[:-1] + bytes([c[-1] ^ 1]),  # the filling of the last lane
    "lane lengths": lambda c: bytes([c[0] + 1, c[1], c[2] - 1]) + c[3:],
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("change", CHANGES)
def test_damage_is_an_error(change: str) -> None:
    symbols = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2] * 11, np.uint8)
    lengths = h.code_lengths(np.bincount(symbols, minlength=256))
    chunk = h.encode(symbols, lengths, 4)
    with pytest.raises(CodingError):
        h.decode([CHANGES[change](chunk)], [len(symbols)], lengths, 4)


@pytest.mark.parametrize("lengths", [[], [1], [1, 2], [1, 1, 1], [13] * 2])
def test_codes_that_are_not_complete_are_refused(lengths: list[int]) -> None:
    table = np.zeros(256, np.uint8)
    table[: len(lengths)] = lengths
    with pytest.raises(CodingError):
        h.decode([b"\0\0\0"], [1], table, 1)
