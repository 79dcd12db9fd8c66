"""Compute now what never changes.

::

    Shape(x: [1, 3, 8, 8]) -> Gather(0) -> s
    Transpose(w)  -> t                              initializers s = 1, t = transposed w
    MatMul(x, t)                              ==>   MatMul(x, t)

A node whose inputs are all constants is run once, by onnxruntime itself, so that the result is the one that the model
would have computed. ``Shape`` (also through ``Gather`` or ``Slice``) and ``Size`` are constants where the dimensions
they ask for are known.

Declines: random operators, control flow, operators outside the ONNX standard; Quantize/DequantizeLinear and everything
that makes integer weights, because a DequantizeLinear of a constant *is* the compressed weight; results that would
make the file larger (``Expand``, ``Tile``, a ``Cast`` of float16 weights to float32) by more than ``max_growth``;
types that numpy does not have; initializers that a caller may override; function bodies.

Source: onnxruntime's ConstantFolding, which does the same at every load but can't shrink the file.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnxcomp.errors import ModelError, RecipeError
from onnxcomp.passbase import Pass, PassContext, PassStats
from onnxcomp.protos import from_proto
from onnxcomp.runtime import Session

from ._graph import constant, graphs, is_constant, is_op, onnx_domain, remove_if_unused
from ._shapes import Shapes, infer

__all__ = ["FoldConstants", "FoldConstantsConfig"]

_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                     "RandomUniformLike", "Dropout"})  # fmt: skip
_SMALL = 4096  # bytes: content that shape inference may need to predict the size of a result


@dataclass(frozen=True, slots=True)
class FoldConstantsConfig:
    """Settings of constant folding.

    Attributes:
        max_growth: How many bytes larger than the constants it frees a result may be.
    """

    max_growth: int = 1024

    def __post_init__(self) -> None:
        if self.max_growth < 0:
            raise RecipeError(f"max_growth must be 0 or more bytes, got {self.max_growth}")


class FoldConstants(Pass[FoldConstantsConfig]):
    """Replace nodes that compute constants by initializers."""

    name: ClassVar[str] = "fold-constants"
    Config: ClassVar[type[FoldConstantsConfig]] = FoldConstantsConfig
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        folder = _Folder(model, ctx, self.config.max_growth)
        # A folded shape lets inference see further, so again until nothing is left
        while folder.sweep():
            pass
        return PassStats(bool(folder.counts), dict(folder.counts))


class _Folder:
    """One run over one model."""

    def __init__(self, model: ir.Model, ctx: PassContext, max_growth: int) -> None:
        self._model = model
        self._ctx = ctx
        self._max_growth = max_growth
        self._declined: set[ir.Node] = set()
        self.counts: Counter[str] = Counter()

    def sweep(self) -> bool:
        """Fold what can be folded with the shapes known now; say whether anything was."""
        before = self.counts.total()
        shapes = infer(self._model)
        for graph in tuple(graphs(self._model)):
            for node in tuple(graph):
                if node.graph is graph and node not in self._declined:
                    self._visit(node, shapes)
        return self.counts.total() > before

    def _visit(self, node: ir.Node, shapes: Shapes) -> None:
        known = _from_shape(node, shapes)
        if known is None and not _is_candidate(node):
            return
        if any(output.is_graph_output() for output in node.outputs):
            arrays: list[np.ndarray] | str = "it is a graph output"
        else:
            arrays = self._evaluate(node) if known is None else known
        if isinstance(arrays, str):
            self._declined.add(node)
            self._ctx.skip(node, arrays)
            return
        _replace(node, arrays)
        self.counts["nodes folded" if known is None else "shapes folded"] += 1

    def _evaluate(self, node: ir.Node) -> list[np.ndarray] | str:
        """Run a node of constants, or say why not."""
        inputs = {str(value.name): constant(value) for value in node.inputs if value is not None}
        feed = {name: array for name, array in inputs.items() if array is not None and array.dtype.kind in "biuf"}
        if len(feed) < len(inputs):
            return "an input has a type that is not folded"
        freed = _freed_bytes(node, feed)
        proto = _one_node_model(self._model, node, feed)
        predicted = _predicted_bytes(proto, feed)
        if predicted - freed > self._max_growth:
            return f"the result is {predicted - freed} bytes larger than what it replaces"
        try:
            results = Session(proto.SerializeToString(), optimize=False).run(feed)
        except ModelError as err:
            return str(err)
        if not all(isinstance(array, np.ndarray) and array.dtype.kind in "biuf" for array in results.values()):
            return "the result has a type that is not folded"
        growth = sum(array.nbytes for array in results.values()) - freed
        if growth > self._max_growth:
            return f"the result is {growth} bytes larger than what it replaces"
        return list(results.values())


def _replace(node: ir.Node, arrays: list[np.ndarray]) -> None:
    """Put initializers in the place of a node's outputs."""
    graph, inputs = node.graph, list(node.inputs)
    assert isinstance(graph, ir.Graph)
    outputs = [output for output in node.outputs if output.name]
    for output, array in zip(outputs, arrays, strict=True):
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=output.name)
        value = ir.Value(name=output.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        output.replace_all_uses_with(value)
        graph.register_initializer(value)
    graph.remove(node, safe=True)
    for value_in in inputs:
        remove_if_unused(value_in)


def _is_candidate(node: ir.Node) -> bool:
    """Say whether a node computes a constant from constants and may be run ahead."""
    if not onnx_domain(node) or not node.inputs or is_op(node, "Constant", "Identity", *_RANDOM):
        return False
    if "Linear" in node.op_type or "Integer" in node.op_type:
        return False  # the quantized operators, of which the constants are the compressed form
    if any(attribute.is_ref() or attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
        return False
    return all(value is None or is_constant(value) for value in node.inputs) and any(node.inputs)


def _from_shape(node: ir.Node, shapes: Shapes) -> list[np.ndarray] | None:
    """Answer a question about dimensions that are known."""
    if is_op(node, "Shape"):
        wanted = _shape_vector(node, shapes)
    elif is_op(node, "Size"):
        static = shapes.static(node.inputs[0])
        return None if static is None else [np.asarray(math.prod(static), dtype=np.int64)]
    elif is_op(node, "Gather", "Slice"):
        value = node.inputs[0]
        producer = None if value is None else value.producer()
        if producer is None or not is_op(producer, "Shape"):
            return None
        wanted = _picked(node, _shape_vector(producer, shapes))
    else:
        return None
    if wanted is None or np.any(wanted < 0):
        return None
    return [wanted]


def _shape_vector(node: ir.Node, shapes: Shapes) -> np.ndarray | None:
    """Return what a Shape node gives, with -1 for unknown dimensions."""
    dims = shapes.dims(node.inputs[0])
    if dims is None:
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(dims)
    return np.array([-1 if d is None else d for d in dims], dtype=np.int64)[start:end]


def _picked(node: ir.Node, vector: np.ndarray | None) -> np.ndarray | None:
    """Apply a constant Gather or Slice to a shape vector."""
    if vector is None or any(value is not None and constant(value) is None for value in node.inputs[1:]):
        return None
    if node.op_type == "Gather":
        indices = constant(node.inputs[1])
        if indices is None or np.any(indices < -len(vector)) or np.any(indices >= len(vector)):
            return None
        return np.asarray(vector[indices])
    if len(node.inputs) == 1:  # opset 9 and older: attributes
        start, end, step = node.attributes["starts"].as_ints()[0], node.attributes["ends"].as_ints()[0], 1
    else:
        start, end, step = _scalar(node, 1, 0), _scalar(node, 2, 0), _scalar(node, 4, 1)
    return vector[start:end:step] if step > 0 else None


def _scalar(node: ir.Node, index: int, default: int) -> int:
    array = constant(node.inputs[index]) if index < len(node.inputs) else None
    return default if array is None else int(array.reshape(-1)[0])


def _one_node_model(model: ir.Model, node: ir.Node, feed: dict[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    outputs = [onnx.ValueInfoProto(name=str(value.name)) for value in node.outputs if value.name]
    graph = helper.make_graph([ir.to_proto(node)], "constant", inputs, outputs)
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _predicted_bytes(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> int:
    """Infer how large the results will be before anything is computed; 0 where that can't be known."""
    informed = onnx.ModelProto()
    informed.CopyFrom(proto)
    small = {name: array for name, array in feed.items() if array.nbytes <= _SMALL}
    informed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in small.items())
    graph = from_proto(onnx.shape_inference.infer_shapes(informed)).graph
    total = 0
    for value in graph.outputs:
        if value.shape is not None and value.dtype is not None and value.shape.is_static():
            total += math.prod(value.shape.numpy()) * math.ceil(value.dtype.itemsize)
    return total


def _freed_bytes(node: ir.Node, feed: dict[str, np.ndarray]) -> int:
    """Add up the constants that only this node uses."""
    values = {value for value in node.inputs if value is not None}
    alone = [v for v in values if set(v.consumers()) == {node} and not v.is_graph_output()]
    return sum(feed[str(value.name)].nbytes for value in alone)
