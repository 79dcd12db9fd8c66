"""ONNX files and ``ir.Model`` values: load, validate, upgrade, describe, save. The input file is only ever read."""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp import runtime
from onnxcomp.data import Feed, InputSpec
from onnxcomp.errors import ModelError, OutputError
from onnxcomp.runtime import Session, limits

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "all_nodes",
    "check_output",
    "copy_file",
    "feature_outputs",
    "infer_shapes",
    "initializers",
    "input_bounds",
    "input_specs",
    "is_one_file",
    "is_quantized",
    "load",
    "materialized",
    "node_times",
    "open_session",
    "opset",
    "parameter_count",
    "save",
    "serialized",
    "size",
    "upgrade_opset",
]

_PROTOBUF_LIMIT = 2_000_000_000  # protobuf refuses messages of 2 GiB; leave room for the graph
_EXTERNAL = "onnxcomp.external_data"  # of a loaded model's meta: some of its tensors came from another file
_EXTERNAL_THRESHOLD = 1024  # bytes: smaller tensors stay in the .onnx file
_QUANTIZED_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
                            "ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})  # fmt: skip

_MOVES = frozenset({"Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
                    "Unsqueeze"})  # fmt: skip
_FEATURE_OPS = frozenset({"Div", "DynamicQuantizeLSTM", "GRU", "LSTM", "LayerNormalization", "LpNormalization", "Mul",
                          "RMSNormalization", "RNN", "ReduceMean", "SimplifiedLayerNormalization",
                          "SkipLayerNormalization"})  # fmt: skip
# Operators whose output holds the same integers as their first input
_INDEX_PRESERVING = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
                               "Unsqueeze"})  # fmt: skip


def load(source: "str | os.PathLike[str] | bytes | ir.Model") -> "ir.Model":
    """Read and validate a model; onnxruntime must load it.

    Args:
        source: A path (external data is found beside it), the serialized model, or a model in memory (copied).

    Raises:
        ModelError: It can't be read, is no ONNX model, its external data is missing or lies outside its folder,
            or onnxruntime refuses it.
    """
    import onnx_ir as ir

    if isinstance(source, ir.Model):
        model = source.clone()
    elif isinstance(source, bytes):
        model = _parse(source, "the given bytes", None)
    else:
        path = Path(source)
        try:
            content = path.read_bytes()
        except OSError as err:
            raise ModelError(f"cannot read {path}: {err.strerror or err}") from err
        model = _parse(content, str(path), path.parent)
    _fit_to_runtime(model)
    open_session(model, optimize=False)
    return model


def save(model: "ir.Model", path: str | os.PathLike[str]) -> None:
    """Write a model so that ``path`` holds either the whole new file or what was there before.

    A model too large for one protobuf message gets its tensors in ``NAME.data`` beside it.

    Raises:
        OutputError: The folder can't be written.
    """
    import onnx_ir as ir

    path = Path(path)
    try:
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
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            temporary = Path(folder, target.name)
            shutil.copyfile(source, temporary)
            _replace(temporary, target)
    except OSError as err:
        raise OutputError(f"cannot write {target}: {err.strerror or err}") from err


def check_output(path: Path, *, inputs: "tuple[Path, ...]", overwrite: bool) -> None:
    """Refuse, before any work, an output path that can't be used.

    Raises:
        OutputError: Its folder is missing or read-only, it exists and may not be replaced, is a folder, or is an input.
    """
    if not path.parent.is_dir():
        raise OutputError(f"the folder of the output {path} does not exist", hint=f"mkdir -p {path.parent}")
    if path.is_dir():
        raise OutputError(f"the output {path} is a folder")
    if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
        raise OutputError(f"the output {path} is the input itself", hint="name another file with --output")
    if path.exists() and not overwrite:
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


def opset(model: "ir.Model") -> int:
    """Return the version of the default operator set (0 where the model imports none)."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def all_nodes(model: "ir.Model") -> Iterator["ir.Node"]:
    """Yield every node: of the graph, its subgraphs and the model's own functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def initializers(model: "ir.Model") -> Iterator["ir.Value"]:
    """Yield the initializers of the graph and of every subgraph."""
    for graph in model.graphs():
        yield from graph.initializers.values()


def parameter_count(model: "ir.Model") -> int:
    """Count the elements of all initializers and of Constant nodes that hold more than 64."""
    sizes = [value.const_value.size for value in initializers(model) if value.const_value is not None]
    for node in all_nodes(model):
        if node.op_type == "Constant" and (value := node.attributes.get("value")) is not None:
            elements = value.as_tensor().size
            sizes.append(elements if elements > 64 else 0)
    return sum(sizes)


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


def is_quantized(model: "ir.Model") -> bool:
    """Say whether the model holds quantized operators already."""
    return any(node.op_type in _QUANTIZED_OPS or node.op_type.startswith("QLinear") for node in all_nodes(model))


def input_specs(model: "ir.Model") -> tuple[InputSpec, ...]:
    """Return name, dtype and shape of every input, in order; one with an initializer is optional."""
    return tuple(
        InputSpec(
            name=str(value.name),
            dtype=_numpy_dtype(value),
            shape=None if value.shape is None else tuple(_dimension(d) for d in value.shape),
            optional=value.name in model.graph.initializers,
        )
        for value in model.graph.inputs
    )


def input_bounds(model: "ir.Model") -> dict[str, int]:
    """Return, for integer inputs that index constant tables, the size of the smallest table: values must be below."""
    bounds: dict[str, int] = {}
    for graph_input in model.graph.inputs:
        reached, queue = {graph_input}, [graph_input]
        while queue:
            value = queue.pop()
            for node, index in value.uses():
                if node.op_type == "Gather" and index == 1 and (table := node.inputs[0]) is not None:
                    if table.const_value is not None and len(table.const_value.shape) > 0:
                        rows = int(table.const_value.shape.numpy()[node.attributes.get_int("axis", 0)])
                        bounds[str(graph_input.name)] = min(rows, bounds.get(str(graph_input.name), rows))
                elif node.op_type in _INDEX_PRESERVING and index == 0 and node.outputs[0] not in reached:
                    reached.add(node.outputs[0])
                    queue.append(node.outputs[0])
    return bounds


def feature_outputs(model: "ir.Model") -> frozenset[str]:
    """Name the outputs that are vectors to compare, not scores to choose from: their operator normalizes or pools.

    An embedding ends in a normalization or a mean, a recurrent state in its LSTM or GRU; scores end in a product, a sum
    or a softmax.
    """
    found = set()
    for output in model.graph.outputs:
        value: ir.Value | None = output
        while value is not None and (node := value.producer()) is not None and node.op_type in _MOVES:
            value = node.inputs[0]
        node = value.producer() if value is not None else None
        if node is not None and node.op_type in _FEATURE_OPS:
            found.add(str(output.name))
    return frozenset(found)


def _dimension(dimension: object) -> int | None:
    # Exporters write 0 and -1 where they mean "any"
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def _numpy_dtype(value: "ir.Value") -> "np.dtype[np.generic] | None":
    import onnx_ir as ir

    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return np.dtype(value.dtype.numpy())


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
