"""Generates sample files of any size without holding them in memory."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

__all__ = ["write_random"]

_LABELS = "labels"
_CHUNK = 1 << 24  # bytes made at once


def write_random(like: Path, folder: Path, *, size: int, seed: int) -> Path:
    """Write samples of the same form as others: an ``.npz`` of rows, or a folder of ``.npz`` files with one run each.

    Each value is drawn at random from those of the first sample of the same array, so that integers stay inside the
    tables that they index.

    Args:
        like: The samples to resemble; labels are left out.
        folder: Where to write.
        size: Bytes to write; the last row or file may go over.
        seed: Of the random choices.

    Returns:
        The file or folder.
    """
    rng = np.random.default_rng(seed)
    if like.is_file():
        path = folder / "samples.npz"
        _write_rows(path, {name: array[:1] for name, array in _read(like).items()}, size, rng)
        return path
    path = folder / "samples"
    path.mkdir()
    arrays = _read(min(like.glob("*.npz")))
    per_file = sum(array.nbytes for array in arrays.values())
    for index in range(-(-size // per_file)):
        np.savez(
            path / f"{index:08d}.npz", allow_pickle=False, **{k: _draw(v, v.shape, rng) for k, v in arrays.items()}
        )
    return path


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files if name != _LABELS}


def _write_rows(path: Path, first: dict[str, np.ndarray], size: int, rng: np.random.Generator) -> None:
    """Stream rows into one uncompressed archive, array by array."""
    rows = -(-size // sum(array.nbytes for array in first.values()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in first.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = npy.header_data_from_array_1_0(array)
                npy.write_array_header_1_0(file, {**header, "fortran_order": False, "shape": (rows, *array.shape[1:])})
                at_once = max(1, _CHUNK // max(1, array.nbytes))
                for start in range(0, rows, at_once):
                    shape = (min(at_once, rows - start), *array.shape[1:])
                    file.write(_draw(array, shape, rng).tobytes())


def _draw(values: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    drawn: np.ndarray = values.reshape(-1)[rng.integers(0, values.size, shape)]
    return drawn
