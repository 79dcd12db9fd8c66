"""The timer that passes get: they decide by measured times, and know nothing of how these come about."""

from typing import TYPE_CHECKING

from onnxcomp.data import Feed
from onnxcomp.measure.nodes import node_times
from onnxcomp.measure.timing import interleave
from onnxcomp.model import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Stopwatch"]


class Stopwatch:
    """Times models with onnxruntime on this machine; see `onnxcomp.passbase.Timer`.

    Args:
        threads: Intra-op threads.
        seed: Of the order in which models take turns.
    """

    def __init__(self, *, threads: int = 1, seed: int = 0) -> None:
        self._threads = threads
        self._seed = seed

    def nodes(self, model: "ir.Model", feed: Feed) -> dict[str, float]:
        """Return the median seconds of each node by name."""
        return node_times(model, feed, threads=self._threads)

    def ratio(self, model: "ir.Model", baseline: "ir.Model", feed: Feed, *, seconds: float) -> float:
        """Return the time of a model as a share of that of another one, both timed by turns."""
        sessions = {name: open_session(m, threads=self._threads) for name, m in (("a", baseline), ("b", model))}
        runs = {name: (lambda session=session: session.run(feed)) for name, session in sessions.items()}
        found = interleave(runs, baseline="a", half_width=0.01, min_rounds=7, max_seconds=seconds, seed=self._seed)
        return found.ratios["b"].ratio
