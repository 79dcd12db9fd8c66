"""Fitting one layer: sums of samples to fit on and of samples to judge by, and the change that is best on these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onnxcomp.errors import ModelError
from onnxcomp.passbase import Origin
from onnxcomp.passes.cleanup._graph import Names
from onnxcomp.statistics import draw

from .fit import Change, Sums, affine, least_squares, mean_shift
from .linear import Layer

__all__ = ["Fit"]

_DAMPINGS = (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 10.0)
_HELD_OUT = 4  # every so many runs one judges
_SAME = 1e-10  # of the power of the output: such an error is rounding


@dataclass(slots=True)
class Fit:
    """A layer that is being fitted.

    Attributes:
        layer: The layer.
        weight: Its weight now, [groups, outputs / groups, K].
        bias: Its bias now, [groups, outputs / groups]; None: there is no place for one.
        kept: What is left of the original's result, and of what is added to it: indices by axis.
        sums: Over the runs to fit on.
        judge: Over the runs that are held out.
    """

    layer: Layer
    weight: np.ndarray
    bias: np.ndarray | None
    kept: tuple[Mapping[int, np.ndarray], Mapping[int, np.ndarray]]
    sums: Sums
    judge: Sums
    runs: int = field(default=0)

    @classmethod
    def of(cls, layer: Layer, origin: Origin) -> "Fit":
        """Begin with a layer as it is."""
        weight = layer.weight()
        kept = tuple(
            {} if value is None else origin.kept.get(str(value.name), {}) for value in (layer.result, layer.skip)
        )
        sums = [Sums.empty(*weight.shape) for _ in range(2)]
        return cls(layer, weight, layer.bias(), (kept[0], kept[1]), sums[0], sums[1])

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
        layer = self.layer
        source = layer.prepared(found[layer.source])
        places = draw(layer.columns.count(source), most, rng)
        x = layer.columns.at(source, places)
        target = layer.outputs(_left(wanted[str(layer.result.name)], self.kept[0]), places)
        if layer.skip is not None:
            name, shape = str(layer.skip.name), _left(wanted[str(layer.result.name)], self.kept[0]).shape
            lost = _left(wanted[name], self.kept[1]) - found[name]
            target = target + layer.outputs(np.broadcast_to(lost, shape), places)
        now = np.matmul(x, self.weight.transpose(0, 2, 1).astype(np.float32))
        if self.bias is not None:
            now += self.bias[:, None, :].astype(np.float32)
        self.runs += 1
        sums = self.judge if self.runs % _HELD_OUT == 0 else self.sums
        try:
            sums.add(x, target - now, target)
        except ValueError as err:
            raise ModelError(f"what {layer.name} reads or gives is {err}") from err

    @property
    def exact(self) -> bool:
        """Whether the layer gives what it should as it is."""
        return bool((self.sums.rr + self.judge.rr).sum() <= _SAME * (self.sums.yy + self.judge.yy).sum())

    def best(self, method: Literal["least-squares", "bias", "affine"], damping: float) -> Change | None:
        """Return the change that is best on the runs that were held out; None: all make it worse."""
        options = list(self._options(method, damping))
        judge = self.judge if self.judge.count else self.sums
        errors = [judge.error(self._change(self.sums, *option)) for option in options]
        if not min(errors) < judge.error():
            return None
        self.sums += self.judge
        return self._change(self.sums, *options[int(np.argmin(errors))])

    def _options(self, method: str, damping: float) -> list[tuple[str, float]]:
        found = [("bias", 0.0)] if self.bias is not None else []
        if method != "bias":
            found.append(("affine", 0.0))
        if method == "least-squares":
            found += [(method, d) for d in ((damping,) if damping else _DAMPINGS)]
        return found

    def _change(self, sums: Sums, method: str, damping: float) -> Change:
        if method == "bias":
            return mean_shift(sums)
        if method == "affine":
            return affine(sums, self.weight, bias=self.bias is not None)
        return least_squares(sums, damping, bias=self.bias is not None)

    def apply(self, change: Change, names: Names) -> None:
        """Write the changed weights."""
        self.layer.write(self.weight + change.weight, None if self.bias is None else self.bias + change.bias, names)


def _left(values: np.ndarray, kept: Mapping[int, np.ndarray]) -> np.ndarray:
    for axis, places in kept.items():
        values = np.take(values, places, axis=axis)
    return values
