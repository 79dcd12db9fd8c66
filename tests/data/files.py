"""Small files of samples, sound and damaged."""

import io
import zipfile

import numpy as np

from onnxcomp.data import InputSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
X = InputSpec("x", F32, (None, 3))
IDS = InputSpec("ids", I64, (None, None))
MASK = InputSpec("mask", I64, (None, None), optional=True)


def rows(n, *shape, dtype=np.float32):
    return np.arange(n * int(np.prod(shape)), dtype=dtype).reshape(n, *shape)


def save(path, *, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def save_raw(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape, descr="<f4", data=b"", fortran=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return file.getvalue() + data


def folder(path, *files):
    path.mkdir()
    for number, arrays in enumerate(files):
        save(path / f"{number:04}.npz", **arrays)
    return path


def stacked(samples, name="x"):
    return np.concatenate([feed[name] for feed in samples])
