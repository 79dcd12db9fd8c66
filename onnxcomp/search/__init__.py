"""``optimize``: build candidates, judge each on samples, time them side by side, deliver the best that is proven."""

from onnxcomp.search.candidates import cleanup, prepared, wanted
from onnxcomp.search.executor import connected
from onnxcomp.search.judge import Judge, Task, hold_out
from onnxcomp.search.memory import Memory
from onnxcomp.search.optimize import collect, optimize
from onnxcomp.search.race import Race, slowness
from onnxcomp.search.result import CandidateResult, Evidence, FrontModel, NearMiss, Outcome, Quality
from onnxcomp.search.study import LeftOut, Study, UnitHarm, study, why_nothing
from onnxcomp.search.work import Measured, Progress, Work

__all__ = [
    "CandidateResult",
    "Evidence",
    "FrontModel",
    "Judge",
    "LeftOut",
    "Measured",
    "Memory",
    "NearMiss",
    "Outcome",
    "Progress",
    "Quality",
    "Race",
    "Study",
    "Task",
    "UnitHarm",
    "Work",
    "cleanup",
    "collect",
    "connected",
    "hold_out",
    "optimize",
    "prepared",
    "slowness",
    "study",
    "wanted",
    "why_nothing",
]
