"""Sends models through load, clean-up and save: ``worker.py FOLDER FIRST LAST`` prints what came of each.

Lines on standard output: ``begin SEED``, then ``end SEED RESULT MESSAGE``, where RESULT is ``done``, the kind of the
`OnnxCompError`, or ``BUG`` for any other exception. No model may need more than 2 GB beside what the program takes.
"""

import resource
import sys
import traceback
from pathlib import Path

from onnxcomp.errors import OnnxCompError
from onnxcomp.model import load, save
from onnxcomp.passbase import PassContext
from onnxcomp.search.candidates import cleanup
from onnxcomp.target import get_target
from tests.fuzz.mutate import mutated
from tests.fuzz.sources import sources

LIMIT = 2 * 10**9


def process(path: Path) -> str:
    try:
        model = load(path).clone()
        context = PassContext(target=get_target("auto"))
        for step in cleanup().steps:
            step.make().run(model, context)
        save(model, path.with_name("saved.onnx"))
        load(path.with_name("saved.onnx"))
    except OnnxCompError as err:
        return f"{type(err).__name__} {err}"
    except Exception:
        return f"BUG {traceback.format_exc()}"
    return "done"


def main(folder: Path, seeds: range) -> None:
    given = sources()
    own = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (own * 1024 + LIMIT,) * 2)
    for seed in seeds:
        print("begin", seed, flush=True)
        _, content = mutated(given[seed % len(given)], given, seed)
        path = folder / "model.onnx"
        path.write_bytes(content)
        print("end", seed, process(path).replace("\n", " | ")[:3000], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
