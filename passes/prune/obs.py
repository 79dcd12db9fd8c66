"""The order in which channels go so that what reads them changes least, with the error of every step (OBS).

A reader computes ``y = W x``, and ``H = E[x x^T] + lambda I`` tells what a change of W costs: ``tr(D H D^T)``. Without
the columns ``c`` of one channel, and with all others moved to make up for it, that is

    s_c = tr(W_c [(H^-1)_cc]^-1 W_c^T),    W -= W_c [(H^-1)_cc]^-1 (H^-1)_{c,:},

and H^-1 loses row and column c: ``H^-1 -= (H^-1)_{:,c} [(H^-1)_cc]^-1 (H^-1)_{c,:}``. The cheapest channel goes, and so
on: the costs add up to the exact error of the least-squares fit without all of them. Channels that several nodes read
cost the sum of what they cost there, each as a share of what the node gives: so groups compare. What is missing from a
residual stream harms every branch that reads it, and what is missing inside a branch only that one.

Where there are many, only a part of the inverse is brought up to date after each channel: that of the cheapest few,
among which the next ones are found; the rest follows for several at once, which takes the time of a matrix product.

Source: Hassibi & Stork 1993 ("Second order derivatives for network pruning: Optimal Brain Surgeon"); for channels
Kurtic et al. 2023 ("ZipLM", eq. 3-5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular

from onnxcomp.thresholds import damped

__all__ = ["DAMPING", "Curve", "Reading", "ranked", "removal"]

DAMPING = 1e-3  # lambda, as a share of the mean of the diagonal of E[x x^T]
_AT_ONCE = 16  # one in so many of the channels that are left goes before the whole inverse is brought up to date
_FEW = 32  # channels among which the cheapest one is looked for; where there are no more, nothing is put off
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How a node reads the channels of a group.

    Attributes:
        gram: E[x x^T] of the vectors that it reads, [parts, K, K]; parts (of a grouped convolution) do not mix.
        rows: What they are multiplied with, [parts, R, K].
        place: Which channel a column belongs to, [parts, K]; -1: to none of the group, it always stays.
    """

    gram: _Floats
    rows: _Floats
    place: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The order in which the channels of a group go, and what that costs.

    Attributes:
        order: Numbers of the channels, the one that goes first at the front, [channels].
        error: Cumulative, after 0, 1, 2... of them went, [channels + 1]; 1 is all that one reader gives.
    """

    order: npt.NDArray[np.int64]
    error: _Floats

    def kept(self, count: int) -> npt.NDArray[np.bool_]:
        """Return a mask of the ``count`` channels that go last, [channels]."""
        mask = np.zeros(self.order.size, np.bool_)
        mask[self.order[self.order.size - count :]] = True
        return mask


def removal(readings: Sequence[Reading], channels: int, *, damping: float = DAMPING) -> Curve:
    """Return the order in which the channels of a group go.

    Args:
        readings: How each node reads them.
        channels: How many there are.
        damping: See `DAMPING`.
    """
    systems = [system for reading in readings for system in _systems(reading, channels, damping)]
    order: list[int] = []
    costs: list[float] = []
    alive = np.ones(channels, np.bool_)
    while alive.any():
        live = np.flatnonzero(alive)
        count = live.size if live.size <= _FEW else max(1, live.size // _AT_ONCE)
        chosen = live
        if live.size > _FEW:
            chosen = live[np.argsort(_scores(systems)[live], kind="stable")[: max(2 * count, _FEW)]]
        few = [system.restricted(chosen) for system in systems]
        open_ = np.zeros(channels, np.bool_)
        open_[chosen] = True
        for _ in range(count):
            scores = np.where(open_, _scores(few), np.inf)
            best = int(np.argmin(scores))
            order.append(best)
            costs.append(float(scores[best]))
            open_[best] = alive[best] = False
            few = [system.without(np.array([best])) for system in few]
        if alive.any():
            systems = [system.without(np.array(order[-count:])) for system in systems]
    return Curve(np.array(order, np.int64), np.concatenate([[0.0], np.cumsum(np.maximum(costs, 0.0))]))


def ranked(scores: np.ndarray) -> Curve:
    """Return the order of channels by how much they matter, [channels]; of equal ones the last go first.

    The error is the share of all that matters.
    """
    order = np.argsort(-scores, kind="stable")[::-1]
    total = np.cumsum(np.maximum(scores[order], 0.0), dtype=np.float64)
    return Curve(order, np.concatenate([[0.0], total / max(float(total[-1]), 1e-12)]))


def _systems(reading: Reading, channels: int, damping: float) -> list["_System"]:
    """Set up the parts of a reading: each a problem of its own, all shares of one output."""
    energy = float(np.einsum("prk,prk->", reading.rows @ reading.gram, reading.rows))
    if energy <= 0:
        return []
    found = []
    for gram, rows, place in zip(damped(reading.gram, damping), reading.rows, reading.place, strict=True):
        few = rows if len(rows) <= len(gram) else np.linalg.qr(rows, mode="r")  # only W^T W matters
        inverse = cho_solve((cholesky(gram, lower=True), True), np.eye(len(gram)))
        found.append(_System((inverse + inverse.T) / 2, few / np.sqrt(energy), place, channels))
    return found


def _scores(systems: Sequence["_System"]) -> _Floats:
    """Return what each channel costs, [channels]; 0 where nobody reads it."""
    total: _Floats = np.sum([system.scores() for system in systems], axis=0) if systems else np.zeros(())
    return total


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """One least-squares problem: inverse [K, K], rows [R, K], place [K]; see `Reading`."""

    inverse: _Floats
    rows: _Floats
    place: npt.NDArray[np.int64]
    channels: int

    def scores(self) -> _Floats:
        found = np.zeros(self.channels)
        owners, counts = np.unique(self.place[self.place >= 0], return_counts=True)
        columns = np.argsort(self.place, kind="stable")[(self.place < 0).sum() :]  # by channel
        starts = np.cumsum(counts) - counts
        for size in np.unique(counts):
            alike = counts == size
            blocks = columns[starts[alike][:, None] + np.arange(size)]  # [channels, size]
            inner = self.inverse[blocks[:, :, None], blocks[:, None, :]]
            weights = self.rows.T[blocks]  # [channels, size, R]
            if size == 1:
                found[owners[alike]] = np.square(weights).sum(axis=(1, 2)) / inner[:, 0, 0]
            else:
                squares = weights @ weights.transpose(0, 2, 1)
                found[owners[alike]] = np.trace(np.linalg.solve(inner, squares), axis1=1, axis2=2)
        return found

    def restricted(self, chosen: npt.NDArray[np.int64]) -> "_System":
        """Return all that is to be known to remove some of these channels, one after the other."""
        mine = np.flatnonzero(np.isin(self.place, chosen))
        return _System(self.inverse[np.ix_(mine, mine)], self.rows[:, mine], self.place[mine], self.channels)

    def without(self, gone: npt.NDArray[np.int64]) -> "_System":
        """Remove channels; all other columns make up for them."""
        out = np.isin(self.place, gone)
        if not out.any():
            return self
        stay = ~out
        factor = cholesky(self.inverse[np.ix_(out, out)], lower=True)
        across = solve_triangular(factor, self.inverse[np.ix_(out, stay)], lower=True)  # [gone, stay]
        weights = solve_triangular(factor, self.rows[:, out].T, lower=True)  # [gone, R]
        return _System(
            self.inverse[np.ix_(stay, stay)] - across.T @ across,
            self.rows[:, stay] - weights.T @ across,
            self.place[stay],
            self.channels,
        )
