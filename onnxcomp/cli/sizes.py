"""Sizes as people write them."""

import re

from onnxcomp.errors import UsageError

__all__ = ["parse_size"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``5MB``, ``1.5 MiB`` or ``800000`` names.

    Raises:
        UsageError: It names none, or a few bytes, which no model has.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"not a size: {text!r}", hint="write it as in 5MB, 800kB or 1.5MiB")
    size = int(float(match[1]) * _UNITS[match[2]])
    if not match[2] and 0 < size < _UNITS["kb"]:
        raise UsageError(f"a size of {size} bytes, which no model has", hint=f"give a unit, as in {size}MB")
    return size
