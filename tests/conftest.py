"""Fixtures for all tests: models written as text, samples held in lists."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import numpy_helper

from onnxcomp.data import Feed, Samples

settings.register_profile("any machine", deadline=None)  # no test asserts a time
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture(autouse=True, scope="session")
def _short_looks() -> Iterator[None]:
    """Take times as they come: tests run side by side, where none gets exact however long it is looked at."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"_FURTHER": 0, "_ROUGH": (0.05, 2.0), "_AMONG": (0.01, 2.0), "_EXACT": (0.01, 5.0)}.items():
            patched.setattr(f"onnxcomp.search.race.{name}", value)
        yield


@pytest.fixture(autouse=True)
def _untraced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure no coverage of what is marked so: other tests run the same lines, and it takes two thirds of the time."""
    tracer = sys.gettrace()
    if request.node.get_closest_marker("untraced") is None or tracer is None:
        yield
        return
    sys.settrace(None)
    yield
    sys.settrace(tracer)


class ListSamples(Samples):
    """Samples from memory that count how often they are read from the start."""

    def __init__(self, feeds: Sequence[Feed], labels: Sequence[Any] | None = None) -> None:
        self.feeds = list(feeds)
        self.readings = 0
        self._labels = labels

    def __iter__(self) -> Iterator[Feed]:
        self.readings += 1
        yield from self.feeds

    @property
    def length(self) -> int:
        return len(self.feeds)

    @property
    def description(self) -> str:
        return "samples from memory"

    def labels(self) -> list[np.ndarray] | None:
        return None if self._labels is None else [np.asarray(label) for label in self._labels]


def _parse(text: str, weights: Mapping[str, Any] | None = None, *, opset: int = 17) -> onnx.ModelProto:
    """Parse ``onnx.parser`` graph text; weights become initializers (float64 arrays become float32)."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> {text}')
    for name, value in (weights or {}).items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


@pytest.fixture(scope="session")
def parse() -> Callable[..., onnx.ModelProto]:
    return _parse


@pytest.fixture(scope="session")
def samples() -> type[ListSamples]:
    return ListSamples


@pytest.fixture(scope="session")
def sample_models() -> Path:
    return Path(__file__).parents[1] / "sample_models"


@pytest.fixture(scope="session")
def data(sample_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """100 labelled images for the model of ``resnet``, and 20 to calibrate on."""
    folder = tmp_path_factory.mktemp("data")
    with np.load(sample_models / "fashion_mnist" / "eval.npz") as rows:
        np.savez(folder / "eval.npz", image=rows["image"][:100], labels=rows["labels"][:100])
    with np.load(sample_models / "fashion_mnist" / "calibration.npz") as rows:
        np.savez(folder / "calibration.npz", image=rows["image"][:20])
    return {"calibration": folder / "calibration.npz", "eval": folder / "eval.npz"}


@pytest.fixture
def resnet(sample_models: Path, tmp_path: Path) -> Path:
    """A sample model in a folder of its own."""
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    shutil.copyfile(sample_models / "resnet8" / "model.onnx", path)
    return path
