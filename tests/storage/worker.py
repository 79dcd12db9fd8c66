"""Sends damaged containers through the reader: ``worker.py FOLDER FIRST LAST`` prints what came of each.

Lines on standard output: ``begin SEED``, then ``end SEED RESULT MESSAGE``, where RESULT is ``same`` (the files came out
as they were), ``refused``, or ``BUG``: another exception, or other files. Half of the seeds run without numba's loops.
"""

import resource
import sys
import tempfile
import traceback
from pathlib import Path

from onnxcomp.coding import Codec, huffman, kernels, rans
from onnxcomp.errors import ModelError
from onnxcomp.storage import Archive, pack_file
from tests.storage.models import MODELS
from tests.storage.mutate import mutated
from tests.storage.test_round_trip import external

LIMIT = 10**9  # bytes of memory beside what the program takes
MOST = 10**8  # bytes that a container may unpack to
_ROOT = Path(__file__).parents[2]


def sources() -> list[bytes]:
    """Return containers of small models by every codec, of external data, and of a real model."""
    names = ("dense", "int8", "mostly zero", "branches, constants, one tensor twice", "odd number of int4", "int64")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "m.onnxz")
        given: list[tuple[bytes | Path, Codec | None]] = [(MODELS[name](), None) for name in names]
        given += [(MODELS["int8"](), codec) for codec in Codec]
        given.append((external(Path(folder, "a")), None))
        given.append((_ROOT / "sample_models" / "resnet8" / "model.onnx", None))
        found = []
        for model, codec in given:
            pack_file(model, target, producer="a test", codec=codec, threads=1)
            found.append(target.read_bytes())
        return found


def unpacked(content: bytes) -> list[bytes]:
    """Return the files in a container."""
    archive = Archive(memoryview(content), name="m.onnxz", limit=MOST)
    found = []
    for number in range(len(archive.manifest.files)):
        parts = bytearray()
        archive.write(number, parts.extend)
        found.append(bytes(parts))
    return found


def process(content: bytes, expected: list[bytes]) -> str:
    try:
        found = unpacked(content)
    except ModelError as err:
        return f"BUG {err}" if "memory" in str(err) or not err.hint else f"refused {err}"
    except Exception:
        return f"BUG {traceback.format_exc()}"
    return "same" if found == expected else "BUG other files"


def main(seeds: range) -> None:
    given = sources()
    expected = [unpacked(content) for content in given]
    own = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (own * 1024 + LIMIT,) * 2)
    for seed in seeds:
        print("begin", seed, flush=True)
        for module in (huffman, rans):
            module.kernels = kernels.kernels if seed % 2 else lambda: None
        _, content = mutated(given[seed % len(given)], seed)
        result = process(content, expected[seed % len(given)])
        print("end", seed, result.replace("\n", " | ")[:3000], flush=True)


if __name__ == "__main__":
    main(range(int(sys.argv[2]), int(sys.argv[3])))
