"""Small texts, packed with LZMA: a ``.lzma`` file, which every LZMA library reads."""

import lzma

from onnxcomp.coding.errors import CodingError

__all__ = ["pack_bytes", "unpack_bytes"]

_LARGEST_DICTIONARY = 1 << 24
_MOST_MEMORY = 1 << 25  # bytes, of a reader


def pack_bytes(content: bytes) -> bytes:
    """Compress bytes."""
    size = min(max(1 << max(len(content) - 1, 0).bit_length(), 1 << 12), _LARGEST_DICTIONARY)
    kind = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size, "lc": 4, "lp": 0, "pb": 0}
    return lzma.compress(content, format=lzma.FORMAT_ALONE, filters=[kind])


def unpack_bytes(packed: bytes, most: int, *, exact: bool = True) -> bytes:
    """Decompress what may not be larger than ``most`` bytes.

    Raises:
        CodingError: It is damaged, needs more memory than a reader has to have, is larger, or (`exact`) smaller.
    """
    try:
        reader = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=_MOST_MEMORY)
        found = reader.decompress(packed, most + 1)
    except (lzma.LZMAError, EOFError) as err:
        raise CodingError(f"compressed data is damaged: {err}") from err
    if len(found) > most or not reader.eof or reader.unused_data or (exact and len(found) != most):
        raise CodingError("compressed data is not as large as it must be")
    return found
