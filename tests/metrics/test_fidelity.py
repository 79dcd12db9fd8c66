"""How close the outputs of two models are, over many runs."""

import math
import tracemalloc

import numpy as np
import pytest

from onnxcomp.errors import MetricError
from onnxcomp.metrics import Fidelity, agreement, as_arrays, cosine, sqnr
from tests.metrics.values import INF, NAN, array


def test_fidelity_of_runs_is_the_metric_of_all_values():
    rng = np.random.default_rng(1)
    references = [rng.standard_normal((n, 4)) for n in (1, 5, 2)]
    candidates = [r + rng.standard_normal(r.shape) * 0.3 for r in references]
    fidelity = Fidelity()
    for reference, candidate in zip(references, candidates, strict=True):
        fidelity.add({"y": reference}, {"y": candidate})
    whole = np.concatenate(references), np.concatenate(candidates)
    assert fidelity.sqnr == pytest.approx(sqnr(*whole))
    assert fidelity.cosine == pytest.approx(cosine(*whole))
    assert fidelity.agreement == pytest.approx(agreement(*whole))
    assert fidelity.outputs["y"].rows == 8


def test_fidelity_takes_the_worst_output_and_names_each():
    big, ids = np.ones((100, 3), np.float32), np.arange(30)
    row = np.tile(array(1, 2), (20, 1))
    fidelity = Fidelity()
    fidelity.add({"big": big, "row": row, "ids": ids}, {"big": big, "row": row[:, ::-1], "ids": ids})
    assert fidelity.agreement == 0
    assert fidelity.sqnr == fidelity.outputs["row"].sqnr < INF
    assert fidelity.outputs["big"].sqnr == INF
    assert fidelity.outputs["ids"].sqnr is None
    assert fidelity.outputs["ids"].agreement == 1


def test_a_single_row_beside_many_is_no_statistic():
    many, state = np.tile(array(1, 2), (100, 1)), array([1, 2])
    fidelity = Fidelity()
    fidelity.add({"scores": many, "state": state}, {"scores": many, "state": array([2, 1])})
    assert fidelity.agreement == 1
    assert fidelity.outputs["state"].agreement == 0


def test_features_agree_by_direction():
    reference = np.random.default_rng(0).standard_normal((50, 64))
    close = reference + 0.1 * np.random.default_rng(1).standard_normal((50, 64))
    assert agreement(reference, close) < 1  # the highest of 64 nearly equal values is an accident
    fidelity = Fidelity(features=("y",))
    fidelity.add({"y": reference}, {"y": close})
    assert fidelity.agreement == 1
    fidelity.add({"y": reference}, {"y": -reference})
    assert fidelity.agreement == 0.5


def test_logits_seen_one_by_one_are_no_probabilities():
    fidelity = Fidelity()
    fidelity.add({"y": array(0.4)}, {"y": array(0.6)})
    assert fidelity.agreement == 0  # so far it may be a probability
    fidelity.add({"y": array(-3)}, {"y": array(-3)})
    assert fidelity.agreement == 1


def test_one_broken_run_is_not_forgotten():
    fidelity = Fidelity()
    fidelity.add({"y": array([1, 2])}, {"y": array([1, NAN])})
    fidelity.add({"y": array([1, 2])}, {"y": array([1, 2])})
    assert (fidelity.sqnr, fidelity.cosine, fidelity.agreement) == (-INF, -1, 0.5)


def test_outputs_without_floats_leave_agreement_to_tell():
    fidelity = Fidelity()
    fidelity.add({"y": np.array([1, 2])}, {"y": np.array([1, 3])})
    assert (fidelity.sqnr, fidelity.cosine, fidelity.agreement) == (INF, 1, 0.5)


@pytest.mark.parametrize(
    "candidate",
    [{}, {"z": array(1)}, {"y": array(1), "z": array(1)}, {"y": array(1, 2)}, {"y": np.array(["a"])}],
)
def test_outputs_that_differ_in_form_are_refused(candidate):
    with pytest.raises(MetricError):
        Fidelity().add({"y": array(1)}, candidate)


def test_fidelity_of_nothing_is_an_error():
    with pytest.raises(MetricError, match="no outputs were compared"):
        _ = Fidelity().sqnr


def test_fidelity_holds_no_outputs():
    fidelity = Fidelity()
    tracemalloc.start()
    for seed in range(20):
        y = np.random.default_rng(seed).standard_normal((1000, 100)).astype(np.float32)
        fidelity.add({"y": y}, {"y": y})
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * y.nbytes


def test_a_sequence_of_maps_is_a_table():
    table = as_arrays({"p": [{"b": 0.25, "a": 0.75}, {"a": 0.5, "b": 0.5}]})
    assert list(table) == ["p"]
    np.testing.assert_array_equal(table["p"], [[0.75, 0.25], [0.5, 0.5]])
    assert as_arrays({"m": {1: 2.0}})["m"].tolist() == [[2.0]]


def test_other_sequences_are_taken_apart():
    arrays = as_arrays({"x": array(1), "s": [array(1, 2), [array(3)]], "none": None, "empty": []})
    assert {name: value.tolist() for name, value in arrays.items()} == {
        "x": [1], "s": 2, "s[0]": [1, 2], "s[1]": 1, "s[1][0]": [3], "none": [], "empty": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "sqnr_of_all"), [([array(1, 2), array(3)], INF), ([array(1, 2), array(4)], None)]
)
def test_sequences_are_compared_element_by_element(candidate, sqnr_of_all):
    fidelity = Fidelity()
    fidelity.add({"s": [array(1, 2), array(3)]}, {"s": candidate})
    assert fidelity.sqnr == (sqnr_of_all or pytest.approx(10 * math.log10(9)))


def test_sequences_of_different_length_can_not_be_compared():
    with pytest.raises(MetricError, match="different names"):
        Fidelity().add({"s": [array(1)]}, {"s": [array(1), array(2)]})
