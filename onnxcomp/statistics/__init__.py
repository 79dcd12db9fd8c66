"""What is measured on a model with samples."""

from onnxcomp.statistics.histograms import Histogram, Range
from onnxcomp.statistics.ranges import RangeStore

__all__ = ["Histogram", "Range", "RangeStore"]
