"""The report of `prune`: what was removed, what stays and why, and what that changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.figures import count_text, table
from onnxcomp.report.made import TimedReport
from onnxcomp.report.parts import count_row

__all__ = ["PruneReport", "PrunedGroup"]


@dataclass(frozen=True, slots=True)
class PrunedGroup:
    """A group of channels that may be removed one by one.

    Attributes:
        name: Of the first layer that makes them.
        kind: What one is: channel, head, dim (the same dimension of all heads) or unit.
        channels: How many there were.
        kept: How many are left.
    """

    name: str
    kind: str
    channels: int
    kept: int

    def left_after(self, part: float) -> int:
        """Return how many are left after a part of the way, in [0, 1], on which each step takes the same share."""
        return int(self.channels * (self.kept / self.channels) ** part + 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport(TimedReport):
    """Everything that one `prune` did and measured; see `MadeReport` and `TimedReport`.

    Attributes:
        granularity: What was removed.
        recovery: How what is left makes up for it: least-squares, distill, affine, bias or none.
        steps: Rounds in which that was done.
        pruned_parameters: Elements of the result's weights.
        zeros: Of the original's weights, those that are zero.
        pruned_zeros: Of the result's.
        macs: Multiply-accumulate operations of one run of the original; None: they can't be told.
        pruned_macs: Of the result.
        groups: All groups of channels that can be pruned, those that nothing was removed from among them.
    """

    kind: ClassVar[str] = "prune"

    granularity: str
    recovery: str
    steps: int
    pruned_parameters: int
    zeros: int
    pruned_zeros: int
    macs: int | None
    pruned_macs: int | None
    groups: tuple[PrunedGroup, ...]

    @property
    def done(self) -> tuple[str, str]:
        """See `MadeReport.done`."""
        return "prune", "pruning"

    def asked(self) -> Iterable[str]:
        """See `MadeReport.asked`."""
        settings = ", ".join(f"{name} = {value}" for name, value in self.settings.items() if name != "granularity")
        steps = f", in {self.steps} steps" if self.steps > 1 else ""
        yield f" prune   {self.granularity} ({settings or 'defaults'}){steps}      target  {self.target}"
        yield f" recovery     {self.recovery}"
        if self.calibration:
            yield f" calibration  {self.calibration}"

    def details(self, *, verbose: bool) -> Iterable[str]:
        """See `MadeReport.details`."""
        if verbose and self.groups:
            yield ""
            rows = [(one.name, one.kind, str(one.channels), str(one.kept)) for one in self.groups]
            yield from table([("group", "kind", "channels", "left"), *rows])

    def rows(self) -> Iterable[str]:
        """See `MadeReport.rows`."""
        if self.groups:
            yield count_row("channels", sum(one.channels for one in self.groups), sum(one.kept for one in self.groups))
        yield count_row("parameters", self.parameters, self.pruned_parameters, text=count_text)
        if self.zeros != self.pruned_zeros:
            left = self.parameters - self.zeros, self.pruned_parameters - self.pruned_zeros
            yield count_row("not zero", *left, text=count_text)
        if self.macs is not None and self.pruned_macs is not None:
            yield count_row("MACs", self.macs, self.pruned_macs, text=count_text)
        yield from TimedReport.rows(self)
