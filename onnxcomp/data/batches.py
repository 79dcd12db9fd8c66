"""Rows dealt out to runs."""

import math
from dataclasses import dataclass

from onnxcomp.errors import DataError

__all__ = ["Batches"]


@dataclass(frozen=True, slots=True)
class Batches:
    """Which rows go into which run.

    Attributes:
        rows: Number of rows.
        size: Rows per run.
        used: Rows that are run: a smaller last batch is left out where the model takes no such.
    """

    rows: int
    size: int
    used: int

    @classmethod
    def of(cls, rows: int, *, batch: int, fixed: int | None, where: str) -> "Batches":
        """Deal out rows.

        Args:
            rows: Number of rows.
            batch: Rows per run, where the model takes any number.
            fixed: Rows that the model takes; None: any number.
            where: Where the rows are from, for the message.

        Raises:
            DataError: There are fewer rows than one run takes.
        """
        if fixed is None:
            return cls(rows, batch, rows)
        if not 1 <= fixed <= rows:
            raise DataError(
                f"{where}: {rows} rows, the model takes batches of {fixed}", hint="give at least one full batch"
            )
        return cls(rows, fixed, rows // fixed * fixed)

    def __len__(self) -> int:
        return math.ceil(self.used / self.size)

    def bounds(self, run: int) -> tuple[int, int]:
        """Return the first row of a run, and the one behind its last."""
        return run * self.size, min((run + 1) * self.size, self.used)

    def text(self, what: str) -> str:
        """Write it for people; `what` is rows, say, or images, with their number."""
        left = self.rows - self.used
        note = f" (the last {left} left out: the model takes {self.size} at a time)" if left else ""
        return f"{what} in batches of {self.size}{note}"
