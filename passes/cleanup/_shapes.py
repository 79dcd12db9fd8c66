"""Shapes and types of every value, inferred anew on a copy: what a model's file claims about them may be wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from onnxcomp.errors import PassError
from onnxcomp.protos import from_proto, to_proto

from ._graph import graphs

__all__ = ["Dim", "Shapes", "infer"]

_SMALL = 1024  # bytes: shape inference needs the content of shape vectors, not of weights
_LONGEST = 2**16  # elements: onnx writes out every vector that it follows, of whatever length
_ANY = ("None", "unknown")  # names that exporters give to every dimension that they don't know
Dim = int | str | None  # known; known to equal those of the same name; unknown


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is known about the values of one model at one time."""

    shapes: Mapping[ir.Value, ir.Shape]
    dtypes: Mapping[ir.Value, ir.DataType]

    def dims(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        """Return the dimensions of a value (``None``: not known), or ``None`` where not even the rank is known."""
        shape = None if value is None else self.shapes.get(value)
        return None if shape is None else tuple(_dim(d) for d in shape)

    def symbols(self, value: ir.Value | None) -> tuple[Dim, ...] | None:
        """Return the dimensions of a value, those not known by their names: of one name are only equal ones."""
        shape = None if value is None else self.shapes.get(value)
        return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)

    def static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the dimensions of a value where all are known."""
        dims = self.dims(value)
        known = () if dims is None else tuple(d for d in dims if d is not None)
        return known if dims is not None and len(known) == len(dims) else None

    def rank(self, value: ir.Value | None) -> int | None:
        """Return the number of dimensions."""
        shape = None if value is None else self.shapes.get(value)
        return None if shape is None else len(shape)

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """Return the element type of a tensor."""
        return None if value is None else self.dtypes.get(value)


def infer(model: ir.Model) -> Shapes:
    """Infer shapes and types without changing the model.

    Graph inputs are taken at their word (onnxruntime enforces their shapes; dimensions of one name are equal), except
    for the dimensions 0 and -1, which exporters write for "any". What the file says about values in between is not
    used.

    Raises:
        PassError: Shape inference breaks on the model.
    """
    proto = to_proto(_stripped(model))
    try:
        inferred = _inferred(proto)
    except Exception as err:  # the inference is C++ code that raises many kinds
        raise PassError(f"shape inference failed: {str(err).strip()[:300]}") from err
    shapes: dict[ir.Value, ir.Shape] = {}
    dtypes: dict[ir.Value, ir.DataType] = {}
    for ours, theirs in zip(graphs(model), graphs(inferred), strict=True):
        known = _by_name(theirs)
        for name, value in _by_name(ours).items():
            found = known.get(name, value)
            shape, dtype = found.shape, found.dtype
            if value.is_initializer() and value.const_value is not None:
                shape, dtype = ir.Shape(value.const_value.shape.numpy()), value.const_value.dtype
            if shape is not None:
                shapes[value] = shape
            if dtype is not None and isinstance(found.type, ir.TensorType | None):
                dtypes[value] = dtype
    return Shapes(shapes, dtypes)


def _stripped(model: ir.Model) -> ir.Model:
    """Copy a model without large tensors and without claims about shapes in between."""
    copy = model.clone()
    for graph in graphs(copy):
        main = graph is copy.graph
        for value in graph.inputs:
            value.shape = _believed(value) if main else None
        for node in graph:
            for value in node.outputs:
                value.shape = None
        for value in tuple(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None:
                continue
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            if value.is_graph_input() or (main and tensor.nbytes > _SMALL):
                graph.initializers.pop(str(value.name))
                if not value.is_graph_input():
                    graph.inputs.append(value)
    return copy


def _inferred(proto: onnx.ModelProto) -> ir.Model:
    """Infer, following the content of shape vectors unless a long vector would make that take for ever."""
    plain = from_proto(onnx.shape_inference.infer_shapes(proto))
    for graph in graphs(plain):
        for value in _by_name(graph).values():
            dims = () if value.shape is None else tuple(value.shape)
            if len(dims) == 1 and isinstance(dims[0], int) and dims[0] > _LONGEST:
                return plain
    return from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _believed(value: ir.Value) -> ir.Shape | None:
    """Return the shape of a graph input; a dimension without a number or a proper name gets one of its own."""
    if value.shape is None:
        return None
    dims: list[int | str] = []
    for axis, dimension in enumerate(value.shape):
        name = None if isinstance(dimension, int) else dimension.value
        named = name is not None and name.isidentifier() and name not in _ANY
        dims.append(_dim(dimension) or (str(name) if named else f"{value.name}.{axis}"))
    return ir.Shape(dims)


def _dim(dimension: int | ir.SymbolicDim | None) -> int | None:
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def _by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return {value.name: value for value in values if value.name}
