"""``optimize``: build candidates, judge each on samples, time them side by side, deliver the best that is proven."""

from onnxcomp.search.judge import Task
from onnxcomp.search.optimize import Progress, Work, optimize
from onnxcomp.search.result import CandidateResult, Outcome, Quality

__all__ = ["CandidateResult", "Outcome", "Progress", "Quality", "Task", "Work", "optimize"]
