import math
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.errors import MetricError
from onnxcomp.metrics import Fidelity, agreement, as_arrays, cosine, evaluate, load_metric, sqnr, top1, top5

NAN, INF = math.nan, math.inf
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=6)
VALUES = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@st.composite
def pairs(draw, dtype=np.float32, values=VALUES):
    shape = draw(SHAPES)
    return tuple(draw(hnp.arrays(dtype, shape, elements=values)) for _ in range(2))


def array(*values):
    return np.array(values, dtype=np.float32)


# --- SQNR, cosine


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


# --- agreement


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


# --- Fidelity


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


# --- top-1, top-5


SCORES = np.arange(20, dtype=np.float32).reshape(2, 10)  # class 9 wins, 5 to 9 are the top five


def test_top_one_and_five():
    assert top1([{"y": SCORES}], [np.array([9, 5])]) == 0.5
    assert top5([{"y": SCORES}], [np.array([9, 5])]) == 1
    assert top5([{"y": SCORES}], [np.array([9, 4])]) == 0.5
    runs = [{"y": SCORES[:1], "z": SCORES * 0}, {"y": SCORES[0]}, {"y": SCORES[:, :, None, None]}]
    assert top1(runs, [np.array(9), np.array([9]), np.array([9, 0])]) == 0.75


def test_nan_is_never_right():
    assert top1([{"y": array([NAN, 1])}], [np.array([0])]) == 0
    assert top5([{"y": np.full((1, 9), NAN)}], [np.array([0])]) == 0


def test_unsigned_scores_are_not_negated():
    assert top1([{"y": np.array([[0, 200, 100]], np.uint8)}], [np.array([1])]) == 1


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ([], [], "no samples"),
        ([{"y": SCORES}], [], "1 runs, but labels for 0"),
        ([{}], [np.array([1])], "no output"),
        ([{"y": SCORES}], [np.array([1])], "1 labels for 2 rows"),
        ([{"y": SCORES}], [np.array([1.0, 2.0])], "not class numbers"),
        ([{"y": SCORES}], [np.array(["a", "b"])], "not class numbers"),
        ([{"y": SCORES}], [np.array([[1], [2]])], "not class numbers"),
        ([{"y": SCORES}], [np.array([1, 10])], "labels from 1 to 10, but 10 classes"),
        ([{"y": SCORES}], [np.array([-1, 1])], "labels from -1"),
        ([{"y": SCORES[:, :1]}], [np.array([0, 0])], "every answer is right"),
        ([{"y": SCORES.reshape(1, 2, 10)}], [np.array([0])], "not scores"),
        ([{"y": SCORES.astype(str)}], [np.array([0, 0])], "not scores"),
    ],
)
def test_what_top_one_refuses(outputs, labels, message):
    with pytest.raises(MetricError, match=message):
        top1(outputs, labels)


def test_top_five_of_five_classes_is_refused():
    with pytest.raises(MetricError, match="with 5 classes every answer is right"):
        top5([{"y": SCORES[:, :5]}], [np.array([0, 0])])


# --- loading


def test_built_in_metrics_by_name():
    assert load_metric("top1") == ("top1", top1)
    assert load_metric("top5") == ("top5", top5)


def test_a_file_with_neighbours(tmp_path, monkeypatch):
    (tmp_path / "neighbour_a.py").write_text("VALUE = 0.25\n")
    (tmp_path / "neighbour_b.py").write_text("VALUE = 0.5\n")
    file = tmp_path / "my metric.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import neighbour_a\n"
        "@dataclass\n"
        "class Box:\n"
        "    value: float\n"
        "def score(outputs, labels):\n"
        "    import neighbour_b\n"
        "    return Box(neighbour_a.VALUE + neighbour_b.VALUE).value\n"
        "def other(outputs, labels):\n"
        "    return 2\n"
    )
    before = list(sys.path)
    name, metric = load_metric(str(file))
    assert name == "my metric.py:score"
    assert evaluate(metric, [], []) == 0.75
    name, metric = load_metric(f"{file}:other")
    assert (name, evaluate(metric, [], [])) == ("my metric.py:other", 2.0)
    assert sys.path == before
    monkeypatch.chdir(tmp_path)
    assert load_metric("my metric.py")[0] == "my metric.py:score"


def test_files_of_one_name_stay_apart(tmp_path):
    metrics = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        file = tmp_path / str(number) / "metric.py"
        file.write_text(f"def score(outputs, labels): return {number}\n")
        metrics.append(load_metric(str(file))[1])
    assert [evaluate(metric, [], []) for metric in metrics] == [1, 2]


def test_a_module_and_a_function():
    name, metric = load_metric("onnxcomp.metrics:top1")
    assert (name, metric) == ("onnxcomp.metrics:top1", top1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no metric ''"),
        ("top2", "no metric 'top2'"),
        ("Top1", "no metric 'Top1'"),
        (":f", "no metric"),
        ("f:", "no metric"),
        ("missing.py", "no such file"),
        ("missing.py:f", "no such file"),
        ("no_such_module_x:f", "No module named"),
        (".relative:f", "can't be loaded"),
        ("math:nope", "no function 'nope'"),
        ("math:pi", "no function 'pi'"),
    ],
)
def test_what_can_not_be_loaded(spec, message):
    with pytest.raises(MetricError, match=message) as caught:
        load_metric(spec)
    assert caught.value.hint is not None


def test_the_hint_lists_the_built_in_metrics():
    with pytest.raises(MetricError) as caught:
        load_metric("top2")
    assert "top1, top5, FILE.py" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def score(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("score = 1", "no function 'score'"),
        ("", "no function 'score'"),
    ],
)
def test_files_that_fail_on_import(tmp_path, source, message):
    file = tmp_path / "metric.py"
    file.write_text(source)
    before, modules = list(sys.path), set(sys.modules)
    with pytest.raises(MetricError, match=message):
        load_metric(str(file))
    assert sys.path == before
    assert not {name for name in set(sys.modules) - modules if "metric" in name}


# --- evaluating


@pytest.mark.parametrize("result", [1, 0.5, np.float32(0.5), np.int64(3), np.array(0.5), -2.0])
def test_numbers_are_scores(result):
    score = evaluate(lambda outputs, labels: result, [], [])
    assert type(score) is float
    assert score == float(result)


@pytest.mark.parametrize(
    "result", [None, "0.5", True, np.bool_(1), np.array([0.5]), NAN, INF, -INF, np.float32(NAN), np.array(NAN), 1j, [1]]
)
def test_anything_else_is_refused(result):
    with pytest.raises(MetricError, match="returned"):
        evaluate(lambda outputs, labels: result, [], [])


def test_what_a_metric_raises_is_wrapped():
    def score(outputs, labels):
        return outputs[3]

    with pytest.raises(MetricError, match="'score' failed: IndexError") as caught:
        evaluate(score, [], [])
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_metric_can_not_end_the_program():
    with pytest.raises(MetricError, match="SystemExit"):
        evaluate(lambda outputs, labels: sys.exit(0), [], [])


def test_runs_without_labels_are_refused():
    with pytest.raises(MetricError, match="1 runs, but labels for 0"):
        evaluate(top1, [{"y": SCORES}], [])


def test_what_a_metric_prints_goes_to_stderr(tmp_path, capsys):
    (tmp_path / "loud.py").write_text("print('import')\ndef score(o, l):\n    print('call')\n    return 1.0\n")
    _, metric = load_metric(str(tmp_path / "loud.py"))
    assert evaluate(metric, [], []) == 1
    assert capsys.readouterr() == ("", "import\ncall\n")


def test_a_metric_can_not_change_what_the_next_call_gets():
    def greedy(outputs, labels):
        found = sum(run.pop("y").sum() for run in outputs) + sum(label.sum() for label in labels)
        for label in labels:
            label[:] = 0
        outputs.clear()
        labels.clear()
        return found

    outputs, labels = [{"y": array(1.0, 2.0)}], [np.array([4])]
    assert evaluate(greedy, outputs, labels) == 7
    assert evaluate(greedy, outputs, labels) == 7


def test_a_package_that_is_missing_is_to_be_installed(tmp_path):
    (tmp_path / "needy.py").write_text("import no_such_package\ndef score(o, l): return 1.0\n")
    with pytest.raises(MetricError, match="no_such_package") as caught:
        load_metric(str(tmp_path / "needy.py"))
    assert caught.value.hint == "install no_such_package in this environment"
    with pytest.raises(MetricError) as caught:
        load_metric("no_such_package.metrics:score")
    assert "FILE.py" in caught.value.hint


# --- outputs that are no tensors


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
