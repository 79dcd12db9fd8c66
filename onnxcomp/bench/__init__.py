"""Measured comparison: contenders timed side by side in one run, with an interval on how much faster each one is."""

from onnxcomp.bench.interval import block_time, median_interval
from onnxcomp.bench.memory import peak_rss
from onnxcomp.bench.timing import Comparison, Ratio, Timing, interleave

__all__ = ["Comparison", "Ratio", "Timing", "block_time", "interleave", "median_interval", "peak_rss"]
