"""Sweeps and streams of `bench`: what is timed at which sizes, and what is refused."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.api import benchmark, streaming
from onnxcomp.api.streaming import alike
from onnxcomp.api.sweeping import Place, places_of, resized
from onnxcomp.cli.app import build_app, run
from onnxcomp.cli.sweeps import parse_sweeps
from onnxcomp.errors import DataError, UsageError
from onnxcomp.measure import Comparison, Memory, Ratio, Timing
from onnxcomp.model import load

Parse = Callable[..., onnx.ModelProto]
TEXT = (
    "g (int64[batch_size, sequence] ids, float[batch_size, sequence, 2] mask, float[1] scale) "
    "=> (float[batch_size, sequence, 2] y) { e = Gather(table, ids) m = Mul(e, mask) y = Mul(m, scale) }"
)


@pytest.fixture
def text(parse: Parse, tmp_path: Path) -> str:
    path = tmp_path / "text.onnx"
    path.write_bytes(parse(TEXT, {"table": np.ones((5, 2))}).SerializeToString())
    return str(path)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up times; the contenders run once, so that what goes in is tried."""

    def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
        for contender in contenders.values():
            contender()
        timings = tuple(Timing(name, 0.002, 0.002, 0.003, 1, 0.001) for name in contenders)
        ratios = {name: Ratio(0.5, 0.4, 0.625) for name in contenders if name != baseline}
        return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=True, warnings=("warm",))

    monkeypatch.setattr(benchmark, "interleave", interleave)
    monkeypatch.setattr(streaming, "interleave", interleave)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_, **__: Memory(2, 1))


def test_every_combination_is_timed(text: str, times: None) -> None:
    found = onnxcomp.bench(text, text, sweep={"batch": [1, 4], "sequence": [3, 8]})
    assert [dict(point.sizes) for point in found.sweep] == [
        {"batch": batch, "sequence": sequence} for batch in (1, 4) for sequence in (3, 8)
    ]
    last = found.sweep[-1]
    assert last.shapes == {"ids": (4, 8), "mask": (4, 8, 2), "scale": (1,)}
    assert [one.model for one in last.models] == [text, text]
    assert last.models[0].ratio is None
    assert last.models[1].ratio == Ratio(0.5, 0.4, 0.625)
    assert last.models[0].throughput == pytest.approx(last.rows / 0.002)
    assert last.warnings == ("warm",)
    assert any("at 4 of the 4 sizes the machine was not steady" in note for note in found.notes)
    assert "sequence" in found.render()
    assert ">sequence<" in found.html()


def test_rows_are_counted_where_all_inputs_have_them(parse: Parse, times: None) -> None:
    model = parse("g (float[N, 3] x, float[N] w) => (float[N, 3] y, float[N] z) { y = Neg(x) z = Neg(w) }")
    (point,) = onnxcomp.bench(model.SerializeToString(), sweep={"N": [6]}).sweep
    assert point.rows == 6
    assert "at N 6: warm" in onnxcomp.bench(model.SerializeToString(), sweep={"N": [6]}).notes
    assert point.models[0].per_row == pytest.approx(0.002 / 6)


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ("sequence", {("ids", 1), ("mask", 1)}),
        ("seq", {("ids", 1), ("mask", 1)}),
        ("batch", {("ids", 0), ("mask", 0)}),
        ("mask.1", {("mask", 1)}),
    ],
)
def test_names_of_dimensions(text: str, dimension: str, expected: set[tuple[str, int]]) -> None:
    found = places_of([("text", load(text))], dimension)
    assert {(place.input, place.axis) for place in found} == expected


def test_batch_is_the_first_axis_where_it_has_another_name(parse: Parse) -> None:
    model = load(parse("g (float[N, M] x, float[?, M] w) => (float[N, M] y) { y = Neg(x) }").SerializeToString())
    assert set(places_of([("m", model)], "batch")) == {Place("x", 0), Place("w", 0)}


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"width": [1]}, r"no open dimension 'width'.*batch_size \(ids.0, mask.0\), sequence \(ids.1, mask.1\)"),
        ({"scale.0": [2]}, "no open dimension 'scale.0'"),
        ({"batch": [1], "batch_size": [2]}, "the same"),
        ({"batch": [0]}, "1 or more"),
        ({"batch": []}, "1 or more"),
        ({"batch": [2, 2]}, "each once"),
        ({"batch": range(1, 80)}, "79 points"),
    ],
)
def test_sweeps_that_make_no_sense(text: str, sweep: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        onnxcomp.bench(text, sweep=sweep)


def test_a_fixed_dimension_is_named(parse: Parse) -> None:
    fixed = parse("g (float[1, 3] x) => (float[1, 3] y) { y = Neg(x) }").SerializeToString()
    free = parse("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }").SerializeToString()
    with pytest.raises(UsageError, match=r"all its inputs have fixed shapes \(x \[1, 3\]\)"):
        onnxcomp.bench(fixed, sweep={"batch": [1, 2]})
    with pytest.raises(UsageError, match="model 2 can't be swept over 'N': it has axis 0 of x fixed"):
        onnxcomp.bench(free, fixed, sweep={"N": [1, 2]})


def test_a_size_that_the_model_does_not_take_is_named(parse: Parse) -> None:
    text = "g (float[N] x) => (float[2, M] y) { s = Constant <value_ints = [2, 3]> () y = Reshape(x, s) }"
    model = parse(text).SerializeToString()
    with pytest.raises(onnxcomp.OnnxCompError, match="at N 7: "):
        onnxcomp.bench(model, data=[{"x": np.ones(6, np.float32)}], sweep={"N": [7]})


def test_values_are_repeated_or_cut() -> None:
    feed = {"x": np.arange(6).reshape(2, 3), "n": np.array(1)}
    found = resized(feed, {Place("x", 0): 3, Place("x", 1): 2})
    np.testing.assert_array_equal(found["x"], [[0, 1], [3, 4], [0, 1]])
    assert found["n"] is feed["n"]
    with pytest.raises(DataError, match="nothing along axis 0 of x"):
        resized({"x": np.ones((0, 2))}, {Place("x", 0): 2})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["batch=1,2, 4"], {"batch": [1, 2, 4]}),
        (["sequence=16..128"], {"sequence": [16, 32, 64, 128]}),
        (["s=16..100"], {"s": [16, 32, 64, 100]}),
        (["s=16..64:16", "a.0=3"], {"s": [16, 32, 48, 64], "a.0": [3]}),
        (["s=1,8..16"], {"s": [1, 8, 16]}),
    ],
)
def test_sweeps_as_they_are_written(texts: list[str], expected: Mapping[str, list[int]]) -> None:
    assert parse_sweeps(texts) == expected


@pytest.mark.parametrize(
    "text", ["batch", "=4", "batch=", "batch=x", "batch=-1", "batch=8..4", "batch=1..9:0", "a=1.5"]
)
def test_sweeps_that_are_not_written_so(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(build_app(), ["bench", "model.onnx", "--sweep", text]) == 2
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(UsageError, match="--sweep"):
        parse_sweeps([text])


def test_the_streams_of_a_real_run(sample_models: Path) -> None:
    model = sample_models / "lenet5" / "model.onnx"
    found = onnxcomp.bench(model, model, batch=2, seconds=0.3, streams=2)
    assert found.streams is not None
    assert (found.streams.streams, found.streams.rows) == (2, 2)
    first, second = found.streams.models
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.low <= second.ratio.ratio <= second.ratio.high
    for one in (first, second):
        assert 0 <= one.low <= one.rate <= one.high
        assert one.windows > 0
    assert "2 streams" in found.render()
    assert "2 streams" in found.html()


def test_the_ratio_of_rates_is_that_of_windows_with_as_many_runs(text: str, times: None) -> None:
    """Windows of both take as long, one has so many more runs: what counts is the time of a run."""
    found = onnxcomp.bench(text, text, streams=1).streams
    assert found is not None
    second = found.models[1].ratio
    assert second is not None
    assert second.low < second.ratio < second.high
    assert second.ratio / second.low == pytest.approx(1.25)
    assert math.isfinite(second.high)


def test_streams_get_runs_of_one_shape() -> None:
    feeds = [{"x": np.full(shape, i)} for i, shape in enumerate([(2,), (3,), (2,)])]
    assert [int(feed["x"][0]) for feed in alike(feeds, 5)] == [0, 2, 0, 2, 0]


def test_no_streams(text: str) -> None:
    with pytest.raises(UsageError, match="streams"):
        onnxcomp.bench(text, streams=0)
