"""Streams of real weights: sizes beside their entropy, and decoding speed beside zlib's and zstd's.

The weights of a model (tensors of at least 4096 floats) as indices of 16 values in equal steps, the same after the
smallest 90 % of each tensor were set to zero, and as INT8 with a scale per row. What a decoder gives counts as fp32: 4
bytes for each index. Speeds are of processor time on one thread: the coders take turns, the median of each counts.
"""

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxcomp.coding import decode_tensor, encode_tensor, entropy, histogram

__all__ = ["StreamRow", "hide_numba", "measure_streams", "real_weights", "streams"]

_SMALLEST = 4096  # floats
_STEP = 0.35  # of indices, in standard deviations
_SPARSITY = 0.9
_ROUNDS = 7
Matrices = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream.

    Attributes:
        stream: What it is.
        symbols: How many indices.
        bound: Bits of an index by its order-0 entropy.
        bits: Bits of an index by coder.
        speeds: MB/s of fp32 by coder.
    """

    stream: str
    symbols: int
    bound: float
    bits: dict[str, float]
    speeds: dict[str, float]


def real_weights(model: Path) -> list[np.ndarray]:
    """Return a model's large float tensors as matrices."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer]
    large = [a for a in arrays if a.dtype == np.float32 and a.ndim > 1 and a.size >= _SMALLEST]
    return [array.reshape(len(array), -1) for array in large]


def streams(weights: list[np.ndarray]) -> dict[str, tuple[np.ndarray, Matrices]]:
    """Return the bytes of each stream, and the matrices of which it is made."""
    found = {}
    for name, indices in (("16 values", _indices), ("16 values, 90 % zero", _sparse), ("INT8", _int8)):
        parts = [indices(matrix) for matrix in weights]
        joined = np.concatenate([part.reshape(-1) for part in parts]).view(np.uint8)
        found[name] = (joined, [(part.shape[0], part.shape[1]) for part in parts])
    return found


def _indices(matrix: np.ndarray) -> np.ndarray:
    indices: np.ndarray = np.clip(np.round(matrix / (matrix.std() * _STEP)) + 8, 0, 15).astype(np.uint8)
    return indices


def _sparse(matrix: np.ndarray) -> np.ndarray:
    kept = np.abs(matrix) > np.quantile(np.abs(matrix), _SPARSITY)
    indices = np.clip(np.round(matrix / (matrix[kept].std() * _STEP)) + 8, 1, 15)
    return np.where(kept, indices, 0).astype(np.uint8)


def _int8(matrix: np.ndarray) -> np.ndarray:
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12) / 127
    values: np.ndarray = np.round(matrix / scale).astype(np.int8)
    return values


def measure_streams(model: Path) -> list[StreamRow]:
    """Measure each stream of a model's weights, with numba where this process can import it."""
    return [_measure(name, data, matrices) for name, (data, matrices) in streams(real_weights(model)).items()]


def _measure(name: str, data: np.ndarray, matrices: Matrices) -> StreamRow:
    content = data.tobytes()
    coded = encode_tensor(data, matrices=matrices)
    stored = {"onnxz": sum(len(s.head) + sum(map(len, s.chunks)) for s in coded.streams)}
    decoders: dict[str, Callable[[], object]] = {"onnxz": lambda: decode_tensor(coded, data.size)}
    deflated = zlib.compress(content, 6)
    stored["zlib -6"], decoders["zlib -6"] = len(deflated), lambda: zlib.decompress(deflated)
    try:
        import zstandard
    except ImportError:
        pass
    else:
        packed = zstandard.ZstdCompressor(level=19).compress(content)
        stored["zstd -19"], decoders["zstd -19"] = len(packed), lambda: zstandard.ZstdDecompressor().decompress(packed)
    decoders["onnxz"]()  # numba compiles
    seconds: dict[str, list[float]] = {coder: [] for coder in decoders}
    for _ in range(_ROUNDS):
        for coder, decode in decoders.items():
            start = time.process_time()
            decode()
            seconds[coder].append(time.process_time() - start)
    return StreamRow(
        name,
        data.size,
        entropy(histogram(data)) / data.size,
        {coder: 8 * size / data.size for coder, size in stored.items()},
        {coder: 4 * data.size / 1e6 / statistics.median(taken) for coder, taken in seconds.items()},
    )


def hide_numba() -> None:
    """Make this process one that has no numba."""
    sys.modules["numba"] = None  # type: ignore[assignment]  # importing it raises ImportError then
