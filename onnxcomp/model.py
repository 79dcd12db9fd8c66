"""ONNX files and ``ir.Model`` values: load, validate, upgrade, describe, save. The input file is only ever read."""

import contextlib
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp import runtime
from onnxcomp.data import Feed
from onnxcomp.errors import ModelError, OutputError, UsageError
from onnxcomp.facts import all_nodes, initializers, opset
from onnxcomp.runtime import Session, limits

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "check_output",
    "copy_file",
    "infer_shapes",
    "is_one_file",
    "load",
    "materialized",
    "node_times",
    "open_session",
    "save",
    "serialized",
    "size",
    "upgrade_opset",
]

_PROTOBUF_LIMIT = 2_000_000_000  # protobuf refuses messages of 2 GiB; leave room for the graph
_EXTERNAL = "onnxcomp.external_data"  # of a loaded model's meta: some of its tensors came from another file
_EXTERNAL_THRESHOLD = 1024  # bytes: smaller tensors stay in the .onnx file


def load(source: "str | os.PathLike[str] | bytes | ir.Model") -> "ir.Model":
    """Read and validate a model; onnxruntime must load it.

    Args:
        source: A path (external data is found beside it), the serialized model, or a model in memory (copied).

    Raises:
        ModelError: It can't be read, is no ONNX model, its external data is missing or lies outside its folder,
            or onnxruntime refuses it.
        UsageError: The source is of another type.
    """
    import onnx_ir as ir

    if isinstance(source, ir.Model):
        model = source.clone()
    elif isinstance(source, bytes):
        model = _parse(source, "the given bytes", None)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        model = _parse(_content(path), str(path), path.parent)
    else:
        raise UsageError(
            f"a model can't be given as {type(source).__name__}",
            hint="pass a path, bytes, or an onnx_ir.Model; for an onnx.ModelProto: model.SerializeToString()",
        )
    _fit_to_runtime(model)
    open_session(model, optimize=False)
    return model


def save(model: "ir.Model", path: str | os.PathLike[str]) -> None:
    """Write a model so that ``path`` holds either the whole new file or what was there before.

    A model too large for one protobuf message gets its tensors in ``NAME.data`` beside it.

    Raises:
        OutputError: The folder can't be written, or the path is that of a folder, a device or a pipe.
    """
    import onnx_ir as ir

    path = Path(path)
    try:
        _check_kind(path, _status(path))
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder, path.name)
            if _fits_protobuf(model):
                temporary.write_bytes(serialized(model))
            else:
                data = f"{path.name}.data"
                ir.save(model, temporary, external_data=data, size_threshold_bytes=_EXTERNAL_THRESHOLD)
                Path(folder, data).replace(path.with_name(data))
            _replace(temporary, path)
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror or err}") from err


def copy_file(source: Path, target: Path) -> None:
    """Copy a model file byte for byte, atomically; its external data must lie beside ``target`` already."""
    try:
        _check_kind(target, _status(target))
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            temporary = Path(folder, target.name)
            shutil.copyfile(source, temporary)
            _replace(temporary, target)
    except OSError as err:
        raise OutputError(f"cannot write {target}: {err.strerror or err}") from err


def check_output(path: Path, *, inputs: "tuple[Path, ...]", overwrite: bool) -> None:
    """Refuse, before any work, an output path that can't be used.

    Raises:
        OutputError: Its folder is missing or read-only, it exists and may not be replaced, is a folder, a device or
            anything else but a regular file, or is an input.
    """
    if path == Path("-"):
        raise OutputError("standard output is not supported", hint="name a file with --output")
    try:
        folder, found = _status(path.parent), _status(path)
    except (OSError, ValueError) as err:  # a name that is too long, a folder that may not be searched, a NUL
        raise OutputError(f"cannot write {path}: {getattr(err, 'strerror', None) or err}") from err
    if folder is None or not stat.S_ISDIR(folder.st_mode):
        raise OutputError(f"the folder of the output {path} does not exist", hint=f"mkdir -p {path.parent}")
    _check_kind(path, found)
    if found is not None and any(_is_file(found, source) for source in inputs):
        raise OutputError(f"the output {path} is the input itself", hint="name another file with --output")
    if found is not None and not overwrite:
        raise OutputError(f"the output {path} exists", hint="--overwrite replaces it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder {path.parent} is not writable")


def serialized(model: "ir.Model") -> bytes:
    """Return the model as one ONNX file.

    Raises:
        ModelError: It is too large for one file.
    """
    import onnx_ir as ir

    if not _fits_protobuf(model):
        raise ModelError("the model is too large for one protobuf message (2 GB)")
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def open_session(model: "ir.Model", *, threads: int = 1, optimize: bool = True) -> Session:
    """Load a model into onnxruntime; one of over 2 GB goes through a temporary folder.

    Raises:
        ModelError: onnxruntime refuses it.
    """
    with materialized(model) as source:
        return Session(source, threads=threads, optimize=optimize)


def node_times(model: "ir.Model", feed: Feed, *, threads: int = 1) -> dict[str, float]:
    """Return the median seconds that onnxruntime spends on each node of the main graph, by name.

    A node fused into its neighbour counts with it; nodes that can't be told from the profile are left out.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    with materialized(model) as source:
        profile = runtime.node_times(source, feed, threads=threads)
    found = {}
    for node in model.graph:
        names = [node.name, *(output.name for output in node.outputs)]
        for output in node.outputs:
            names += [value.name for user in output.consumers() for value in user.outputs]
        known = [profile[name] for name in names if name in profile]
        if known:
            found[str(node.name)] = known[0]
    return found


@contextlib.contextmanager
def materialized(model: "ir.Model") -> Iterator[bytes | Path]:
    """Give the model in a form that onnxruntime loads: bytes, or a file in a temporary folder where it is too large."""
    if _fits_protobuf(model):
        yield serialized(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save(model, path)
        yield path


def upgrade_opset(model: "ir.Model", minimum: int) -> bool:
    """Bring the default operator set of a model, in place, to at least the given version; say whether that changed it.

    The converter is not always right: the caller verifies the result by running it.

    Raises:
        ModelError: The converter gives up, or the model holds functions (which it does not convert).
    """
    import onnx.version_converter
    import onnx_ir as ir

    if opset(model) >= minimum:
        return False
    if model.functions:
        raise ModelError(f"cannot convert opset {opset(model)} to {minimum}: the model has functions of its own")
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), minimum))
    except Exception as err:  # the converter is C++ code that raises many kinds
        raise ModelError(f"cannot convert opset {opset(model)} to {minimum}: {str(err).strip()[:300]}") from err
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, converted.ir_version)
    return True


def infer_shapes(model: "ir.Model") -> None:
    """Add the types and shapes that follow from the inputs, in place; what can't be inferred stays unknown.

    Raises:
        ModelError: The model contradicts itself.
    """
    import onnx.shape_inference
    import onnx_ir as ir

    if not _fits_protobuf(model):
        return  # onnx's inference serializes the model; larger ones keep the types they came with
    try:
        inferred = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True))
    except Exception as err:  # C++ code that raises many kinds
        raise ModelError(f"shape inference failed: {str(err).strip()[:300]}") from err
    # By position, not by name: the branches of an If may use one name for different tensors
    for node, typed in zip(model.graph.all_nodes(), inferred.graph.all_nodes(), strict=True):
        for value, found in zip(node.outputs, typed.outputs, strict=True):
            value.type = value.type or found.type
            value.shape = found.shape if found.shape is not None else value.shape


def size(model: "ir.Model") -> int:
    """Return how many bytes the model takes on disk, external data included."""
    import onnx_ir as ir

    if _fits_protobuf(model):
        return len(serialized(model))
    graph: int = ir.to_proto(model).ByteSize()
    return graph + sum(v.const_value.nbytes for v in initializers(model) if v.const_value is not None)


def is_one_file(model: "ir.Model") -> bool:
    """Say whether the file that a model was loaded from holds all of it: no external data."""
    return not model.meta.get(_EXTERNAL, False)


def _status(path: Path) -> os.stat_result | None:
    """Say what a path leads to, links followed; None: to nothing."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_kind(path: Path, found: os.stat_result | None) -> None:
    """Refuse to replace a folder, a device or a pipe."""
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(f"the output {path} is a folder")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise OutputError(f"the output {path} is not a regular file", hint="name another file")


def _is_file(found: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(found, path.stat())
    except (OSError, ValueError):  # what can't be looked at is refused where it is read
        return False


def _content(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a device or a pipe may never end
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise ModelError(f"cannot read {path}: it is {kind}")
        return path.read_bytes()
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise ModelError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}") from err


def _parse(content: bytes, name: str, folder: Path | None) -> "ir.Model":
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    if not content:
        raise ModelError(f"{name} is empty")
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError as err:
        raise ModelError(f"{name} is not an ONNX model, or is cut short") from err
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{name} is not an ONNX model: it has no graph with an output")
    external = _check_external_data(proto, name, folder)
    try:
        model: ir.Model = ir.from_proto(proto)
        if folder is not None:
            ir.external_data.set_base_dir(model.graph, folder)
        if _fits_protobuf(model):
            model = ir.external_data.load_to_model(model)
    except Exception as err:  # onnx-ir raises many kinds on malformed graphs
        raise ModelError(f"{name} is malformed: {type(err).__name__}: {str(err)[:300]}") from err
    model.meta[_EXTERNAL] = external
    return model


def _check_external_data(proto: "object", name: str, folder: Path | None) -> bool:
    """Refuse external data that can't be read or must not be; say whether there is any."""
    import onnx
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    assert isinstance(proto, onnx.ModelProto)
    external = [tensor for tensor in _get_all_tensors(proto) if uses_external_data(tensor)]
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if folder is None:
            raise ModelError(f"{name} keeps tensor {tensor.name} in another file ({location})", hint="give a path")
        root, file = folder.resolve(), (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(root):
            raise ModelError(f"{name}: external data of {tensor.name} lies outside the model's folder: {location!r}")
        if not file.is_file():
            raise ModelError(f"{name}: external data file {location} is missing")
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
        except ValueError as err:
            raise ModelError(f"{name}: external data of {tensor.name} has no valid offset and length") from err
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"{name}: external data file {location} is cut short")
    return bool(external)


def _fit_to_runtime(model: "ir.Model") -> None:
    newest = limits()
    # Writers stamp their own newest IR version on models that use nothing of it
    model.ir_version = min(model.ir_version, newest.ir_version)
    if opset(model) > newest.opset:
        raise ModelError(
            f"the model uses opset {opset(model)}, the installed onnxruntime loads up to {newest.opset}",
            hint="upgrade onnxruntime, or export the model with an older opset",
        )


def _fits_protobuf(model: "ir.Model") -> bool:
    total = sum(v.const_value.nbytes for v in initializers(model) if v.const_value is not None)
    for node in all_nodes(model):
        for attribute in node.attributes.values():
            if attribute.type.name == "TENSOR" and attribute.value is not None:
                total += attribute.as_tensor().nbytes
    return math.ceil(total) < _PROTOBUF_LIMIT


def _replace(temporary: Path, path: Path) -> None:
    """Move a finished file to its place and make it survive a power cut."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
