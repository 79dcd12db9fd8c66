"""``doctor``: what this machine and installation can do, and what to put right."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import numpy as np

from onnxcomp import runtime
from onnxcomp.errors import EnvironmentUnavailable
from onnxcomp.model import load, open_session
from onnxcomp.report import machine, versions
from onnxcomp.report.diagnosis import Diagnosis, Extra, Problem
from onnxcomp.target import Target, cpu_features, detect

__all__ = ["EXTRAS", "doctor"]

# name -> (package, what it is for)
EXTRAS = {
    "dask": ("distributed", "judging on a Dask cluster"),
    "images": ("pillow", "folders of images as samples"),
    "ray": ("ray", "judging on a Ray cluster"),
}
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_LITTLE = 1_000_000_000  # bytes: candidates of a model wait in temporary files
_AT_LEAST = re.compile(r"([A-Za-z0-9_.-]+)\s*[^;]*?>=\s*([\d.]+)[^;]*$")


def doctor() -> Diagnosis:
    """Look at this machine and installation, and run a small model; takes seconds."""
    target, features = detect(), cpu_features()
    problems = [*_package_problems()]
    providers = _providers()
    for name, why_not in providers.items():
        if why_not:
            problems.append(
                Problem(f"{name} does not work: {why_not}", "models run on the other providers", fatal=False)
            )
    folder = tempfile.gettempdir() if _can_write_temporary() else ""
    free = shutil.disk_usage(folder).free if folder else None
    if free is None:
        problems.append(Problem("no folder for temporary files can be written", "set TMPDIR to one", fatal=True))
    elif free < _LITTLE:
        problems.append(Problem(f"little room for temporary files in {folder}", "set TMPDIR to another", fatal=False))
    failure = _self_test()
    if failure:
        hint = "pip install --force-reinstall onnxruntime"
        problems.append(Problem(f"a small model can't be loaded and run: {failure}", hint, fatal=True))
    return Diagnosis(
        works=not any(problem.fatal for problem in problems),
        versions=versions(),
        machine=machine(),
        features=tuple(name for name in _FEATURES if name in features),
        target=target.name,
        target_reason=_why(target),
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        providers=providers,
        extras=tuple(_extras()),
        temporary=folder,
        temporary_free=free,
        self_test=failure,
        problems=tuple(problems),
    )


def _why(target: Target) -> str:
    if target.name == "cpu-arm":
        return "an ARM processor"
    if target.reduce_range:
        return "no VNNI instructions, so that weights keep to 7 bits: 8 would overflow the 16-bit sums"
    return "the processor multiplies 8-bit integers without overflow (VNNI)"


def _package_problems() -> Iterator[Problem]:
    """Say which packages are missing, too old, or there twice."""
    found = [name for name in _RUNTIMES if _version(name)]
    if not found:
        yield Problem("onnxruntime is not installed", "pip install onnxruntime (or onnxruntime-gpu)", fatal=True)
    if len(found) > 1:
        yield Problem(
            f"{' and '.join(found)} are installed over each other: which one is used is chance",
            f"pip uninstall {' '.join(found)}, then install one of them again",
            fatal=False,
        )
    for package, minimum in _minimums().items():
        present = _version(package)
        if not present and package not in _RUNTIMES:
            yield Problem(f"{package} is not installed", f"pip install '{package}>={minimum}'", fatal=True)
        elif present and _release(present) < _release(minimum):
            yield Problem(f"{package} {present} is too old", f"pip install '{package}>={minimum}'", fatal=True)


def _minimums() -> dict[str, str]:
    """Return the least version of each package that onnxcomp's own metadata asks for; the runtimes' are extras."""
    try:
        wanted = requires("onnxcomp") or []
    except PackageNotFoundError:  # run from a source tree
        return {}
    found = {}
    for line in wanted:
        requirement, _, marker = line.partition(";")
        match = _AT_LEAST.match(requirement.strip())
        if match and ("extra" not in marker or match[1] in _RUNTIMES):
            found[match[1]] = match[2]
    return found


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _extras() -> Iterator[Extra]:
    for name, (package, purpose) in EXTRAS.items():
        present = _version(package)
        yield Extra(name, purpose, f"{package} {present}" if present else "", f"pip install {package}")


def _providers() -> dict[str, str]:
    try:
        return runtime.providers()
    except EnvironmentUnavailable:
        return {}


def _can_write_temporary() -> bool:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"onnxcomp")
    except OSError:
        return False
    return True


def _memory() -> int | None:
    """Return the bytes of memory of this machine."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _self_test() -> str:
    """Make, load and run ``y = Relu(x W)``; say what went wrong."""
    try:
        import onnx

        weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
        x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 13]> probe (float[N, 4] x) => (float[N, 3] y) '
            "{ a = MatMul(x, w)  y = Relu(a) }"
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        result = open_session(load(model.SerializeToString())).run({"x": x})["y"]
    except Exception as err:  # whatever is broken in an installation
        return f"{type(err).__name__}: {err}"
    return "" if np.allclose(result, np.maximum(x @ weight, 0), atol=1e-5) else "the result is wrong"
