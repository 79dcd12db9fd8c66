"""What samples are: a stream of feeds, one per run of the model, checked against the model's inputs.

A kind of data is a subclass of `Samples` that says how to deliver runs; taking a part of the runs is the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcomp.errors import DataError

__all__ = [
    "LABELS",
    "Feed",
    "InputSpec",
    "Samples",
    "spread_runs",
]

Feed = Mapping[str, np.ndarray]

LABELS = "labels"  # beside the arrays for inputs, unless a model has an input of that name
SPLIT_BLOCKS = 10  # contiguous blocks that `Samples.split` deals out


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model says about one of its inputs."""

    name: str
    dtype: np.dtype | None  # None: not a plain numeric tensor (string, sequence, optional)
    shape: tuple[int | None, ...] | None  # None for a dimension: dynamic; None for all: rank unknown
    optional: bool = False  # has a default (an initializer), may be left out of the feeds
    names: tuple[str | None, ...] = ()  # of the dimensions, where the model names any: those of one name are alike


class Samples(ABC):
    """Samples for a model, as a stream of runs that can be read again and again; nothing holds them all."""

    @abstractmethod
    def __iter__(self) -> Iterator[Feed]:
        """One feed per run, without labels, checked against the inputs of the model."""

    @property
    @abstractmethod
    def length(self) -> int | None:
        """Number of runs; None where only reading tells."""

    @property
    def rows(self) -> int | None:
        """Number of rows, where a batch is cut from rows of one file; None where runs are given as they are."""
        return None

    @property
    @abstractmethod
    def description(self) -> str:
        """Where the samples come from and how they are run, for people."""

    @abstractmethod
    def labels(self) -> list[np.ndarray] | None:
        """One label array per run, in the order of the runs; None where there are no labels."""

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """Deliver some runs only.

        Kinds that can skip without reading replace this.

        Args:
            runs: Numbers of the runs, ascending. Numbers past the end are ignored.
        """
        wanted = iter(runs)
        nearest = next(wanted, None)
        if nearest is None:
            return
        for number, feed in enumerate(self):
            if number == nearest:
                yield feed
                nearest = next(wanted, None)
                if nearest is None:  # before asking for a run that nobody wants: it may be slow, or the stream endless
                    return

    def take(self, n: int) -> "Samples":
        """Return the first ``n`` runs, or all where there are fewer."""
        _check_count(n)
        return Selection(self, range(n if self.length is None else min(n, self.length)))

    def spread(self, n: int) -> "Samples":
        """Return ``n`` runs evenly spread over the whole, or all where there are fewer.

        Each run is the middle one of its share, so that neither end is favoured.
        """
        _check_count(n)
        return Selection(self, spread_runs(self.count(), n))

    def split(self, share: float, seed: int) -> "tuple[Samples, Samples]":
        """Split into two parts that have no run in common, by contiguous blocks.

        Neighbours are often alike (crops of one photo, frames of one recording). A split run by run would put one of
        such a pair on either side, and what was tuned on the one would look too good on the other.

        Args:
            share: Share of the runs that the first part gets, in (0, 1). Each part gets one run at least.
            seed: Which blocks go where.

        Returns:
            Both parts, each in the order of the whole.

        Raises:
            DataError: There are fewer than two runs.
        """
        if not 0 < share < 1:
            raise DataError(f"the share of a split must be between 0 and 1, got {share}")
        total = self.count()
        if total < 2:
            raise DataError(
                f"{self.description}: can't be split into two parts", hint="give more samples, or smaller batches"
            )
        blocks = np.array_split(np.arange(total), min(SPLIT_BLOCKS, total))
        dealt = np.concatenate([blocks[i] for i in np.random.default_rng(seed).permutation(len(blocks))])
        size = min(max(round(share * total), 1), total - 1)
        return Selection(self, sorted(dealt[:size].tolist())), Selection(self, sorted(dealt[size:].tolist()))

    def count(self) -> int:
        """Return the number of runs; where the length is not known, they are all read for it."""
        return sum(1 for _ in self) if self.length is None else self.length


class Selection(Samples):
    """Some runs of other samples.

    Args:
        source: The samples to take from.
        runs: Numbers of the runs, ascending.
    """

    def __init__(self, source: Samples, runs: Sequence[int]) -> None:
        self._source = source
        self._runs = runs

    def __iter__(self) -> Iterator[Feed]:
        return self._source.pick(self._runs)

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """See `Samples.pick`."""
        return self._source.pick([self._runs[i] for i in runs if i < len(self._runs)])

    @property
    def length(self) -> int | None:
        """See `Samples.length`."""
        return None if self._source.length is None else len(self._runs)

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        total = self._source.length
        if total == len(self._runs):
            return self._source.description
        whole = "" if total is None else f" of {total}"
        noun = "run" if (total or len(self._runs)) == 1 else "runs"
        return f"{self._source.description}, {len(self._runs)}{whole} {noun}"

    def labels(self) -> list[np.ndarray] | None:
        """See `Samples.labels`."""
        labels = self._source.labels()
        return None if labels is None else [labels[i] for i in self._runs if i < len(labels)]


def spread_runs(total: int, n: int) -> list[int]:
    """Return the numbers of ``n`` runs evenly spread over ``total``, or of all where there are fewer."""
    n = min(n, total)
    return [(2 * i + 1) * total // (2 * n) for i in range(n)]


def _check_count(n: int) -> None:
    if n < 1:
        raise DataError(f"the number of samples must be 1 or more, got {n}")
