"""What a serialized model claims of its tensors, compared with what is there before anything is allocated or opened.

A few damaged bytes can claim petabytes, or a file that is none of the model's.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.errors import ModelError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["DATA_HINT", "GRAPH_HINT", "all_tensors", "check_nodes", "check_tensors", "external_file"]

DATA_HINT = "copy the model together with all files of its external data"
GRAPH_HINT = "export the model again; onnx.checker.check_model may tell more"

_TYPED_DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MOST_PER_ENTRY = 4  # values that one entry of a typed field holds: four of 2 bits


def check_tensors(proto: "ModelProto", name: str, folder: Path | None) -> dict[str, int]:
    """Refuse tensors that claim more than there is, and external data that can't be read or must not be.

    Args:
        proto: The model.
        name: What the model is called, for messages.
        folder: Where its external data lies; None: it may have none.

    Returns:
        The bytes of each file of external data, by its path from the folder.

    Raises:
        ModelError: A tensor is not what it claims to be.
    """
    sizes: dict[str, int] = {}
    for tensor in all_tensors(proto):
        where = f"{name}: tensor {tensor.name}" if tensor.name else f"{name}: a tensor"
        if any(dim < 0 for dim in tensor.dims):
            raise ModelError(f"{where} has the dimensions {list(tensor.dims)[:8]}", hint=GRAPH_HINT)
        needed = _needed(tensor)
        if tensor.data_location == tensor.EXTERNAL:
            location = _check_external(tensor, name, folder, sizes)
            offset, length = _extent(tensor, name)
            if min(offset, length) < 0 or offset + max(length, needed) > sizes[location]:
                raise ModelError(f"{name}: external data file {location} is cut short", hint=DATA_HINT)
            if length and length < needed:
                raise ModelError(f"{where} needs {needed} bytes, its external data has {length}", hint=DATA_HINT)
            continue
        values = math.prod(tensor.dims)
        if tensor.HasField("raw_data"):
            if needed != len(tensor.raw_data):
                raise ModelError(
                    f"{where} of the dimensions {list(tensor.dims)[:8]} needs {needed} bytes, and has "
                    f"{len(tensor.raw_data)}",
                    hint=GRAPH_HINT,
                )
        elif values > _MOST_PER_ENTRY * max(len(getattr(tensor, field)) for field in _TYPED_DATA):
            raise ModelError(f"{where} of the dimensions {list(tensor.dims)[:8]} holds too few values", hint=GRAPH_HINT)
    return sizes


def check_nodes(proto: "ModelProto", name: str) -> None:
    """Refuse nodes that claim what they can't have.

    Raises:
        ModelError: An attribute refers to one of a function around it and there is none, or a Split claims another
            number of outputs than it has (onnxruntime makes room for as many, before it counts).
    """
    pending = [(node, False) for node in proto.graph.node]
    pending += [(node, True) for function in proto.functions for node in function.node]
    while pending:
        node, in_function = pending.pop()
        for attribute in node.attribute:
            if attribute.ref_attr_name and not in_function:
                raise ModelError(
                    f"{name}: node {node.name or node.op_type} takes {attribute.name} from a function, and is in none",
                    hint=GRAPH_HINT,
                )
            if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.i > len(node.output):
                raise ModelError(
                    f"{name}: node {node.name or 'Split'} claims {attribute.i} outputs, and has {len(node.output)}",
                    hint=GRAPH_HINT,
                )
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                pending += [(inner, in_function) for inner in graph.node]


def _needed(tensor: "TensorProto") -> int:
    """Return the bytes that a tensor's values take in a file."""
    import onnx_ir as ir

    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (TypeError, ValueError) as err:  # text, which has no fixed size; a type of another version
        if tensor.data_type == tensor.STRING:
            return 0
        raise ModelError(
            f"tensor {tensor.name} is of the data type {tensor.data_type}, which is not known", hint=GRAPH_HINT
        ) from err
    total: int = math.prod(tensor.dims) * bits
    return -(-total // 8)


def external_file(location: str, folder: Path, *, tensor: str, name: str) -> Path:
    """Return the file of a tensor's external data.

    Raises:
        ModelError: It is missing, or lies outside the model's folder.
    """
    outside = ModelError(
        f"{name}: external data of {tensor} lies outside the model's folder: {location[:200]!r}",
        hint="such files are not read; export the model with its data beside it",
    )
    try:
        root, file = folder.resolve(), (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(root):
            raise outside
        if not file.is_file():
            raise ModelError(f"{name}: external data file {location} is missing", hint=DATA_HINT)
    except (OSError, ValueError, RuntimeError) as err:  # too long a name, a NUL, a ring of links
        raise outside from err
    return file


def _check_external(tensor: "TensorProto", name: str, folder: Path | None, sizes: dict[str, int]) -> str:
    """Return where a tensor's data lies; its size is put to the others."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if folder is None:
        raise ModelError(f"{name} keeps tensor {tensor.name} in another file ({location})", hint="give a path")
    sizes[location] = external_file(location, folder, tensor=tensor.name, name=name).stat().st_size
    return location


def _extent(tensor: "TensorProto", name: str) -> tuple[int, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        return int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as err:
        raise ModelError(
            f"{name}: external data of {tensor.name} has no valid offset and length", hint=GRAPH_HINT
        ) from err


def all_tensors(proto: "ModelProto") -> Iterator["TensorProto"]:
    """Yield every tensor: of the graph, its subgraphs, and the model's own functions."""
    yield from _tensors_of_graph(proto.graph)
    for function in proto.functions:
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute)
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable["NodeProto"]) -> Iterator["TensorProto"]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: "AttributeProto") -> Iterator["TensorProto"]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from _tensors_of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _tensors_of_graph(graph)
