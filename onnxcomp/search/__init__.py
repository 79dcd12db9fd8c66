"""``optimize``: build candidates, judge each on samples, time them side by side, deliver the best that is proven."""

from onnxcomp.search.candidates import cleanup, prepared, wanted
from onnxcomp.search.judge import Judge, Task
from onnxcomp.search.optimize import Progress, Work, optimize
from onnxcomp.search.race import Race, slowness
from onnxcomp.search.result import CandidateResult, Outcome, Quality

__all__ = [
    "CandidateResult",
    "Judge",
    "Outcome",
    "Progress",
    "Quality",
    "Race",
    "Task",
    "Work",
    "cleanup",
    "optimize",
    "prepared",
    "slowness",
    "wanted",
]
