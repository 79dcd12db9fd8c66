"""Fitting one layer: sums of samples to fit on and of samples to judge by, and the change that is best on these."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxcomp.errors import ModelError
from onnxcomp.passbase import Origin
from onnxcomp.passes.cleanup._graph import Names

from .fit import Change, Sums, affine, least_squares, mean_shift
from .gates import Gates
from .linear import Kept, Layer

__all__ = ["SWEEPS", "Fit", "Method"]

Method = Literal["least-squares", "bias", "affine"]
SWEEPS = 4  # more over the samples at most, for layers with an activation that cuts off

_DAMPINGS = (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 10.0)
_HELD_OUT = 4  # every so many runs one judges
_WORTH = 0.995  # of the loss, which another sweep must come below
_SPARSE = 0.1  # of the weights are 0: somebody has pruned them, and a fit would not leave them 0
_SAME = 1e-10  # of the power of the output: such an error is rounding


@dataclass(slots=True, eq=False)
class Fit:
    """A layer that is being fitted.

    Attributes:
        layer: The layer.
        weight: Its weight now, [groups, outputs / groups, K].
        bias: Its bias now, [groups, outputs / groups]; None: there is no place for one.
        kept: What is left of the original's tensors.
        sums: Over the runs to fit on.
        judge: Over the runs that are held out.
        total: How many runs there are.
        runs: How many were added in this sweep.
        damping: That was best.
        change: What is best so far; None: nothing is better than the layer as it is.
        sweep: What is summed up where an activation cuts off what the layer gives.
    """

    layer: Layer | Gates
    weight: np.ndarray
    bias: np.ndarray | None
    kept: Kept
    sums: Sums
    judge: Sums
    total: int
    runs: int = 0
    damping: float = 0.0
    change: Change | None = None
    sweep: "_Sweep | None" = None

    @classmethod
    def of(cls, layer: Layer | Gates, origin: Origin, total: int) -> "Fit":
        """Begin with a layer as it is, to which so many runs will be added."""
        sums = [Sums.empty(*layer.size) for _ in range(2)]
        return cls(layer, layer.weight(), layer.bias(), origin.kept, sums[0], sums[1], total)

    def add(
        self, wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], *, most: int, rng: np.random.Generator
    ) -> None:
        """Add positions of one run.

        Args:
            wanted: Tensors of the original.
            found: Tensors of the smaller model.
            most: Positions at most.
            rng: Draws them.

        Raises:
            ModelError: A value is no number.
        """
        x, target, around = self.layer.vectors(wanted, found, self.kept, most, rng)
        if self.sweep is not None:
            self._sweep(self.sweep, x, target, around)
        else:
            r = target - around - self._given(x, None)
            for sums, part in zip((self.sums, self.judge), self._parts(x.shape[1]), strict=True):
                try:
                    sums.add(x[:, part], r[:, part], target[:, part])
                except ValueError as err:
                    raise ModelError(f"what {self.layer.name} reads or gives is {err}") from err
        self.runs += 1

    def _parts(self, count: int) -> tuple[slice, slice]:
        """Deal the positions of a run out: to fit on, to judge by; where there are few runs, some of each judge."""
        cut = count - count // _HELD_OUT
        if self.total >= _HELD_OUT:
            cut = 0 if self.runs % _HELD_OUT == _HELD_OUT - 1 else count
        return slice(0, cut), slice(cut, count)

    def _given(self, x: np.ndarray, change: Change | None) -> np.ndarray:
        """Return what the layer gives, as it is or changed, [groups, positions, outputs / groups]."""
        weight = self.weight if change is None else self.weight + change.weight
        result: np.ndarray = np.matmul(x, weight.transpose(0, 2, 1).astype(np.float32))
        if self.bias is not None:
            bias = self.bias if change is None else self.bias + change.bias
            result += bias[:, None, :].astype(np.float32)
        return result

    @property
    def exact(self) -> bool:
        """Whether the layer gives what it should as it is."""
        return bool((self.sums.rr + self.judge.rr).sum() <= _SAME * (self.sums.yy + self.judge.yy).sum())

    def solve(self, method: Method, damping: float) -> bool:
        """Choose the change that is best on the runs that were held out; say whether another sweep is worth while.

        There is none where all make it worse. In a sweep the same runs are added again.
        """
        self.runs = 0
        if self.sweep is not None:
            return self._again(self.sweep)
        if self.exact:
            return False
        options = list(self._options(method, damping))
        judge = self.judge if self.judge.count else self.sums
        errors = [judge.error(self._change(self.sums, *option)) for option in options]
        best = options[int(np.argmin(errors))]
        if not min(errors) < judge.error():
            return False
        self.change = self._change(self.sums + self.judge, *best)
        if best[0] != "least-squares" or self.layer.bounds == (-math.inf, math.inf) or not self.judge.count:
            return False
        self.damping = best[1]
        self.sweep = _Sweep(self._change(self.sums, *best), self.change, self.weight.shape)
        return True

    def _again(self, sweep: "_Sweep") -> bool:
        """Keep the change that the last sweep has judged, if it was better, and solve for the targets it left."""
        if not sweep.loss < sweep.best * _WORTH:
            return False
        self.change = sweep.final
        trial, final = (
            least_squares(sums.against(sweep.rx[place], sweep.r[place]), self.damping, bias=self.bias is not None)
            for place, sums in enumerate((self.sums, self.sums + self.judge))
        )
        self.sweep = _Sweep(trial, final, self.weight.shape, best=sweep.loss)
        return True

    def _sweep(self, sweep: "_Sweep", x: np.ndarray, target: np.ndarray, around: np.ndarray) -> None:
        """Add positions of one run, with the targets that the activation leaves."""
        fitted, judged = self._parts(x.shape[1])
        now = around + self._given(x, None)
        for place, (change, part) in enumerate(((sweep.trial, fitted), (sweep.final, slice(None)))):
            found = around + self._given(x, change)
            if place == 0:
                miss = np.clip(target, *self.layer.bounds) - np.clip(found, *self.layer.bounds)
                sweep.loss += float(np.square(miss[:, judged]).sum(dtype=np.float64))
            r = (_reachable(target, found, self.layer.bounds) - now)[:, part]
            sweep.rx[place] += np.matmul(r.transpose(0, 2, 1), x[:, part])
            sweep.r[place] += r.sum(axis=1, dtype=np.float64)

    def _options(self, method: str, damping: float) -> list[tuple[str, float]]:
        found = [("bias", 0.0)] if self.bias is not None else []
        if method != "bias":
            found.append(("affine", 0.0))
        if method == "least-squares" and (self.weight == 0).mean() < _SPARSE:
            found += [(method, d) for d in ((damping,) if damping else _DAMPINGS)]
        return found

    def _change(self, sums: Sums, method: str, damping: float) -> Change:
        if method == "bias":
            return mean_shift(sums)
        if method == "affine":
            return affine(sums, self.weight, bias=self.bias is not None)
        return least_squares(sums, damping, bias=self.bias is not None)

    def apply(self, names: Names) -> None:
        """Write the changed weights."""
        change = self.change
        assert change is not None
        self.layer.write(self.weight + change.weight, None if self.bias is None else self.bias + change.bias, names)


class _Sweep:
    """Sums of one more run over the samples, with targets that depend on what the layer gives.

    Args:
        trial: The change fitted without the runs that are held out.
        final: The change fitted on all.
        shape: Of the weight.
        best: The least loss so far on the runs that are held out.
    """

    def __init__(self, trial: Change, final: Change, shape: tuple[int, ...], best: float = math.inf) -> None:
        self.trial = trial
        self.final = final
        self.best = best
        self.loss = 0.0
        self.rx = [np.zeros(shape), np.zeros(shape)]
        self.r = [np.zeros(shape[:2]), np.zeros(shape[:2])]


def _reachable(target: np.ndarray, found: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Return targets that cost nothing where both are cut off by an activation: there it is what was found."""
    low, high = bounds
    below = np.where(target <= low, np.minimum(found, low), target)
    return np.where(target >= high, np.maximum(found, high), below)
