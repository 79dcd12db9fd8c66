"""Lossless coders of byte arrays: canonical Huffman, rANS with scale classes, zero masks and byte planes.

With numba (the extra ``fast``) they are faster; what they write and read is the same to the bit without it.
"""

from onnxcomp.coding.errors import CodingError
from onnxcomp.coding.packed import pack_bytes, unpack_bytes
from onnxcomp.coding.streams import CHUNK, CodedStream, Coder, Matrices, class_counts, entropy, histogram, table_bits
from onnxcomp.coding.tensors import Codec, CodedTensor, decode_tensor, encode_tensor, planes

__all__ = [
    "CHUNK",
    "Codec",
    "CodedStream",
    "CodedTensor",
    "Coder",
    "CodingError",
    "Matrices",
    "class_counts",
    "decode_tensor",
    "encode_tensor",
    "entropy",
    "histogram",
    "pack_bytes",
    "planes",
    "table_bits",
    "unpack_bytes",
]
