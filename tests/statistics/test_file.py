"""Statistics as a file: what is read is what was written, and files of unknown hands are refused, not believed."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.errors import DataError, OutputError, PassError
from onnxcomp.model import fingerprint, load
from onnxcomp.statistics import Range, RangeStore, Statistics, float_tensors
from onnxcomp.thresholds import METHODS

Parse = Callable[..., onnx.ModelProto]
BODY = "g (float[N] x, int64[N] i) => (float[N] y) { t = Neg(x)  c = Cast<to=1>(i)  u = Add(t, c)  y = Abs(u) }"


def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(size=n).astype(np.float32), "i": rng.integers(0, 9, n).astype(np.int64)} for n in (3, 7, 5)
    ]


@pytest.fixture
def model(parse: Parse) -> Any:
    return load(parse(BODY).SerializeToString())


def measured(model: Any, data: Any, names: list[str]) -> Statistics:
    """Return statistics of some tensors."""
    store = RangeStore(model, data)
    store.histograms(names)
    return Statistics(fingerprint(model), data.description, len(data.feeds), store.known, {"onnxcomp": "0"}, "today")


@pytest.fixture
def statistics(model: Any, samples: Any) -> Statistics:
    return measured(model, samples(feeds()), float_tensors(model))


def test_float_tensors(model: Any) -> None:
    assert float_tensors(model) == ["x", "t", "c", "u", "y"]


def test_reads_what_it_wrote(statistics: Statistics, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    statistics.save(path)
    found = Statistics.load(path)
    assert list(tmp_path.iterdir()) == [path]
    assert (found.model, found.samples, found.runs) == (statistics.model, "samples from memory", 3)
    assert (found.versions, found.created) == ({"onnxcomp": "0"}, "today")
    assert list(found.histograms) == list(statistics.histograms) == ["x", "t", "c", "u", "y"]
    for name, histogram in found.histograms.items():
        before = statistics.histograms[name]
        np.testing.assert_array_equal(histogram.counts, before.counts)
        assert histogram.counts.sum() == 15
        for part in ("start", "width", "extremes", "average"):
            assert getattr(histogram, part) == getattr(before, part)


def test_a_store_takes_them_instead_of_samples(model: Any, statistics: Statistics, samples: Any) -> None:
    direct, known = RangeStore(model, samples(feeds())), statistics.store(model)
    direct.histograms(float_tensors(model))
    for method in METHODS:
        assert known.clipped(["t", "u"], method) == direct.clipped(["t", "u"], method)


def test_what_they_lack_is_measured_or_refused(model: Any, samples: Any) -> None:
    partial = measured(model, samples(feeds()), ["t"])
    with pytest.raises(PassError, match="lack tensor u"):
        partial.store(model).get(["t", "u"])
    data = samples(feeds())
    store = partial.store(model, data)
    assert store.get(["t", "u"]) == RangeStore(model, samples(feeds())).get(["t", "u"])
    assert data.readings == 1


def test_they_are_for_one_model_alone(parse: Parse, statistics: Statistics) -> None:
    other = load(parse(BODY.replace("Neg", "Sign")).SerializeToString())
    with pytest.raises(DataError, match="another model") as caught:
        statistics.store(other)
    assert "calibrate" in str(caught.value.hint)


def test_metadata_makes_no_other_model(parse: Parse, statistics: Statistics) -> None:
    described = load(parse(BODY).SerializeToString())
    described.metadata_props["author"] = "somebody"
    assert statistics.store(described).get(["t"])


def test_infinite_bounds_survive(parse: Parse, samples: Any, tmp_path: Path) -> None:
    model = load(parse("g (float[N] x) => (float[N] y) { t = Neg(x) y = Abs(t) }").SerializeToString())
    found = measured(model, samples([{"x": np.array([1, np.inf], np.float32)}]), ["t"])
    found.save(tmp_path / "s.npz")
    assert Statistics.load(tmp_path / "s.npz").histograms["t"].extremes == Range(-np.inf, -1)


def test_a_folder_that_is_not_there(statistics: Statistics, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        statistics.save(tmp_path / "nowhere" / "s.npz")


def arrays(statistics: Statistics, folder: Path) -> dict[str, np.ndarray]:
    statistics.save(folder / "good.npz")
    with np.load(folder / "good.npz") as file:
        return dict(file)


def header(**changes: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def spoil(found: dict[str, np.ndarray]) -> None:
        text = json.loads(found["header"].tobytes()) | changes
        found["header"] = np.frombuffer(json.dumps(text).encode(), np.uint8)

    return spoil


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def spoil(found: dict[str, np.ndarray]) -> None:
        found[name] = change(found[name])

    return spoil


def _with(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


SPOILT: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "an array is missing": (lambda found: found.pop("bins"), "no statistics file"),
    "samples": (lambda found: (found.clear(), found.update(image=np.zeros(3))), "no statistics file"),
    "another kind": (header(kind="report"), "no statistics file"),
    "another version": (header(schema_version=2), "schema_version"),
    "no fingerprint": (header(model=None), "'model'"),
    "runs are text": (header(runs="3"), "'runs'"),
    "names are numbers": (header(tensors=[1, 2, 3, 4, 5]), "names"),
    "a name twice": (header(tensors=["x", "x", "c", "u", "y"]), "names"),
    "too few names": (header(tensors=["x"]), "extremes is"),
    "very many names": (header(tensors=[str(i) for i in range(20_001)]), "20001 tensors"),
    "no JSON": (put("header", lambda _: np.frombuffer(b"{", np.uint8)), "no JSON"),
    "deep JSON": (put("header", lambda _: np.frombuffer(b"[" * 100_000, np.uint8)), "no JSON"),
    "a list": (put("header", lambda _: np.frombuffer(b"[]", np.uint8)), "no statistics file"),
    "header of another type": (put("header", lambda a: a.astype(np.int64)), "no statistics file"),
    "NaN": (put("extremes", lambda a: _with(a, (0, 0), np.nan)), "not possible"),
    "bounds swapped": (put("extremes", lambda a: a[:, ::-1]), "not possible"),
    "bounds of another type": (put("extremes", lambda a: a.astype(np.float16)), "extremes is float16"),
    "bounds outside the bins": (put("extremes", lambda a: _with(a, (0, 1), 1e9)), "not possible"),
    "average is NaN": (put("averages", lambda a: _with(a, (0, 1), np.nan)), "not possible"),
    "average outside": (put("averages", lambda a: _with(a, (0, 1), 1e9)), "not possible"),
    "bins without width": (put("bins", lambda a: _with(a, (0, 1), 0)), "not possible"),
    "bins of infinite width": (put("bins", lambda a: _with(a, (0, 1), np.inf)), "not possible"),
    "bins from nowhere": (put("bins", lambda a: _with(a, (0, 0), np.nan)), "not possible"),
    "no bins": (put("lengths", lambda a: _with(a, 0, 0)), "number of bins"),
    "too many bins": (put("lengths", lambda a: _with(a, 0, 1 << 40)), "number of bins"),
    "too few counts": (put("counts", lambda a: a[:-1]), "counts is"),
    "negative counts": (put("counts", lambda a: _with(a, 0, -1)), "not possible"),
    "no counts at all": (put("counts", np.zeros_like), "not possible"),
    "counts whose sum overflows": (put("counts", lambda a: _with(a, 0, 2**62)), "not possible"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files(name: str, statistics: Statistics, tmp_path: Path) -> None:
    spoil, says = SPOILT[name]
    found = arrays(statistics, tmp_path)
    spoil(found)
    np.savez(tmp_path / "bad.npz", **found)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=says) as caught:
        Statistics.load(tmp_path / "bad.npz")
    assert caught.value.exit_code == 2


def test_nothing_is_unpickled(statistics: Statistics, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path, "sprung").touch, ())

    found = arrays(statistics, tmp_path)
    found["lengths"] = np.array([Trap()] * 5, object)
    np.savez(tmp_path / "bad.npz", **found)  # type: ignore[arg-type]
    assert pickle.dumps(Trap())
    with pytest.raises(DataError, match="Python objects"):
        Statistics.load(tmp_path / "bad.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_claim_of_endless_memory(statistics: Statistics, tmp_path: Path) -> None:
    found = arrays(statistics, tmp_path)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, array in found.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array)
            text = content.getvalue()
            if name == "counts":
                claim = f"({array.size},), }}".encode()
                assert claim + b"   " in text
                text = text.replace(claim + b"   ", claim.replace(b",", b"000,", 1), 1)
            archive.writestr(f"{name}.npy", text)
    with pytest.raises(DataError, match="claims"):
        Statistics.load(tmp_path / "bad.npz")


def test_every_truncation_is_refused(statistics: Statistics, tmp_path: Path) -> None:
    statistics.save(tmp_path / "good.npz")
    content = (tmp_path / "good.npz").read_bytes()
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        (tmp_path / "bad.npz").write_bytes(content[:length])
        with pytest.raises(DataError):
            Statistics.load(tmp_path / "bad.npz")
