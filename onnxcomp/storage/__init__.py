"""The container ``.onnxz``: a model with its tensors entropy-coded, lossless; docs/format.md describes it."""

from onnxcomp.storage.archive import DEFAULT_LIMIT, Archive, is_archive, opened
from onnxcomp.storage.packing import Packed, PackedTensor, pack_file
from onnxcomp.storage.unpacking import in_memory, unpack_file

__all__ = [
    "DEFAULT_LIMIT",
    "Archive",
    "Packed",
    "PackedTensor",
    "in_memory",
    "is_archive",
    "opened",
    "pack_file",
    "unpack_file",
]
