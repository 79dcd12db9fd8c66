"""What is measured on a model with samples."""

from onnxcomp.statistics.ranges import RangeStore
from onnxcomp.thresholds import Histogram, Range

__all__ = ["Histogram", "Range", "RangeStore"]
