"""From figures to places on a drawing: linear scales with round ticks, and how figures are written beside them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "percent", "scale_of", "time_unit"]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale.

    Attributes:
        low: Value at the beginning.
        high: Value at the end.
        start: Place of the beginning.
        end: Place of the end; before `start` for an axis that goes up.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value; one beyond an end is put there."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values within the scale, about so many."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def text(self, tick: float, about: int = 5) -> str:
        """Write a tick with as many digits as tell it from its neighbours."""
        step = _round_step((self.high - self.low) / about)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return f"{tick:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def scale_of(
    values: Iterable[float], start: float, end: float, *, zero: bool = False, pad: float = 0.06, least: float = 1e-12
) -> Scale:
    """Return a scale that holds all values, with some room at both ends.

    Args:
        values: Finite ones count.
        start: Place of the beginning.
        end: Place of the end.
        zero: Whether it begins at 0.
        pad: Room, as a share of what the values span.
        least: What it spans at least.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = (0.0 if zero else min(known)), max(known)
    span = max(high - low, least, abs(high) * 1e-6)
    if not zero:  # what spans less than the least is in the middle
        low = (low + high - span) / 2
    return Scale(low if zero else low - pad * span, low + span * (1 + pad), start, end)


def percent(share: float) -> str:
    """Write a share as percent with as many digits as it is worth."""
    value = 100 * share
    if value == 0:
        return "0 %"
    digits = 0 if value >= 10 else 1 if value >= 1 else min(4, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f} %"


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit that a time is best told in: how many are in a second, and its name."""
    for factor, name in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return factor, name
    return 1e6, "µs"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-300)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
