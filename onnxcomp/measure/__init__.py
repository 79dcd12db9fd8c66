"""Measured comparison: contenders timed side by side in one run, with an interval on how much faster each one is."""

from onnxcomp.measure.interval import block_time, median_interval
from onnxcomp.measure.memory import peak_rss
from onnxcomp.measure.timing import Comparison, Ratio, Timing, interleave

__all__ = ["Comparison", "Ratio", "Timing", "block_time", "interleave", "median_interval", "peak_rss"]
