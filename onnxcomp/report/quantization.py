"""The report of `quantize`: what became integer, what stayed float and why, and what that changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.made import TimedReport

__all__ = ["QuantizeReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport(TimedReport):
    """Everything that one `quantize` did and measured; see `MadeReport` and `TimedReport`.

    Attributes:
        mode: How it was quantized.
        statistics: When the calibration samples were measured, where that was before; None: in this run, or never.
    """

    kind: ClassVar[str] = "quantize"
    left: ClassVar[str] = "left float"

    mode: str
    statistics: str | None

    @property
    def done(self) -> tuple[str, str]:
        """See `MadeReport.done`."""
        return self.mode, f"{self.mode} quantization"

    def asked(self) -> Iterable[str]:
        """See `MadeReport.asked`."""
        settings = ", ".join(f"{name} = {value}" for name, value in self.settings.items())
        yield f" mode    {self.mode}{f' ({settings})' if settings else ''}      target  {self.target}"
        if self.calibration:
            measured = f" (measured {self.statistics})" if self.statistics else ""
            yield f" calibration  {self.calibration}{measured}"
