"""What is measured on a model with samples."""

from onnxcomp.statistics.ranges import Range, RangeStore

__all__ = ["Range", "RangeStore"]
