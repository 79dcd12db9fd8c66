"""Writing a container: every tensor by the codec that makes it smallest, the graph beside them."""

import contextlib
import hashlib
import math
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from onnxcomp.claims import external_file
from onnxcomp.coding import Codec, CodedStream, encode_tensor, pack_bytes
from onnxcomp.errors import ModelError
from onnxcomp.files import replacing
from onnxcomp.storage import container
from onnxcomp.storage.archive import Archive, forget, mapped, workers
from onnxcomp.storage.container import FileEntry, GroupEntry, Manifest, Member
from onnxcomp.storage.groups import BITS, Payload, grouped
from onnxcomp.storage.wire import Literal, Message, TensorField, WireError, pieces, walk

__all__ = ["Packed", "PackedTensor", "pack_file"]

_SMALLEST = 64  # bytes; smaller tensors stay in the graph
_PIECE = 1 << 24  # bytes that are hashed at a time
_SMALL = 512  # bytes; smaller ones, where several are equal or of an odd kind, stay too
_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FLOAT16",
          11: "DOUBLE", 12: "UINT32", 13: "UINT64", 14: "COMPLEX64", 15: "COMPLEX128", 16: "BFLOAT16",
          17: "FLOAT8E4M3FN", 18: "FLOAT8E4M3FNUZ", 19: "FLOAT8E5M2", 20: "FLOAT8E5M2FNUZ", 21: "UINT4", 22: "INT4",
          23: "FLOAT4E2M1", 24: "FLOAT8E8M0", 25: "UINT2", 26: "INT2"}  # fmt: skip
_FIXED = {"raw_data": None, "float_data": ("FLOAT", "COMPLEX64"), "double_data": ("DOUBLE", "COMPLEX128")}
_HINT = "export the model again, or copy the file again"
Each = Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """What became of a tensor.

    Attributes:
        name: In the model; of tensors with the same data, the first one's.
        dtype: Data type; BYTES: data of another kind.
        shape: Of the tensor.
        codec: How it is stored.
        size: Bytes of its data.
        stored: Bytes in the container; of tensors that are stored together, each one's part by its size.
        bound: Bytes that a coder of the elements, or byte planes, of all that is stored together needs at least, each
            on its own: this one's part.
        copies: How often the model holds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    size: int
    stored: int
    bound: float
    copies: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What packing did.

    Attributes:
        tensors: Every tensor that is stored by itself.
        original: Bytes of the model's files.
        size: Bytes of the container.
        graph: Bytes that all but these tensors takes in it.
        exact: Whether unpacking gives back the files to the byte.
    """

    tensors: tuple[PackedTensor, ...]
    original: int
    size: int
    graph: int
    exact: bool


@dataclass(slots=True)
class _Source:
    """The files of a model."""

    model: memoryview
    root: Message
    files: list[tuple[str, memoryview]]  # of external data
    regions: list[tuple[int, int, int, TensorField]]  # number of the file (1: the first), begin, end, tensor


def pack_file(
    source: Path | bytes,
    target: Path,
    *,
    producer: str = "onnxcomp",
    codec: Codec | None = None,
    verify: bool = True,
    threads: int = 0,
    progress: Callable[[str, float | None], None] | None = None,
) -> Packed:
    """Write the container of a model; the target holds either all of it or what was there before.

    Args:
        source: Path of the model (external data is found beside it), or the serialized model.
        target: Where the container goes.
        producer: Written into it.
        codec: Of all tensors; None: the smallest for each.
        verify: Whether the container is decoded and compared before it takes its place.
        threads: Which code chunks at the same time; 0: one per core.
        progress: Called with the stage and the share done.

    Raises:
        UsageError: There is no file of that name that can be read.
        ModelError: It is no ONNX model, or its external data is missing or lies outside its folder.
        OutputError: The target can't be written.
    """
    show = progress or (lambda _stage, _share: None)
    with contextlib.ExitStack() as stack:
        found = _open(source, stack)
        skeleton, exact = _skeleton(found)
        payloads = _payloads(found)
        files = _files(found, payloads)
        each = stack.enter_context(workers(threads))
        temporary = stack.enter_context(replacing(target))
        spool = temporary.with_name("spool")
        total = sum(len(payload.data) for payload in payloads) or 1
        done = 0
        entries: list[GroupEntry] = []
        told: list[PackedTensor] = []
        with spool.open("wb") as data:
            for group in grouped(payloads):
                show("pack", done / total)
                entry, bound = _write(group, data, codec, each)
                entries.append(entry)
                told += _told(group, entry, bound)
                forget(group[0].data)
                done += entry.size
        manifest = Manifest(tuple(files), len(skeleton), tuple(entries)).to_bytes()
        graph = pack_bytes(skeleton)
        sizes = {container.GRAPH: len(graph), container.MANIFEST: len(manifest)}
        sizes |= {str(index): entry.stored for index, entry in enumerate(entries)}
        header = container.header_bytes(sizes, producer)
        with temporary.open("wb") as file, spool.open("rb") as spooled:
            file.write(header + graph + manifest)
            shutil.copyfileobj(spooled, file, 1 << 20)
            size = file.tell()
        spool.unlink()
        if verify:
            _verify(temporary, each, show)
        original = len(found.model) + sum(len(data) for _, data in found.files)
        exact = exact and _is_exact(found, files)
        return Packed(tuple(told), original, size, len(header) + len(graph) + len(manifest), exact)


def _open(source: Path | bytes, stack: contextlib.ExitStack) -> _Source:
    """Find the tensors of a model and the files that hold them."""
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    model = memoryview(source) if isinstance(source, bytes) else stack.enter_context(mapped(source))
    if not model:
        raise ModelError(f"{name} is empty", hint=_HINT)
    try:
        root = walk(model)
    except (WireError, RecursionError) as err:
        raise ModelError(f"{name} is not an ONNX model, or is cut short: {err}", hint=_HINT) from err
    files: dict[str, memoryview] = {}
    regions = []
    for tensor in root.tensors():
        if tensor.external is None:
            continue
        location = tensor.external.get("location", "")
        if isinstance(source, bytes):
            raise ModelError(f"{name} keeps tensor {tensor.name} in another file ({location})", hint="give a path")
        if location not in files:
            path = external_file(location, source.parent, tensor=tensor.name, name=name)
            files[location] = stack.enter_context(mapped(path))
        start, stop = _extent(tensor, len(files[location]), name)
        regions.append((list(files).index(location) + 1, start, stop, tensor))
    return _Source(model, root, list(files.items()), regions)


def _extent(tensor: TensorField, size: int, name: str) -> tuple[int, int]:
    entries = tensor.external or {}
    try:
        start = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else _needed(tensor.dtype, tensor.dims)
    except ValueError as err:
        message = f"{name}: external data of {tensor.name} has no valid offset and length"
        raise ModelError(message, hint=_HINT) from err
    if length is None or min(start, length) < 0 or start + length > size:
        raise ModelError(f"{name}: the external data of tensor {tensor.name} is cut short", hint=_HINT)
    return start, start + length


def _needed(dtype: int, dims: Iterable[int]) -> int | None:
    return -(-math.prod(dims) * BITS[_TYPES[dtype]] // 8) if dtype in _TYPES else None


def _skeleton(source: _Source) -> tuple[bytes, bool]:
    """Take the data of large tensors out of the model; say whether putting it back gives the same bytes."""
    taken = {tensor.index: tensor.stop - tensor.start for tensor in _stored(source)}
    skeleton = b"".join(
        bytes(source.model[part.start : part.stop]) if part.new is None else part.new
        for part in pieces(source.root, dict.fromkeys(taken, 0))
        if isinstance(part, Literal)
    )
    back = pieces(walk(skeleton), taken)
    size = sum(part.size if isinstance(part, Literal) else taken[part] for part in back)
    if size == len(source.model):
        return skeleton, True
    # Lengths were written with more bytes than they need; a parser writes them as everybody does
    import onnx

    again = onnx.ModelProto.FromString(bytes(source.model)).SerializeToString()
    source.model = memoryview(again)
    source.root = walk(again)
    return _skeleton(source)[0], False


def _stored(source: _Source) -> list[TensorField]:
    """Return the tensors in the model's own file whose data is stored by itself."""
    tensors = [t for t in source.root.tensors() if t.external is None and t.field and t.stop - t.start >= _SMALLEST]
    small = {t.index: bytes(source.model[t.start : t.stop]) for t in tensors if t.stop - t.start < _SMALL}
    counts = Counter(small.values())
    return [
        tensor
        for tensor in tensors
        if tensor.index not in small
        or (
            counts[small[tensor.index]] == 1
            and _described(tensor, tensor.field, len(small[tensor.index]))[0] != "BYTES"
        )
    ]


def _payloads(source: _Source) -> list[Payload]:
    """Return what is stored: of tensors with the same data, one."""
    found: dict[tuple[str, str, tuple[int, ...]], Payload] = {}
    stored = [(0, t.index, source.model[t.start : t.stop], t, t.field) for t in _stored(source)]
    for number, start, stop, tensor in _joined(source.regions):
        data = source.files[number - 1][1][start:stop]
        stored.append((number, start, data, tensor or TensorField(0), "raw_data" if tensor else ""))
    for number, at, data, tensor, field in stored:
        dtype, shape = _described(tensor, field, len(data))
        digest = _sha256([data])
        payload = found.setdefault(
            (digest, dtype, shape), Payload(data, dtype, shape, tensor.name or f"tensor {tensor.index}", [], digest)
        )
        payload.places.append((number, at))
    return list(found.values())


def _joined(
    regions: Iterable[tuple[int, int, int, TensorField]],
) -> Iterator[tuple[int, int, int, TensorField | None]]:
    """Yield the regions of external files once, those that overlap as one; its tensor is None then."""
    last: tuple[int, int, int, TensorField | None] | None = None
    for number, start, stop, tensor in sorted(regions, key=lambda region: region[:3]):
        if stop == start:
            continue
        if last is not None and last[0] == number and start < last[2]:
            same = (start, stop) == last[1:3]
            last = (number, last[1], max(stop, last[2]), last[3] if same else None)
            continue
        if last is not None:
            yield last
        last = (number, start, stop, tensor)
    if last is not None:
        yield last


def _described(tensor: TensorField, field: str, size: int) -> tuple[str, tuple[int, ...]]:
    """Return data type and shape of data; where they do not fit its size, it is just bytes."""
    dtype = _TYPES.get(tensor.dtype, "BYTES")
    fixed = field in _FIXED and ((allowed := _FIXED[field]) is None or dtype in allowed)
    if fixed and _needed(tensor.dtype, tensor.dims) == size:
        return dtype, tensor.dims
    return "BYTES", (size,)


def _files(source: _Source, payloads: Iterable[Payload]) -> list[FileEntry]:
    """Return what unpacking will give."""
    files = [FileEntry("", len(source.model), _sha256([source.model]))]
    by_file: Mapping[int, list[tuple[int, memoryview]]] = defaultdict(list)
    for payload in payloads:
        for number, at in payload.places:
            by_file[number].append((at, payload.data))
    for number, (location, _) in enumerate(source.files, 1):
        parts: list[memoryview] = []
        end = 0
        for at, data in sorted(by_file[number], key=lambda place: place[0]):
            parts += [memoryview(bytes(at - end)), data]
            end = at + len(data)
        path = str(PurePosixPath(location.replace("\\", "/")))
        if ".." in path.split("/"):
            raise ModelError(f"the path of external data goes up: {location}", hint="export the model again")
        files.append(FileEntry(path, end, _sha256(parts)))
    return files


def _sha256(parts: Iterable[memoryview]) -> str:
    """Return the SHA-256 of bytes, in pieces, so that they need not all be in memory."""
    digest = hashlib.sha256()
    for part in parts:
        for start in range(0, len(part), _PIECE):
            digest.update(part[start : start + _PIECE])
            forget(part)
    return digest.hexdigest()


def _is_exact(source: _Source, files: list[FileEntry]) -> bool:
    """Say whether the files of external data hold nothing but tensors and zeros."""
    return all(
        entry.size == len(data) and _sha256([data]) == entry.sha256
        for entry, (_, data) in zip(files[1:], source.files, strict=True)
    )


def _write(group: Sequence[Payload], file: Any, codec: Codec | None, each: Each) -> tuple[GroupEntry, float]:
    """Code a group and write its streams; return its entry, and its bound in bytes."""
    first = group[0]
    parts = [np.frombuffer(payload.data, np.uint8) for payload in group]
    data = parts[0] if len(parts) == 1 else np.concatenate(parts)
    matrices = [payload.matrix for payload in group if payload.matrix is not None]
    coded = encode_tensor(data, width=first.width, rotated=first.rotated, matrices=matrices, codec=codec, each=each)
    tables = []
    for stream in coded.streams:
        file.write(stream.head)
        for chunk in stream.chunks:
            file.write(chunk)
        tables.append(tuple((len(chunk), zlib.crc32(chunk)) for chunk in stream.chunks))
    bare = tuple(CodedStream(s.coder, s.size, s.paired, s.lanes, b"", ()) for s in coded.streams)
    entry = GroupEntry(
        tuple(Member(len(payload.data), tuple(payload.places)) for payload in group),
        first.sha256 if len(group) == 1 else hashlib.sha256(data.data).hexdigest(),
        coded.codec,
        first.width,
        coded.rotated,
        bare,
        tuple(len(stream.head) for stream in coded.streams),
        tuple(tables),
    )
    return entry, coded.bound / 8


def _told(group: Sequence[Payload], entry: GroupEntry, bound: float) -> Iterator[PackedTensor]:
    """Yield what became of each tensor of a group."""
    at = 0
    for payload in group:
        end = at + len(payload.data)
        stored = entry.stored * end // entry.size - entry.stored * at // entry.size
        part = bound * len(payload.data) / entry.size
        codec, size, copies = entry.codec.name.lower(), len(payload.data), len(payload.places)
        yield PackedTensor(payload.name, payload.dtype, payload.shape, codec, size, stored, part, copies)
        at = end


def _verify(path: Path, each: Each, show: Callable[[str, float | None], None]) -> None:
    """Decode all of a container: its checksums are those of the original's files.

    Raises:
        ModelError: Something came out different.
    """
    with mapped(path) as data:
        archive = Archive(data, name=str(path), limit=1 << 62)
        total, done = sum(file.size for file in archive.manifest.files) or 1, 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            show("verify", done / total)

        for number in range(len(archive.manifest.files)):
            archive.write(number, lambda _: None, each=each, progress=count)
