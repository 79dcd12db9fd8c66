"""From a container back to the model's files, or into memory."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from onnxcomp.errors import ModelError, OutputError
from onnxcomp.files import check_output, replacing
from onnxcomp.storage.archive import DEFAULT_LIMIT, Archive, opened, workers

__all__ = ["Unpacked", "in_memory", "unpack_file"]

_PROTOBUF_LIMIT = 2_000_000_000
Unpacked = tuple[tuple[str, int], ...]  # path and size of each file


def unpack_file(
    source: str | os.PathLike[str] | bytes,
    target: Path,
    *,
    overwrite: bool = True,
    limit: int = DEFAULT_LIMIT,
    threads: int = 0,
    progress: Callable[[str, float | None], None] | None = None,
) -> Unpacked:
    """Write the model of a container, and beside it its external data under the names that the model gives it.

    All files are written whole under other names first; the model takes its place last.

    Args:
        source: Path of the container, or its bytes.
        target: Where the model goes.
        overwrite: Whether files of external data may be replaced.
        limit: Bytes that it may unpack to.
        threads: Which decode chunks at the same time; 0: one per core.
        progress: Called with the stage and the share done.

    Returns:
        Path and size of the files written.

    Raises:
        UsageError: There is no file of that name that can be read.
        ModelError: It is no container, damaged, or larger than the limit.
        OutputError: A file can't be written, or exists and may not be replaced.
    """
    inputs = () if isinstance(source, bytes) else (Path(source),)
    with opened(source, limit=limit) as archive, workers(threads) as each, contextlib.ExitStack() as stack:
        files = archive.manifest.files
        paths = [target, *(target.parent / file.path for file in files[1:])]
        for path in paths[1:]:
            _check_inside(path, target)
            path.parent.mkdir(parents=True, exist_ok=True)
            check_output(path, inputs=inputs, overwrite=overwrite)
        total, done = sum(file.size for file in files) or 1, 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress("unpack", done / total)

        for number, path in enumerate(paths):  # what is entered first takes its place last
            temporary = stack.enter_context(replacing(path))
            with temporary.open("wb") as file:
                archive.write(number, file.write, each=each, progress=count)
    return tuple((str(path), file.size) for path, file in zip(paths, files, strict=True))


def _check_inside(path: Path, target: Path) -> None:
    """Refuse a path that links lead out of the folder, or to the model itself.

    Raises:
        OutputError: This one.
    """
    try:
        inside = path.resolve().is_relative_to(target.parent.resolve())
    except (OSError, RuntimeError) as err:  # a ring of links
        raise OutputError(f"cannot write {path}: {err}", hint="name another folder with --output") from err
    if not inside:
        raise OutputError(f"a link leads {path} out of the folder", hint="name another folder with --output")
    if path.resolve() == target.resolve():
        raise OutputError(f"the external data has the name of the model, {path.name}", hint="name another --output")


@contextlib.contextmanager
def in_memory(
    source: str | os.PathLike[str] | bytes, *, name: str = "", limit: int = DEFAULT_LIMIT, threads: int = 0
) -> Iterator[bytes | None]:
    """Give the model of a container as one serialized model, its external data put in; None: it is too large for that.

    Args:
        source: Path of the container, or its bytes.
        name: Of the container, for messages, where its bytes are given.
        limit: Bytes that it may unpack to.
        threads: Which decode chunks at the same time; 0: one per core.

    Raises:
        UsageError: There is no file of that name that can be read.
        ModelError: It is no container, damaged, or larger than the limit.
    """
    with opened(source, name=name, limit=limit) as archive, workers(threads) as each:
        files = archive.manifest.files
        if sum(file.size for file in files) >= _PROTOBUF_LIMIT:
            yield None
            return
        contents = []
        for number in range(len(files)):
            parts = bytearray()
            archive.write(number, parts.extend, each=each)
            contents.append(bytes(parts))
        yield contents[0] if len(files) == 1 else _embedded(archive, contents)


def _embedded(archive: Archive, contents: list[bytes]) -> bytes:
    """Put external data into its model."""
    import onnx
    from google.protobuf.message import DecodeError

    from onnxcomp.claims import all_tensors

    data = {file.path: content for file, content in zip(archive.manifest.files, contents, strict=True)}
    try:
        model = onnx.ModelProto.FromString(contents[0])
    except DecodeError as err:
        raise ModelError(f"{archive.name} holds no ONNX model") from err
    for tensor in all_tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            content, start = data.get(entries.get("location", "")), int(entries.get("offset") or 0)
            if content is None:
                raise ModelError(f"{archive.name} lacks the external data of tensor {tensor.name}")
            length = int(entries["length"]) if entries.get("length") else None
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = content[start:] if length is None else content[start : start + length]
    serialized: bytes = model.SerializeToString()
    return serialized
