"""Samples from functions of the user's."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.api import optimize
from onnxcomp.cli.app import build_app, run
from onnxcomp.data import InputSpec, Samples, open_samples
from onnxcomp.errors import DataError
from onnxcomp.usercode import names_function, source_file

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
X = InputSpec("x", F32, (None, 3))
MASK = InputSpec("mask", I64, (None, None), optional=True)


def loader(folder: Path, body: str, name: str = "loader.py") -> str:
    """Write a file with a function `load`, whose lines are given; returns its name as DATA."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / name).write_text(f"import sys\nimport numpy as np\ncalls = []\ndef load():\n{lines}\n")
    return f"{folder / name}:load"


THREE = """for i in range(3):
    yield {"x": np.full((i + 1, 3), i, np.float32), "labels": np.arange(i + 1)}"""


def test_each_item_is_a_run(tmp_path: Path) -> None:
    samples = open_samples(loader(tmp_path, THREE), [X, MASK], batch=7)
    assert samples.length is None
    for _ in range(2):
        feeds = list(samples)
        assert [feed["x"].tolist() for feed in feeds] == [[[i] * 3] * (i + 1) for i in range(3)]
        assert all(set(feed) == {"x"} for feed in feeds)
    assert samples.length == 3
    labels = samples.labels()
    assert labels is not None
    assert [label.tolist() for label in labels] == [[0], [0, 1], [0, 1, 2]]
    assert samples.description == "loader.py:load, 3 runs"


def test_parts_of_it(tmp_path: Path) -> None:
    samples = open_samples(loader(tmp_path, THREE), [X])
    assert samples.description == "loader.py:load"
    assert [len(feed["x"]) for feed in samples.take(2)] == [1, 2]
    assert [len(feed["x"]) for feed in samples.spread(1)] == [2]
    assert [len(feed["x"]) for feed in samples.pick([0, 2, 9])] == [1, 3]
    labels = samples.take(2).labels()
    assert labels is not None
    assert len(labels) == 2


def test_a_module_a_function_and_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(tmp_path, THREE, "my_samples.py")
    monkeypatch.syspath_prepend(tmp_path)
    items = [{"x": np.full((i + 1, 3), i, np.float32)} for i in range(3)]
    sources = [
        (open_samples("my_samples:load", [X]), "my_samples:load, 3 runs"),
        (open_samples(lambda: iter(items), [X]), "test_a_module_a_function_and_a_list.<locals>.<lambda>, 3 runs"),
        (open_samples(items, [X]), "list, 3 runs"),
    ]
    for samples, description in sources:
        np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in samples]), items_of(items))
        assert samples.description == description
    sys.modules.pop("my_samples")


def items_of(items: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([item["x"] for item in items])


def test_what_counts_as_a_run() -> None:
    text, scalar = InputSpec("t", None, (None,)), InputSpec("s", np.dtype(">i8"), ())
    items = [{"t": ["a", "bcd"], "s": np.int64(4)}, {"s": np.array(5, ">i8"), "t": np.array(["e"])}]
    first, second = open_samples(items, [text, scalar])
    assert first["t"].tolist() == ["a", "bcd"]
    assert first["s"].shape == ()
    assert list(second) == ["t", "s"]
    assert second["s"].dtype.isnative


def test_a_model_may_have_an_input_called_labels() -> None:
    samples = open_samples([{"x": np.ones((1, 3), np.float32), "labels": np.ones(1, np.int64)}], [X, X_LABELS])
    assert samples.labels() is None
    assert set(next(iter(samples))) == {"x", "labels"}


X_LABELS = InputSpec("labels", I64, (None,))


def test_an_array_that_the_loader_writes_over_is_no_harm(tmp_path: Path) -> None:
    body = "x = np.zeros((1, 3), np.float32)\nfor i in range(3):\n    x[:] = i\n    yield {'x': x}"
    assert [feed["x"][0, 0] for feed in list(open_samples(loader(tmp_path, body), [X]))] == [0, 1, 2]


def test_one_run_is_held_at_a_time(tmp_path: Path) -> None:
    body = "for i in range(50):\n    yield {'x': np.full((1, 250_000), i, np.float32)}"
    samples = open_samples(loader(tmp_path, body), [InputSpec("x", F32, (None, None))])
    tracemalloc.start()
    for _ in samples:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # five of fifty


def test_what_it_prints_goes_to_stderr_and_its_end_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "neighbour.py").write_text("VALUE = 5.0")
    body = (
        "print('begin')\ntry:\n    for i in range(9):\n        import neighbour\n        print('run', i)\n"
        "        yield {'x': np.full((1, 3), neighbour.VALUE, np.float32)}\nfinally:\n    print('end')"
    )
    before = list(sys.path)
    samples = open_samples(loader(tmp_path, body), [X])
    capsys.readouterr()
    assert next(iter(samples.take(1)))["x"].tolist() == [[5.0] * 3]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split() == ["begin", "run", "0", "end"]
    assert sys.path == before


WRONG = {
    "no iterable": ("return 5", "failed: TypeError"),
    "arguments": ("pass\ndef load(folder): pass", "failed: TypeError"),
    "raises": ("raise ValueError('no disk')", "failed: ValueError: no disk"),
    "raises later": ("yield {'x': np.zeros((1, 3), np.float32)}\n1 / 0", "failed: ZeroDivisionError"),
    "exits": ("sys.exit(0)", "failed: SystemExit"),
    "nothing": ("return []", "gives no samples"),
    "tuple": ("return [(np.zeros((1, 3)), 1)]", "gives tuple, no dictionary"),
    "missing": ("return [{'labels': 1}]", "no array for the input 'x'"),
    "unknown": ("return [{'x': np.zeros((1, 3), np.float32), 'y': 1}]", "no input 'y'"),
    "number as name": ("return [{'x': np.zeros((1, 3), np.float32), 1: 1}]", "no input '1'"),
    "dtype": ("return [{'x': np.zeros((1, 3))}]", "takes float32, the array is float64"),
    "rank": ("return [{'x': np.zeros(3, np.float32)}]", "takes [?, 3], the array is [3]"),
    "size": ("return [{'x': np.zeros((1, 4), np.float32)}]", "takes [?, 3], the array is [1, 4]"),
    "NaN": ("return [{'x': np.full((1, 3), np.nan, np.float32)}]", "run 0: input 'x' holds NaN"),
    "objects": ("return [{'x': np.array([None, 1])}]", "'x' is no array of numbers or text"),
    "ragged": ("return [{'x': [[1], [1, 2]]}]", "failed: ValueError"),
    "no array": ("class Odd:\n    def __array__(self, *a, **k): raise RuntimeError('on the GPU')\n"
                 "return [{'x': Odd()}]", "failed: RuntimeError: on the GPU"),
    "object labels": ("return [{'x': np.zeros((1, 3), np.float32), 'labels': [None]}]", "'labels' is no array"),
    "some labels": ("x = np.zeros((1, 3), np.float32)\nreturn [{'x': x, 'labels': 1}, {'x': x}]", "run 1: no 'labels'"),
    "late labels": ("x = np.zeros((1, 3), np.float32)\nreturn [{'x': x}, {'x': x, 'labels': 1}]", "run 1: 'labels'"),
    "random": ("yield {'x': np.random.rand(1, 3).astype(np.float32)}", "run 0 is another one now"),
    "shuffled labels": ("calls.append(0)\nyield {'x': np.zeros((1, 3), np.float32), 'labels': len(calls)}", "another"),
    "fewer": ("calls.append(0)\nfor i in range(2 if len(calls) < 3 else 1):\n"
              "    yield {'x': np.zeros((1, 3), np.float32)}", "gave 2 runs at first and 1 now"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_names_the_loader(name: str, tmp_path: Path) -> None:
    body, says = WRONG[name]
    spec = loader(tmp_path, body)
    with pytest.raises(DataError) as caught:
        read_twice(open_samples(spec, [X]))
    assert says in str(caught.value)
    assert "loader.py:load" in str(caught.value)
    assert caught.value.hint


def read_twice(samples: Samples) -> None:
    for _ in range(2):
        list(samples)


def test_an_iterator_can_not_be_read_again(tmp_path: Path) -> None:
    item = {"x": np.zeros((1, 3), np.float32)}
    with pytest.raises(DataError, match="can't be given as list_iterator"):
        open_samples(iter([item]), [X])
    once = iter([item, item])
    with pytest.raises(DataError, match="gives no samples"):
        read_twice(open_samples(lambda: once, [X]))
    for wrong in (5, item, None):
        with pytest.raises(DataError, match="can't be given as"):
            open_samples(wrong, [X])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("missing.py:load", "no such file"),
        ("no_such_module_x:load", "No module named"),
        ("math:nope", "no function 'nope'"),
        ("loader.py", "not a form of samples"),
        ("nowhere:", "no such file or folder"),
        ("a b:load", "no such file or folder"),
        ("C:\\samples", "no such file or folder"),
    ],
)
def test_what_is_no_loader(spec: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(tmp_path, THREE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        open_samples(spec, [X])
    assert caught.value.hint


def test_the_file_that_a_name_stands_for() -> None:
    assert names_function("a/b c.py:load")
    assert names_function("package.module:load")
    assert not any(map(names_function, ("a.npz", "module", "C:\\data", "module:", ":load", "a b:load")))
    assert source_file("a/b.py:load") == Path("a/b.py")
    assert source_file("a/b.npz") == Path("a/b.npz")
    assert source_file("package.module:load") is None


BATCHES = """data = np.load(FILE)
for start in range(0, 40, 8):
    yield {"image": data["image"][start:start + 8], "labels": data["labels"][start:start + 8]}"""


def test_optimize_with_a_loader(sample_models: Path, tmp_path: Path) -> None:
    data = sample_models / "fashion_mnist" / "eval.npz"
    spec = loader(tmp_path, BATCHES.replace("FILE", repr(str(data))))
    model = sample_models / "lenet_300_100" / "model.onnx"
    assert run(build_app(), ["optimize", str(model), "--eval", spec, "-o", str(tmp_path / "o.onnx"), "-q"]) == 0
    with np.load(data) as rows:
        np.savez(tmp_path / "part.npz", image=rows["image"][:40], labels=rows["labels"][:40])
    outcomes = [optimize(model, eval=source).report.outcome for source in (spec, tmp_path / "part.npz")]
    assert outcomes[0].original_quality.score == outcomes[1].original_quality.score


def test_the_result_does_not_replace_the_loader(sample_models: Path, tmp_path: Path) -> None:
    spec = loader(tmp_path, THREE)
    model = str(sample_models / "lenet_300_100" / "model.onnx")
    path = spec.removesuffix(":load")
    assert run(build_app(), ["optimize", model, "--calibration", spec, "-o", path, "--overwrite"]) == 2
    assert "def load" in Path(path).read_text()
