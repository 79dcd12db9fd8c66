"""Figures as people read them."""

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "bytes_text",
    "count_text",
    "counted",
    "decibels_text",
    "markdown_cell",
    "markdown_table",
    "one_line",
    "seconds_text",
    "table",
]

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def bytes_text(count: int) -> str:
    """Return bytes as ``79.1 GB``, ``1.4 MB``, ``3.2 kB`` or ``4 B``."""
    if count < 50:
        return f"{count} B"
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def count_text(count: int) -> str:
    """Return a count with three digits as ``1.40 M`` or ``32.1 k``; below a thousand in full."""
    for step, letter in _STEPS:
        if count >= step:
            digits = 2 if count < 10 * step else 1 if count < 100 * step else 0
            return f"{count / step:.{digits}f} {letter}"
    return str(count)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 sample``, ``2 samples``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def decibels_text(ratio: float) -> str:
    """Return a ratio in dB as ``38.6 dB``; without noise, or without a signal left, in words."""
    return f"{ratio:.1f} dB" if math.isfinite(ratio) else "no noise" if ratio > 0 else "broken"


def one_line(text: str) -> str:
    """Write a text of the user's on one line of printable characters: in a log, a line of its own may be a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def seconds_text(seconds: float) -> str:
    """Return a time as milliseconds, ``3.21 ms``."""
    milliseconds = seconds * 1e3
    return f"{milliseconds:.2f} ms" if milliseconds >= 1 else f"{milliseconds:.3f} ms"


def table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Lay rows of cells out in columns, the first one to the left and the others to the right; one line per row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{first:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))]
        yield f" {'  '.join(cells)}".rstrip()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Write rows of cells as a table in Markdown; one line per row."""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def markdown_cell(text: str) -> str:
    """Write a text of the user's so that it stays in its cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
