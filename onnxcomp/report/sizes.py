"""What a model takes on disk in several forms, one beside the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxcomp.report.figures import bytes_text, seconds_text, table

__all__ = ["StoredForm", "size_lines"]

_HEAD = ("form", "size", "smaller", "bits/weight", "over entropy", "load", "score", "agreement")


@dataclass(frozen=True, slots=True)
class StoredForm:
    """A model in one form.

    Attributes:
        name: Of the model, and what it is compressed by.
        size: Bytes, external data included.
        bits: Of the whole file, by weight of the original.
        over_entropy: Bytes over those of the graph and of the order-0 entropy of the tensors (of their elements of one
            byte, or of byte planes, each stream on its own), minus 1. Below 0: a coder knows more than how often a
            value comes.
        load: Seconds until onnxruntime has a session of it, decompression included; None: not measured.
        score: On the evaluation samples; None: there are no labels, or it was not judged.
        agreement: Share of answers equal to the original's; None: it was not judged.
    """

    name: str
    size: int
    bits: float
    over_entropy: float
    load: float | None
    score: float | None
    agreement: float | None


def size_lines(forms: Sequence[StoredForm]) -> Iterable[str]:
    """Yield the table, the first form being what others are compared with; nothing where there are none."""
    if not forms:
        return
    rows = [_HEAD]
    rows += [
        (
            form.name,
            bytes_text(form.size),
            f"{forms[0].size / form.size:.2f}x",
            f"{form.bits:.2f}",
            f"{form.over_entropy:+.1%}",
            "-" if form.load is None else seconds_text(form.load),
            "-" if form.score is None else f"{form.score:.4f}",
            "-" if form.agreement is None else f"{form.agreement:.4f}",
        )
        for form in forms
    ]
    shown = [index for index in range(len(_HEAD)) if any(row[index] != "-" for row in rows[1:])]
    yield from table([[row[index] for index in shown] for row in rows])
