"""E[x^2] of what layers read is the diagonal of their Gram matrices."""

from typing import Any

import numpy as np
import pytest

from onnxcomp.errors import DataError, ModelError
from onnxcomp.model import load
from onnxcomp.statistics import collect_grams, collect_squares, columns_of

TEXT = """g (float[N, 4, 6, 6] x) => (float[N, 8] y) {
    a = Conv <pads = [1, 1, 1, 1], group = 2> (x, w)
    b = GlobalAveragePool(a) c = Flatten(b) y = Gemm <transB = 1> (c, v) }"""


def model(parse: Any) -> Any:
    rng = np.random.default_rng(0)
    return load(parse(TEXT, {"w": rng.normal(size=(8, 2, 3, 3)), "v": rng.normal(size=(8, 8))}).SerializeToString())


def layers(of: Any) -> dict[str, Any]:
    found = {str(node.op_type): columns_of(node) for node in of.graph}
    return {name: columns for name, columns in found.items() if columns is not None}


def test_they_are_the_diagonal(parse: Any, samples: Any) -> None:
    of = model(parse)
    rng = np.random.default_rng(1)
    some = samples([{"x": rng.normal(size=(n, 4, 6, 6)).astype(np.float32)} for n in (1, 3)])
    found = collect_squares(of, some, layers(of))
    grams = dict(collect_grams(of, some, layers(of)))
    assert set(found) == {"Conv", "Gemm"}
    assert found["Conv"].shape == (2, 18)
    for name, squares in found.items():
        np.testing.assert_allclose(squares, np.diagonal(grams[name].moment, axis1=1, axis2=2), rtol=1e-5)


def test_few_positions(parse: Any, samples: Any) -> None:
    of = model(parse)
    some = samples([{"x": np.full((2, 4, 6, 6), 2, np.float32)}])
    inner = collect_squares(of, some, layers(of), positions=5)["Conv"]
    assert inner.shape == (2, 18)
    assert ((inner >= 0) & (inner <= 4)).all()


def test_nothing_asked_nothing_run(parse: Any, samples: Any) -> None:
    assert collect_squares(model(parse), samples([]), {}) == {}


def test_what_can_not_be_measured(parse: Any, samples: Any) -> None:
    of = model(parse)
    with pytest.raises(DataError, match="no samples"):
        collect_squares(of, samples([]), layers(of))
    broken = samples([{"x": np.full((1, 4, 6, 6), np.nan, np.float32)}])
    with pytest.raises(ModelError, match="x is not finite on calibration sample 0"):
        collect_squares(of, broken, layers(of))
