from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from onnxcomp.thresholds import Grid
from onnxcomp.thresholds.aciq import aciq, gauss_constant, laplace_constant


def test_the_constants_of_the_paper() -> None:
    bits = (2, 3, 4, 8, 9)
    assert [laplace_constant(n) for n in bits] == pytest.approx([2.83, 3.89, 5.03, 9.897, 11.163], abs=1e-2)
    assert [gauss_constant(n) for n in bits] == pytest.approx([1.71, 2.15, 2.55, 3.924, 4.216], abs=1e-2)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("kind", "constant"), [("gauss", gauss_constant), ("laplace", laplace_constant)])
def test_recovers_what_was_drawn(lab: SimpleNamespace, bits: int, kind: str, constant: Callable[[int], float]) -> None:
    values = lab.draw(kind, 1_000_000)
    found = aciq(lab.histogram(3 * values), Grid(bits))
    assert found.high == pytest.approx(3 * min(constant(bits), values.max()), rel=0.01)
    one_sided = aciq(lab.histogram(values.clip(0)), Grid(bits))
    assert one_sided.low == 0
    assert one_sided.high == pytest.approx(min(constant(bits + 1), values.max()), rel=0.01)


def test_is_centered_on_the_mean(lab: SimpleNamespace) -> None:
    values = lab.draw("gauss", 1_000_000) + 1
    found = aciq(lab.histogram(values), Grid(4))
    assert (found.low + found.high) / 2 == pytest.approx(1, abs=0.01)
    both = aciq(lab.histogram(values), Grid(4, symmetric=True))
    assert both.high == pytest.approx(1 + gauss_constant(4), rel=0.01)


def test_negative_tensors_are_the_mirror_image(lab: SimpleNamespace) -> None:
    values = lab.draw("relu", 100_000)
    up, down = (aciq(lab.histogram(sign * values), Grid(4)) for sign in (1, -1))
    assert (down.high, down.low) == pytest.approx((-up.low, -up.high), rel=1e-3)


@pytest.mark.parametrize("kind", ["gauss", "laplace"])
def test_the_closer_fit_is_chosen(lab: SimpleNamespace, kind: str) -> None:
    histogram = lab.histogram(lab.draw(kind, 100_000))
    assert aciq(histogram, Grid(4)) == aciq(histogram, Grid(4), kind)  # type: ignore[arg-type]
    assert np.ptp([aciq(histogram, Grid(4), fit).high for fit in ("gauss", "laplace")]) > 0.1  # type: ignore[arg-type]
