"""ONNX files and ``ir.Model`` values: load, validate, upgrade, describe, save. The input file is only ever read."""

import contextlib
import hashlib
import itertools
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp import customops, runtime
from onnxcomp.claims import GRAPH_HINT, check_nodes, check_tensors
from onnxcomp.data import Feed
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.facts import all_nodes, foreign_domains, initializers, opset
from onnxcomp.files import replacing
from onnxcomp.protos import from_proto, to_proto
from onnxcomp.runtime import Execution, Provider, Session, limits
from onnxcomp.storage import in_memory, is_archive, pack_file

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "PACKED_SUFFIX",
    "executions",
    "external_files",
    "fingerprint",
    "infer_shapes",
    "is_one_file",
    "is_packed",
    "load",
    "materialized",
    "open_session",
    "read",
    "save",
    "serialized",
    "size",
    "upgrade_opset",
]

PACKED_SUFFIX = ".onnxz"  # of files that are written as containers
_PROTOBUF_LIMIT = 2_000_000_000  # protobuf refuses messages of 2 GiB; leave room for the graph
_EXTERNAL = "onnxcomp.external_data"  # of a loaded graph's meta: bytes of each other file that tensors came from
_SOURCES = "onnxcomp.sources"  # of a loaded graph's meta: where those files are
_PACKED = "onnxcomp.packed"  # of a loaded graph's meta: whether it came out of a container
_SEPARATE_INITIALIZERS = 4  # the first IR version whose initializers need not be inputs; if they are, as defaults
_EXTERNAL_THRESHOLD = 1024  # bytes: smaller tensors stay in the .onnx file
_PATH_HINT = "name an .onnx file that is there and may be read"
_FILE_HINT = "export the model again, or copy the file again"


def load(source: "str | os.PathLike[str] | bytes | ir.Model") -> "ir.Model":
    """Read and validate a model; onnxruntime must load it.

    Args:
        source: A path (external data is found beside it) or the bytes of an ONNX file or an ``.onnxz`` container, or a
            model in memory (copied).

    Raises:
        ModelError: It is no ONNX model, its external data is missing or lies outside its folder, it is a container
            that is damaged or unpacks to over 2 GB, or onnxruntime refuses it.
        UsageError: There is no file of that name that can be read, or the source is of another type.
    """
    model = _read(source)
    _fit_to_runtime(model)
    try:
        open_session(model, optimize=False)
    except ModelError as err:
        if not (domains := foreign_domains(model)):
            raise
        raise ModelError(f"{err} (the model has operators of {', '.join(domains)})", hint=customops.HINT) from err
    _copy(model)  # every pass works on one
    return model


def read(source: "str | os.PathLike[str] | bytes | ir.Model") -> "ir.Model":
    """Read a model as it is, to look at: nobody asks whether onnxruntime would load it.

    Args:
        source: As for `load`.

    Raises:
        ModelError: It can't be read, is no ONNX model, or its external data is missing or lies outside its folder.
        UsageError: The source is of another type.
    """
    model = _read(source)
    _copy(model)  # whoever looks works on one
    return model


def _read(source: "str | os.PathLike[str] | bytes | ir.Model") -> "ir.Model":
    import onnx_ir as ir

    if isinstance(source, ir.Model):
        return _copy(source)
    if isinstance(source, bytes):
        return _unpacked(source, "the given bytes") if is_archive(source) else _parse(source, "the given bytes", None)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        content = _content(path)
        return _unpacked(content, str(path)) if is_archive(content) else _parse(content, str(path), path.parent)
    raise UsageError(
        f"a model can't be given as {type(source).__name__}",
        hint="pass a path, bytes, or an onnx_ir.Model; for an onnx.ModelProto: model.SerializeToString()",
    )


def save(model: "ir.Model", path: str | os.PathLike[str]) -> None:
    """Write a model so that ``path`` holds either the whole new model or what was there before.

    A model too large for one protobuf message gets its tensors in ``NAME.1.data`` beside it: a file of a new number
    each time, so that the old model has its own tensors until the new one takes its place. Where the path ends with
    ``.onnxz``, the file is a container.

    Raises:
        OutputError: The folder can't be written, or the path is that of a folder, a device or a pipe.
    """
    path = Path(path)
    if path.suffix == PACKED_SUFFIX:
        with materialized(model) as source:
            pack_file(source, path)
        return
    if not _fits_protobuf(model):
        _save_with_data(model, path)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(serialized(model))


def serialized(model: "ir.Model") -> bytes:
    """Return the model as one ONNX file.

    Raises:
        ModelError: It is too large for one file, or damaged.
    """
    if not _fits_protobuf(model):
        raise ModelError("the model is too large for one protobuf message (2 GB)")
    try:
        content: bytes = to_proto(model).SerializeToString()
    except Exception as err:  # of damaged names, for example, which protobuf reads and does not write
        raise ModelError(f"the model can't be written: {_root(err)}", hint=GRAPH_HINT) from err
    return content


def open_session(
    model: "ir.Model", *, threads: int = 1, optimize: bool = True, spin: bool = True, provider: Provider = "cpu"
) -> Session:
    """Load a model into onnxruntime, see `Session`; one of over 2 GB goes through a temporary folder.

    Raises:
        EnvironmentUnavailable: The provider is not there.
        ModelError: onnxruntime refuses it.
    """
    with materialized(model) as source:
        return Session(source, threads=threads, optimize=optimize, spin=spin, provider=provider)


def executions(model: "ir.Model", feed: Feed) -> list[Execution]:
    """Run a model once and return every execution of a node, as `runtime.executions` does."""
    with materialized(model) as source:
        return runtime.executions(source, feed)


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


def fingerprint(model: "ir.Model") -> str:
    """Return what equal models share, and others do not: a hash of graph and weights, without the metadata."""
    bare = model.clone()
    bare.metadata_props.clear()
    digest = hashlib.sha256()
    with materialized(bare) as source:
        if isinstance(source, bytes):
            digest.update(source)
        else:
            for path in sorted(source.parent.iterdir()):  # the graph and its external data
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def upgrade_opset(model: "ir.Model", minimum: int) -> bool:
    """Bring the default operator set of a model, in place, to at least the given version; say whether that changed it.

    The converter is not always right: the caller verifies the result by running it.

    Raises:
        ModelError: The converter gives up, or the model holds functions (which it does not convert).
    """
    import onnx.version_converter

    if opset(model) >= minimum:
        return False
    if model.functions:
        raise ModelError(f"cannot convert opset {opset(model)} to {minimum}: the model has functions of its own")
    try:
        converted = from_proto(onnx.version_converter.convert_version(to_proto(model), minimum))
    except Exception as err:  # the converter is C++ code that raises many kinds
        raise ModelError(f"cannot convert opset {opset(model)} to {minimum}: {str(err).strip()[:300]}") from err
    converted.graph.meta.update(model.graph.meta)
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, converted.ir_version)
    return True


def infer_shapes(model: "ir.Model") -> None:
    """Add the types and shapes that follow from the inputs, in place; what can't be inferred stays as it was.

    What the file claims of values in between may be wrong (a batch of one, where the inputs take any), and is used only
    where an operator of another domain gives them.

    Raises:
        ModelError: The model contradicts itself.
    """
    import onnx.shape_inference

    if not _fits_protobuf(model):
        return  # onnx's inference serializes the model; larger ones keep the types they came with
    proto = to_proto(model)
    theirs = {name for node in proto.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    claims = [info for info in proto.graph.value_info if info.name in theirs]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(claims)
    try:
        inferred = from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    except Exception as err:  # C++ code that raises many kinds
        raise ModelError(f"shape inference failed: {str(err).strip()[:300]}") from err
    # By position, not by name: the branches of an If may use one name for different tensors
    for node, typed in zip(model.graph.all_nodes(), inferred.graph.all_nodes(), strict=True):
        for value, found in zip(node.outputs, typed.outputs, strict=True):
            value.type = value.type or found.type
            value.shape = found.shape if found.shape is not None else value.shape


def size(model: "ir.Model") -> int:
    """Return how many bytes the model takes on disk, external data included."""
    if _fits_protobuf(model):
        return len(serialized(model))
    graph: int = to_proto(model).ByteSize()
    return graph + sum(v.const_value.nbytes for v in initializers(model) if v.const_value is not None)


def _save_with_data(model: "ir.Model", path: Path) -> None:
    """Write the tensors beside the model; earlier ones are removed when nothing points to them any more."""
    import onnx_ir as ir

    numbers = itertools.count(1)
    data = next(file for n in numbers if not os.path.lexists(file := path.with_name(f"{path.name}.{n}.data")))
    try:
        with replacing(path) as temporary:
            ir.save(model, temporary, external_data=data.name, size_threshold_bytes=_EXTERNAL_THRESHOLD)
            temporary.with_name(data.name).replace(data)
    except BaseException:
        if not _points_to(path, data):
            data.unlink(missing_ok=True)
        raise
    ours = re.compile(rf"{re.escape(path.name)}\.\d+\.data")
    kept = {data.resolve(), *model.graph.meta.get(_SOURCES, ())}  # it may have been made from its own predecessor
    for file in path.parent.iterdir():
        if ours.fullmatch(file.name) and file.resolve() not in kept:
            file.unlink()


def _points_to(path: Path, data: Path) -> bool:
    """Say whether the model at a path names a file as its external data."""
    return path.is_file() and data.name.encode() in path.read_bytes()


def is_one_file(model: "ir.Model") -> bool:
    """Say whether the file that a model was loaded from is all of it as it is: no external data, no container."""
    return not external_files(model) and not is_packed(model)


def is_packed(model: "ir.Model") -> bool:
    """Say whether a model was loaded from a container."""
    return bool(model.graph.meta.get(_PACKED))


def external_files(model: "ir.Model") -> dict[str, int]:
    """Return the bytes of each file, by its path from the model's folder, that holds tensors of a model beside it."""
    return dict(model.graph.meta.get(_EXTERNAL, {}))


def _content(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a device or a pipe may never end
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise UsageError(f"cannot read {path}: it is {kind}", hint=_PATH_HINT)
        return path.read_bytes()
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise UsageError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}", hint=_PATH_HINT) from err


def _unpacked(content: bytes, name: str) -> "ir.Model":
    """Read the model in a container."""
    with in_memory(content, name=name) as unpacked:
        if unpacked is None:
            hint = f"onnxcomp unpack {name}, and give the model that it writes"
            raise ModelError(f"{name} unpacks to over 2 GB, which can't be read from it directly", hint=hint)
        model = _parse(unpacked, name, None)
    model.graph.meta[_PACKED] = True
    return model


def _parse(content: bytes, name: str, folder: Path | None) -> "ir.Model":
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    if not content:
        raise ModelError(f"{name} is empty", hint=_FILE_HINT)
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError as err:
        raise ModelError(f"{name} is not an ONNX model, or is cut short", hint=_FILE_HINT) from err
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{name} is not an ONNX model: it has no graph with an output", hint=_FILE_HINT)
    check_nodes(proto, name)
    external = check_tensors(proto, name, folder)
    try:
        model = from_proto(proto)
        if folder is not None:
            ir.external_data.set_base_dir(model.graph, folder)
        if _fits_protobuf(model):
            model = ir.external_data.load_to_model(model)
        model.graph.sort()  # onnxruntime takes nodes in any order, we need producers first
    except ModelError:
        raise
    except Exception as err:  # onnx-ir raises many kinds on malformed graphs
        raise ModelError(f"{name} is malformed: {_root(err)}", hint=GRAPH_HINT) from err
    model.graph.meta[_EXTERNAL] = external
    model.graph.meta[_SOURCES] = frozenset((folder / file).resolve() for file in external) if folder else frozenset()
    return model


def _copy(model: "ir.Model") -> "ir.Model":
    try:
        return model.clone()
    except Exception as err:  # onnx-ir raises many kinds on malformed graphs
        raise ModelError(f"the model is malformed: {_root(err)}", hint=GRAPH_HINT) from err


def _root(err: BaseException) -> str:
    """Say what an exception comes from: onnx-ir wraps one for each level of the graph."""
    while err.__cause__ is not None:
        err = err.__cause__
    return f"{type(err).__name__}: {str(err)[:300]}"


def _fit_to_runtime(model: "ir.Model") -> None:
    newest = limits()
    # Writers stamp their own newest IR version on models that use nothing of it
    model.ir_version = min(model.ir_version, newest.ir_version)
    if model.ir_version < _SEPARATE_INITIALIZERS:  # their initializers had to be inputs, but onnxruntime takes none
        for value in [value for value in model.graph.inputs if value.is_initializer()]:
            model.graph.inputs.remove(value)
        model.ir_version = _SEPARATE_INITIALIZERS
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
