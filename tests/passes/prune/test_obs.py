"""The order in which channels go: its costs are those of the exact least-squares fit, step by step."""

import numpy as np
import pytest

from onnxcomp.passes.prune.obs import DAMPING, Reading, removal
from onnxcomp.thresholds import damped


def reading(rng: np.random.Generator, channels: int, *, each: int = 1, rows: int = 5, parts: int = 1) -> Reading:
    """Make a random reading with two columns of no channel, shuffled."""
    size = channels * each + 2
    vectors = rng.normal(size=(parts, 4 * size, size)) @ (rng.normal(size=(size, size)) * rng.uniform(size=(size, 1)))
    place = np.stack([rng.permutation([*np.repeat(np.arange(channels), each), -1, -1]) for _ in range(parts)])
    gram = vectors.transpose(0, 2, 1) @ vectors / vectors.shape[1]
    return Reading(gram, rng.normal(size=(parts, rows, size)), place)


def error(readings: list[Reading], gone: np.ndarray) -> float:
    """Solve for all weights that are left, in one go, and say what that loses."""
    total = 0.0
    for item in readings:
        energy = np.einsum("prk,pkl,prl->", item.rows, item.gram, item.rows)
        for gram, rows, place in zip(damped(item.gram, DAMPING), item.rows, item.place, strict=True):
            stay = ~np.isin(place, gone)
            fitted = np.zeros_like(rows)
            fitted[:, stay] = np.linalg.solve(gram[np.ix_(stay, stay)], (rows @ gram)[:, stay].T).T
            total += np.einsum("rk,kl,rl->", rows - fitted, gram, rows - fitted) / energy
    return total


@pytest.mark.parametrize(
    ("channels", "shapes"),
    [
        pytest.param(6, [{}], id="columns"),
        pytest.param(5, [{"each": 4, "rows": 40}], id="kernels"),
        pytest.param(4, [{"parts": 3}], id="grouped"),
        pytest.param(7, [{"each": 2}, {"rows": 30}], id="two readers"),
        pytest.param(70, [{}, {"each": 2}], id="many: most of the inverse is put off"),
    ],
)
def test_costs_add_up_to_the_error_of_the_fit_without_all_of_them(channels: int, shapes: list[dict[str, int]]) -> None:
    rng = np.random.default_rng(0)
    readings = [reading(rng, channels, **shape) for shape in shapes]
    found = removal(readings, channels)
    assert sorted(found.order.tolist()) == list(range(channels))
    assert (np.diff(found.error) >= 0).all()
    for count in {0, 1, channels // 2, channels - 1, channels}:
        assert found.error[count] == pytest.approx(error(readings, found.order[:count]), rel=1e-6)
        assert (np.flatnonzero(~found.kept(channels - count)) == np.sort(found.order[:count])).all()


def test_each_step_is_the_cheapest_one() -> None:
    readings = [reading(np.random.default_rng(1), 6, each=2), reading(np.random.default_rng(2), 6)]
    order = removal(readings, 6).order
    for step in range(5):
        costs = {c: error(readings, np.array([*order[:step], c])) for c in order[step:].tolist()}
        assert min(costs, key=costs.__getitem__) == order[step]


def test_what_several_nodes_read_costs_what_all_of_them_miss() -> None:
    one = reading(np.random.default_rng(5), 6)
    alone, shared = removal([one], 6), removal([one, one, one], 6)
    assert (shared.order == alone.order).all()
    assert shared.error == pytest.approx(3 * alone.error)


def test_where_much_is_put_off_little_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [reading(np.random.default_rng(3), 100, rows=50)]
    fast = removal(readings, 100)
    monkeypatch.setattr("onnxcomp.passes.prune.obs._FEW", 1000)
    assert fast.error[50] <= removal(readings, 100).error[50] * 1.05


def test_of_two_that_do_the_same_one_goes_for_nothing_and_the_other_does_not() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(4000, 40))
    vectors[:, 7] = 2 * vectors[:, 3]
    vectors[:, 11] = 0
    gram = vectors.T @ vectors / len(vectors)
    found = removal([Reading(gram[None], rng.normal(size=(1, 20, 40)), np.arange(40)[None])], 40)
    first = found.order[:2].tolist()
    assert 11 in first
    assert len({3, 7} & set(first)) == 1
    assert found.error[2] < 1e-3 < found.error[3]


def test_what_nobody_uses_costs_nothing() -> None:
    silent = Reading(np.zeros((1, 3, 3)), np.ones((1, 2, 3)), np.arange(3)[None])
    assert removal([silent], 3).error.tolist() == [0, 0, 0, 0]
