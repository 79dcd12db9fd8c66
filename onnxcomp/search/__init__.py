"""``optimize``: build candidates, judge each on samples, time them side by side, deliver the best that is proven."""

from onnxcomp.search.optimize import optimize
from onnxcomp.search.result import CandidateResult, Result

__all__ = ["CandidateResult", "Result", "optimize"]
