"""rANS: frequencies, classes, chunks."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcomp.coding import CodingError, rans

pytestmark = pytest.mark.untraced

COUNTS = st.lists(st.integers(0, 10**9), min_size=256, max_size=256).map(np.array).filter(np.any)


@given(COUNTS)
@settings(max_examples=60)
def test_frequencies_sum_to_4096_and_leave_none_out(counts: np.ndarray) -> None:
    found = rans.normalized(counts)
    assert found.sum() == 4096
    assert ((found > 0) == (counts > 0)).all()


def test_frequencies_cost_hardly_more_than_the_entropy() -> None:
    counts = np.round(1e6 * np.exp(-np.abs(np.arange(256) - 128) / 9)).astype(np.int64)
    p = counts / counts.sum()
    coded = -(p * np.log2(rans.normalized(counts) / 4096))[counts > 0].sum()
    least = -(p * np.log2(np.maximum(p, 1e-30))).sum()
    assert coded < 1.01 * least


@given(st.binary(min_size=2, max_size=3000), st.integers(1, 70))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(backend: str, content: bytes, lanes: int) -> None:
    symbols = np.frombuffer(content, np.uint8)
    table = rans.normalized(np.bincount(symbols, minlength=256))[None]
    cut = len(symbols) // 2
    chunks = [rans.encode(part, table, lanes) for part in (symbols[:cut], symbols[cut:])]
    assert rans.decode(chunks, [cut, len(symbols) - cut], table, lanes).tobytes() == content


@pytest.mark.usefixtures("backend")
@given(
    rows=st.integers(2, 40),
    columns=st.integers(1, 40),
    cut=st.floats(0.1, 0.9),
    seed=st.integers(0, 99),
    number=st.integers(1, 4),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_with_classes(rows: int, columns: int, cut: float, seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    matrices = []
    for n in range(number):  # of different shapes
        scales = np.exp(2 * rng.normal(size=(rows + n, 1)) + rng.normal(size=(1, columns)))
        values = rng.normal(size=(rows + n, columns)) * 5 * scales
        matrices.append(np.clip(np.round(values), -127, 127).astype(np.int8))
    classes = rans.scale_classes([np.abs(matrix) for matrix in matrices])
    symbols = np.concatenate([matrix.reshape(-1) for matrix in matrices]).view(np.uint8)
    first = 1 + int(cut * len(symbols))
    by_symbol = np.concatenate([classes.part(0, first), classes.part(first, len(symbols) - first)])
    counts = np.zeros((classes.top + 1, 256), np.int64)
    np.add.at(counts, (by_symbol, symbols), 1)
    table = np.stack([rans.normalized(row if row.any() else np.bincount([0], minlength=256)) for row in counts])
    parts = [(symbols[:first], 0), (symbols[first:], first)]
    chunks = [rans.encode(part, table, 8, classes=classes, first=at) for part, at in parts]
    found = rans.decode(chunks, [first, len(symbols) - first], table, 8, classes=classes)
    assert (found == symbols).all()


def test_both_backends_write_the_same(both: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 50, 12345, dtype=np.uint8) * rng.integers(0, 2, 12345, dtype=np.uint8)
    table = rans.normalized(np.bincount(symbols, minlength=256))[None]
    fast = rans.encode(symbols, table, 64)
    both.setattr(rans, "kernels", lambda: None)
    assert rans.encode(symbols, table, 64) == fast


CHANGES = {
    "cut": lambda c: c[:-2],
    "longer": lambda c: c + b"\0\0",
    "odd": lambda c: c + b"\0",
    "no states": lambda c: c[:6],
    "small state": lambda c: bytes(4) + c[4:],
    "another bit": lambda c: c[:-1] + bytes([c[-1] ^ 1]),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("change", CHANGES)
def test_damage_is_an_error(change: str) -> None:
    symbols = np.arange(1000, dtype=np.int64).astype(np.uint8) ** 2 % 7
    table = rans.normalized(np.bincount(symbols, minlength=256))[None]
    chunk = rans.encode(symbols, table, 4)
    with pytest.raises(CodingError):
        rans.decode([CHANGES[change](chunk)], [len(symbols)], table, 4)


def test_frequencies_that_do_not_sum_to_4096_are_refused() -> None:
    with pytest.raises(CodingError, match="4096"):
        rans.decode([bytes(8)], [1], np.full((1, 256), 15), 1)
