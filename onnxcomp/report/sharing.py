"""The report of `share`: what shares values, with how many bits, and what that changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.figures import bytes_text
from onnxcomp.report.made import TimedReport
from onnxcomp.report.sizes import StoredForm, size_lines
from onnxcomp.search import Quality

__all__ = ["ShareReport", "TriedBits", "TriedSparsity"]


@dataclass(frozen=True, slots=True)
class TriedBits:
    """One allocation of bits that was judged.

    Attributes:
        mean: Bits per weight, over all weights that may share.
        size: Of the model's file, bytes.
        quality: On the evaluation samples.
        objection: What it misses of the bounds; None: nothing.
    """

    mean: float
    size: int
    quality: Quality
    objection: str | None


@dataclass(frozen=True, slots=True)
class TriedSparsity:
    """One share of zeros that was judged, before values are shared.

    Attributes:
        sparsity: Share of the weights that are zero.
        quality: On the evaluation samples.
        objection: What it misses of the part of the bounds that is for zeros; None: nothing.
    """

    sparsity: float
    quality: Quality
    objection: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareReport(TimedReport):
    """Everything that one `share` did and measured; see `MadeReport` and `TimedReport`.

    Where bits are chosen, the gates are those that they were chosen by, with their defaults. Calibration samples tell
    what weights count; without them all count the same.

    Attributes:
        bits: Of the weights of each node, where they were chosen one by one.
        tried: The allocations that were judged, where they were.
        pruned: The shares of zeros that were judged, where they were chosen.
        sizes: The original, one with int8 weights and the result, each in several forms; empty: not asked for.
    """

    kind: ClassVar[str] = "share"

    bits: Mapping[str, float]
    tried: tuple[TriedBits, ...]
    pruned: tuple[TriedSparsity, ...] = ()
    sizes: tuple[StoredForm, ...] = ()

    @property
    def done(self) -> tuple[str, str]:
        """See `MadeReport.done`."""
        return "share", "weight sharing"

    def asked(self) -> Iterable[str]:
        """See `MadeReport.asked`."""
        settings = ", ".join(f"{name} = {value}" for name, value in self.settings.items() if name != "bits_of")
        chosen = ", bits chosen per weight" if self.bits else ""
        yield f" share   {settings or 'defaults'}{chosen}"
        if self.calibration:
            yield f" calibration  {self.calibration}"

    def details(self, *, verbose: bool) -> Iterable[str]:
        """See `MadeReport.details`."""
        for zeros in self.pruned:
            yield f" pruned  {zeros.sparsity:.0%} zeros: {zeros.objection or 'inside two thirds of the bounds'}"
        for one in self.tried:
            verdict = one.objection or "inside the bounds"
            yield f" tried   {one.mean:.2f} bits per weight, {bytes_text(one.size)}: {verdict}"
        if verbose:
            yield from (f"         {name}: {bits:g} bits" for name, bits in self.bits.items())
        if self.sizes:
            yield from ("", *size_lines(self.sizes))
