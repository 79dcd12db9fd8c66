"""What is measured on a model with samples."""

from onnxcomp.statistics.channels import ChannelRange
from onnxcomp.statistics.columns import Columns, Window, columns_of, draw, recurrent_columns
from onnxcomp.statistics.file import Statistics
from onnxcomp.statistics.gram import MOST_BYTES, POSITIONS, Gram, GramStore, collect_grams
from onnxcomp.statistics.means import MeanStore, collect_means
from onnxcomp.statistics.ranges import RangeStore
from onnxcomp.statistics.relay import Relay, reads
from onnxcomp.statistics.squares import collect_squares
from onnxcomp.statistics.tap import float_tensors, inner_values, runs, tapped
from onnxcomp.thresholds import Histogram, Range

__all__ = [
    "MOST_BYTES",
    "POSITIONS",
    "ChannelRange",
    "Columns",
    "Gram",
    "GramStore",
    "Histogram",
    "MeanStore",
    "Range",
    "RangeStore",
    "Relay",
    "Statistics",
    "Window",
    "collect_grams",
    "collect_means",
    "collect_squares",
    "columns_of",
    "draw",
    "float_tensors",
    "inner_values",
    "reads",
    "recurrent_columns",
    "runs",
    "tapped",
]
