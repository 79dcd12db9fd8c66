"""SQNR, cosine and agreement of two arrays."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.errors import MetricError
from onnxcomp.metrics import agreement, cosine, sqnr
from tests.metrics.values import INF, NAN, array, pairs


@given(pairs())
def test_sqnr_is_the_formula(pair):
    reference, candidate = (a.astype(np.float64) for a in pair)
    noise, signal = ((reference - candidate) ** 2).sum(), (reference**2).sum()
    if noise == 0:
        assert sqnr(*pair) == INF
    elif signal == 0:
        assert sqnr(*pair) == -INF
    else:
        assert sqnr(*pair) == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)


@given(pairs())
def test_cosine_is_the_formula(pair):
    a, b = (x.astype(np.float64).ravel() for x in pair)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if (a == b).all():
        assert cosine(*pair) == 1
    elif lengths == 0:
        assert cosine(*pair) == 0
    else:
        assert cosine(*pair) == pytest.approx(a @ b / lengths, abs=1e-9)
    assert -1 <= cosine(*pair) <= 1


@given(pairs(), st.integers(-8, 8))
def test_scale_makes_no_difference(pair, exponent):
    scaled = [a.astype(np.float64) * 2.0**exponent for a in pair]
    assert sqnr(*scaled) == pytest.approx(sqnr(*pair), abs=1e-6)
    assert cosine(*scaled) == pytest.approx(cosine(*pair), abs=1e-9)


def test_twenty_decibels_is_a_tenth_of_the_amplitude():
    x = np.random.default_rng(0).standard_normal(1000)
    assert sqnr(x, x * 1.1) == pytest.approx(20)


def test_large_float32_arrays_are_summed_in_float64():
    reference = np.full(3_000_000, 1000.0, np.float32)  # more than one chunk
    assert sqnr(reference, reference + np.float32(1)) == pytest.approx(60)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_, np.uint64])
def test_sqnr_of_unsigned_values_does_not_wrap_around(dtype):
    reference, candidate = np.array([0, 1], dtype), np.array([1, 1], dtype)
    assert sqnr(reference, candidate) == pytest.approx(0)


@pytest.mark.parametrize(
    ("reference", "candidate", "want_sqnr", "want_cosine"),
    [
        (array(), array(), INF, 1),
        (array(0, 0), array(0, 0), INF, 1),
        (array(0, 0), array(0, 1), -INF, 0),
        (array(1, 1), array(0, 0), 0, 0),
        (array(1, 2), array(1, NAN), -INF, -1),
        (array(1, 2), array(1, INF), -INF, -1),
        (array(1, INF), array(1, INF), INF, 1),
        (array(1, INF), array(1, -INF), -INF, -1),
        (array(1, INF), array(1, 2), -INF, -1),
        (array(1, INF), array(1, NAN), -INF, -1),
        (array(1, NAN), array(1, NAN), INF, 1),
        (array(1, NAN), array(1, 7), INF, 1),
        (array(1, NAN), array(1, INF), INF, 1),
        (np.array([1e300]), np.array([-1e300]), -INF, -1),
        (np.array([1e-300, 1]), np.array([1e-300, 1]), INF, 1),
    ],
)
def test_edges(reference, candidate, want_sqnr, want_cosine):
    assert sqnr(reference, candidate) == want_sqnr
    assert cosine(reference, candidate) == want_cosine


def test_bfloat16_counts_as_float():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    reference = np.array([[1.0, 2.0]], ml_dtypes.bfloat16)
    assert sqnr(reference, reference.astype(np.float32)) == INF
    assert agreement(reference, array(2, 1)[None]) == 0


@pytest.mark.parametrize("function", [sqnr, cosine, agreement])
def test_arrays_that_differ_in_form_are_refused(function):
    with pytest.raises(MetricError, match=r"\[2\] and \[1, 2\]"):
        function(array(1, 2), array(1, 2)[None])
    with pytest.raises(MetricError, match="can't be compared"):
        function(array(1, 2), np.array(["a", "b"]))


@pytest.mark.parametrize("function", [sqnr, cosine])
def test_strings_have_no_sqnr(function):
    with pytest.raises(MetricError, match="no real numbers"):
        function(np.array(["a"]), np.array(["a"]))


@given(pairs(values=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0])))
def test_agreement_is_the_share_of_equal_answers(pair):
    reference, candidate = pair
    if reference.ndim > 1 and reference.shape[-1] >= 2:
        rows = zip(reference.reshape(-1, reference.shape[-1]), candidate.reshape(-1, reference.shape[-1]), strict=True)
        same = [list(r).index(max(r)) == list(c).index(max(c)) for r, c in rows]
    elif all(0 <= x <= 1 for x in reference.ravel()):
        same = [(r >= 0.5) == (c >= 0.5) for r, c in zip(reference.ravel(), candidate.ravel(), strict=True)]
    else:
        same = [(r > 0) == (c > 0) for r, c in zip(reference.ravel(), candidate.ravel(), strict=True)]
    assert agreement(*pair) == pytest.approx(sum(same) / len(same))


@given(pairs(dtype=np.int32, values=st.integers(0, 2)))
def test_agreement_of_integers_is_equality(pair):
    assert agreement(*pair) == pytest.approx(float(np.mean(pair[0] == pair[1])))


@pytest.mark.parametrize(
    ("reference", "candidate", "want"),
    [
        (array([1, 2], [2, 1]), array([0, 9], [0, 9]), 0.5),
        (np.float32(0.4), np.float32(0.6), 0.0),
        (np.float32(-3), np.float32(-0.1), 1.0),
        (array([0.4], [3]), array([0.6], [3]), 1.0),  # logits: only the sign counts
        (array([0.4], [1]), array([0.6], [1]), 0.5),  # probabilities
        (array([1, 2]), array([NAN, 2]), 0.0),
        (array([2, 1]), array([NAN, 1]), 0.0),  # numpy's argmax would agree
        (array([1, 2]), array([1, INF]), 0.0),
        (array([1, INF]), array([1, INF]), 1.0),
        (array(0.1, 0.9, 0.8, 0.4), array(0.2, 0.7, 0.3, 0.3), 0.75),  # a vector of probabilities
        (array([1, NAN], [1, 2]), array([1, 2], [1, 2]), 1.0),
        (array([NAN], [1]), array([1], [1]), 1.0),
        (array(0.7), array(NAN), 0.0),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 1.0),
        (np.zeros((3, 0), np.float32), np.zeros((3, 0), np.float32), 1.0),
        (np.array([True, False]), np.array([True, True]), 0.5),
        (np.array(["a", "b"]), np.array(["a", "bb"]), 0.5),
        (np.array(["a", "b"], dtype=object), np.array(["a", "bb"], dtype=object), 0.5),
    ],
)
def test_agreement_edges(reference, candidate, want):
    assert agreement(reference, candidate) == want
