"""Top-1 and top-5, and metrics of the user's own: loading and calling them."""

import sys

import numpy as np
import pytest

from onnxcomp.errors import MetricError
from onnxcomp.metrics import evaluate, load_metric, top1, top5
from tests.metrics.values import INF, NAN, array

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
