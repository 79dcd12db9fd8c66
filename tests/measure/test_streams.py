"""Windows of streams: all runs are made once, on every stream's own inputs, and what fails is told."""

import threading

import pytest

from onnxcomp.errors import ModelError
from onnxcomp.measure import Streams


def test_streams_share_out_the_runs() -> None:
    both = threading.Barrier(2, timeout=30)
    seen: list[object] = []

    def run(feed: object) -> None:
        if not seen:
            both.wait()  # nothing goes on before both streams are in a run at the same time
        seen.append(feed)

    with Streams(run, [{"x": 1}, {"x": 2}]) as streams:  # type: ignore[dict-item]
        assert streams.rates == []
        seen[:] = [None]
        streams()
        assert len(seen) == 1 + streams.runs
        assert len(streams.rates) == 1
        assert streams.rates[0] > 0


def test_what_fails_in_a_stream_is_told() -> None:
    def run(_: object) -> None:
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        Streams(run, [{}])
