"""Words of reports: singulars, and names that must not push a row out of its columns."""

import pytest

from onnxcomp.report.figures import counted
from onnxcomp.report.parts import metric_label


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(n, "sample") for n in (0, 1, 2)] == ["0 samples", "1 sample", "2 samples"]


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        (None, "score"),
        ("top1", "top1"),
        ("metric.py:macro_f1", "macro_f1"),
        ("metrics/own.py:balanced_accuracy", "..d_accuracy"),
    ],
)
def test_rows_keep_their_columns(metric: str | None, label: str) -> None:
    assert metric_label(metric) == label
    assert len(metric_label(metric)) <= 12
