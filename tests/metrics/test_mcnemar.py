"""McNemar's exact test against published and counted values."""

import numpy as np
import pytest

from onnxcomp.metrics import mcnemar


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    reference = [True] * both + [False] * gained + [True] * lost + [False] * neither
    candidate = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return np.array(reference), np.array(candidate)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (2, 12, 212 / 16384)],
)
def test_p_values(gained: int, lost: int, p: float) -> None:
    found = mcnemar(*answers(20, gained, lost, 7))
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p_value == pytest.approx(p)


def test_many_answers() -> None:
    assert mcnemar(*answers(0, 3000, 3300, 0)).p_value == pytest.approx(0.000163, rel=0.02)
