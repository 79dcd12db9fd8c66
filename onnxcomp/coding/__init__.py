"""Lossless coders of byte arrays: canonical Huffman, rANS with scale classes, zero masks and byte planes.

With numba (the extra ``fast``) they are faster; what they write and read is the same to the bit without it.
"""

from onnxcomp.coding.errors import CodingError
from onnxcomp.coding.streams import CHUNK, CodedStream, Coder, entropy, inflate
from onnxcomp.coding.tensors import Codec, CodedTensor, decode_tensor, encode_tensor

__all__ = [
    "CHUNK",
    "Codec",
    "CodedStream",
    "CodedTensor",
    "Coder",
    "CodingError",
    "decode_tensor",
    "encode_tensor",
    "entropy",
    "inflate",
]
