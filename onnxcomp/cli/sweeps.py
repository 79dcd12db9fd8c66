"""Sweeps as people write them."""

import re
from collections.abc import Iterable

from onnxcomp.errors import UsageError

__all__ = ["parse_sweeps"]

_HINT = "as in batch=1,2,4,8 or sequence=16..128 (each twice the one before) or sequence=16..128:16 (in steps)"
_MOST = 1000  # sizes of one dimension: so many are refused later, with a better message


def parse_sweeps(texts: Iterable[str]) -> dict[str, list[int]]:
    """Return the sizes by dimension that texts such as ``batch=1,2,4`` or ``sequence=16..128`` name.

    Raises:
        UsageError: One names none, or a dimension that another names as well.
    """
    found: dict[str, list[int]] = {}
    for text in texts:
        name, _, sizes = (part.strip() for part in text.rpartition("="))
        if not name or name in found:
            raise UsageError(f"{'twice the same' if name else 'no'} dimension in --sweep {text!r}", hint=_HINT)
        found[name] = [size for part in sizes.split(",") for size in _sizes(part.strip(), text)]
    return found


def _sizes(part: str, text: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,9})(?:\s*\.\.\s*(\d{1,9})(?:\s*:\s*(\d{1,9}))?)?", part)
    if match is None:
        raise UsageError(f"not a size: {part!r} in --sweep {text!r}", hint=_HINT)
    low, high, step = int(match[1]), match[2], match[3]
    if high is None:
        return [low]
    if not 0 < low <= int(high) or step == "0":
        raise UsageError(f"not a range of sizes: {part!r} in --sweep {text!r}", hint=_HINT)
    if step is not None:
        return list(range(low, int(high) + 1, int(step)))[:_MOST]
    found = [low]
    while found[-1] * 2 <= int(high):
        found.append(found[-1] * 2)
    return found if found[-1] == int(high) else [*found, int(high)]
