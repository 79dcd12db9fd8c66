"""The script of a bundle: one file without anything of ours, and the statistics that are taken here."""

import ast
import sys
from collections import Counter

import numpy as np
import pytest

from onnxcomp.errors import UsageError
from onnxcomp.measure.bundle import check_feed, script


def test_the_script_needs_the_standard_library_numpy_and_onnxruntime_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(script())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            imported.add(node.module.split(".")[0])
    assert {"numpy", "onnxruntime"} <= imported <= set(sys.stdlib_module_names) | {"numpy", "onnxruntime"}


def test_no_name_of_one_part_takes_the_place_of_another_part_s() -> None:
    names: Counter[str] = Counter()
    for node in ast.parse(script()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] += 1
        elif isinstance(node, ast.Assign):
            names.update(ast.unparse(target) for target in node.targets)
    assert {"interleave", "median_interval", "peak_rss", "main"} <= set(names)
    assert [name for name, times in names.items() if times > 1] == []


def test_the_script_is_one_that_python_3_10_reads() -> None:
    ast.parse(script(), feature_version=(3, 10))


@pytest.mark.parametrize(
    "value", [np.zeros(2, np.uint8), np.zeros((), np.bool_), np.array(["a"]), np.array(["a"], dtype=object)]
)
def test_inputs_that_a_bundle_holds(value: np.ndarray) -> None:
    check_feed({"x": value})


@pytest.mark.parametrize("value", [[np.zeros(2)], np.zeros(2, [("a", "f4")])])
def test_inputs_that_it_does_not(value: object) -> None:
    with pytest.raises(UsageError, match="can't hold the input 'x'"):
        check_feed({"x": value})  # type: ignore[dict-item]
