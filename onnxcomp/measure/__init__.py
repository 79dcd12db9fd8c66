"""Measured comparison: contenders timed side by side in one run, with an interval on how much faster each one is."""

from onnxcomp.measure.bundle import SCRIPT, BundledModel, check_feed, read_plan, write_bundle
from onnxcomp.measure.elsewhere import MEASUREMENTS
from onnxcomp.measure.interval import block_time, median_interval
from onnxcomp.measure.loading import Memory, load_times, peak_memory
from onnxcomp.measure.memory import peak_rss
from onnxcomp.measure.nodes import node_bytes, node_times
from onnxcomp.measure.stopwatch import Stopwatch
from onnxcomp.measure.timing import Comparison, Ratio, Timing, interleave

__all__ = [
    "MEASUREMENTS",
    "SCRIPT",
    "BundledModel",
    "Comparison",
    "Memory",
    "Ratio",
    "Stopwatch",
    "Timing",
    "block_time",
    "check_feed",
    "interleave",
    "load_times",
    "median_interval",
    "node_bytes",
    "node_times",
    "peak_memory",
    "peak_rss",
    "read_plan",
    "write_bundle",
]
