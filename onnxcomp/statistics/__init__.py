"""What is measured on a model with samples."""

from onnxcomp.statistics.channels import ChannelRange
from onnxcomp.statistics.file import Statistics
from onnxcomp.statistics.ranges import RangeStore
from onnxcomp.statistics.tap import float_tensors
from onnxcomp.thresholds import Histogram, Range

__all__ = ["ChannelRange", "Histogram", "Range", "RangeStore", "Statistics", "float_tensors"]
