"""What a model takes on disk in several forms: as it is, compressed as a whole, as a container."""

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.api.making import Assignment, Measured, measured
from onnxcomp.api.sessions import session
from onnxcomp.facts import parameter_count
from onnxcomp.measure import load_times
from onnxcomp.model import external_files, is_one_file, read, save
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report import versions
from onnxcomp.report.sizes import StoredForm
from onnxcomp.search import Judge, Progress, Quality
from onnxcomp.storage import pack_file
from onnxcomp.target import get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Candidate", "forms_beside_int8", "stored_forms"]

_PIECE = 1 << 24  # bytes that are compressed at a time
_GZIP, _ZSTD = 9, 19  # levels
_HAS_HEAD = 16  # added to the window's bits: a gzip file
_NO_ZSTD = "sizes are without zstd: the package zstandard is not installed (pip install zstandard)"
Loader = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model whose sizes are asked for.

    Attributes:
        name: For people.
        path: Of the model, its external data beside it.
        quality: What its answers are like; None: not judged.
    """

    name: str
    path: Path
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A model in one form: its name, bytes, and what makes a session of it (None: that is not timed)."""

    name: str
    size: int
    loader: Loader | None


def stored_forms(
    candidates: Sequence[Candidate], *, threads: int, show: Progress
) -> tuple[tuple[StoredForm, ...], tuple[str, ...]]:
    """Store models in every form, and load each form.

    Args:
        candidates: The first one is the original.
        threads: Intra-op threads of the sessions.
        show: Called with the stage.

    Returns:
        The forms, and what the reader should know.
    """
    found: list[tuple[Candidate, float, _Stored]] = []
    weights = parameter_count(read(candidates[0].path))
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        for number, candidate in enumerate(candidates):
            show(f"store {candidate.name}", None)
            container = Path(folder, f"{number}.onnxz")
            producer = f"onnxcomp {versions()['onnxcomp']}"
            packed = pack_file(candidate.path, container, producer=producer, verify=False)
            entropy = packed.graph + sum(tensor.bound for tensor in packed.tensors)
            load = partial(session, container, threads=threads)
            stored = [*_whole(candidate, threads), _Stored(f"{candidate.name}, .onnxz", packed.size, load)]
            found += [(candidate, entropy, one) for one in stored]
        show("load", None)
        times = load_times([one.loader for _, _, one in found if one.loader])
    seconds = iter(map(min, times))
    forms = tuple(
        StoredForm(
            name=one.name,
            size=one.size,
            bits=8 * one.size / max(weights, 1),
            over_entropy=one.size / entropy - 1,
            load=next(seconds) if one.loader else None,
            score=None if candidate.quality is None else candidate.quality.score,
            agreement=None if candidate.quality is None else candidate.quality.agreement,
        )
        for candidate, entropy, one in found
    )
    return forms, () if find_spec("zstandard") else (_NO_ZSTD,)


def forms_beside_int8(
    work: Assignment,
    clean: "ir.Model",
    made: Measured,
    judge: Judge,
    verifier: Verifier,
    *,
    threads: int,
    show: Progress,
) -> tuple[tuple[StoredForm, ...], tuple[str, ...]]:
    """Store an original, the same with int8 weights, and what was made of it in every form.

    Args:
        work: Holds the original.
        clean: The original after clean-up.
        made: The result.
        judge: Of answers.
        verifier: Of what passes do.
        threads: See `stored_forms`.
        show: See `stored_forms`.

    Returns:
        See `stored_forms`.
    """
    show("store int8", None)
    ctx = PassContext(target=get_target("auto"), seed=work.seed)
    integers, (done,) = run_recipe(
        clean, Recipe((Step("quantize-weights", {"form": "fold", "block_size": 0}),)), ctx, verifier
    )
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as name:
        models = {"original": (work.model, judge.original)}
        if done.modified:
            models["int8 weights"] = integers, measured(integers, judge).quality
        models["shared"] = made.model, made.quality
        candidates = []
        for number, (label, (model, quality)) in enumerate(models.items()):
            path = Path(name, f"{number}.onnx")
            save(model, path)
            candidates.append(Candidate(label, path, quality))
        if is_one_file(work.model) and Path(work.source).is_file():
            candidates[0] = replace(candidates[0], path=Path(work.source))
        forms, notes = stored_forms(candidates, threads=threads, show=show)
    return forms, notes if done.modified else (*notes, "sizes are without int8: no weight can be quantized")


def _whole(candidate: Candidate, threads: int) -> Iterator[_Stored]:
    """Yield a model as it is, and all its files compressed as one; a session is made of one file only."""
    path = candidate.path
    files = [path, *(path.parent / name for name in external_files(read(path)))]
    size = sum(file.stat().st_size for file in files)
    yield _Stored(candidate.name, size, partial(session, path, threads=threads))
    zipper: Any = zlib.compressobj(_GZIP, wbits=_HAS_HEAD + zlib.MAX_WBITS)
    kinds = [(f"gzip -{_GZIP}", zipper, _unzipped)]
    if find_spec("zstandard"):
        import zstandard

        kinds.append((f"zstd -{_ZSTD}", zstandard.ZstdCompressor(level=_ZSTD).compressobj(size=size), _unzstd))
    for name, compressor, expand in kinds:
        size, content = 0, []
        for piece in (*map(compressor.compress, _pieces(files)), compressor.flush()):
            size += len(piece)
            if len(files) == 1:
                content.append(piece)
        loader = partial(_load, b"".join(content), expand, threads) if content else None
        yield _Stored(f"{candidate.name}, {name}", size, loader)


def _pieces(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _load(content: bytes, expand: Callable[[bytes], bytes], threads: int) -> Any:
    return session(expand(content), threads=threads)


def _unzipped(content: bytes) -> bytes:
    return zlib.decompress(content, wbits=_HAS_HEAD + zlib.MAX_WBITS)


def _unzstd(content: bytes) -> bytes:
    import zstandard

    found: bytes = zstandard.ZstdDecompressor().decompress(content)
    return found
