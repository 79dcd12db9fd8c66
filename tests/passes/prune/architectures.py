"""The architectures that pruning is tested on, and what tests read in their graphs."""

import math
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.passes.prune.attentive import ATTENTIVE
from tests.passes.prune.convolutional import CONVOLUTIONAL
from tests.passes.prune.others import OTHERS

__all__ = ["ARCHITECTURES", "feed", "layers", "parameters", "weights"]

ARCHITECTURES = MappingProxyType(CONVOLUTIONAL | ATTENTIVE | OTHERS)
_ROWS = {"LSTM": 4, "GRU": 3}


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return all constants by name: initializers and Constant nodes."""
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in (*model.graph.initializer, *constants)}


def parameters(model: onnx.ModelProto) -> int:
    """Return how many floats the constants hold; numbers alone (an epsilon, a scale of attention) do not count."""
    return sum(array.size for array in weights(model).values() if array.dtype == np.float32 and array.ndim)


def layers(model: onnx.ModelProto) -> dict[str, int]:
    """Return the nodes that make channels of a weight of their own, by name, and how many they make."""
    known, found = weights(model), {}
    for node in model.graph.node:
        held = [known[name] for name in node.input[:2] if name in known]
        if node.op_type in ("Conv", "Gemm"):
            found[node.name] = len(held[0])
        elif node.op_type == "ConvTranspose":
            found[node.name] = held[0].shape[1]
        elif (node.op_type == "MatMul" and held) or node.name == "embedding":
            found[node.name] = held[0].shape[-1]
        elif node.op_type in _ROWS:
            found[node.name] = held[0].shape[1] // _ROWS[node.op_type]
    return found


def feed(model: onnx.ModelProto, seed: int = 0, batch: int = 2) -> dict[str, np.ndarray]:
    """Draw an input."""
    rng = np.random.default_rng(seed)
    found = {}
    for info in model.graph.input:
        shape = [batch, *(d.dim_value for d in info.type.tensor_type.shape.dim[1:])]
        words = rng.permuted(np.resize(np.arange(math.prod(shape)) % 11, shape))
        floats = rng.normal(size=shape).astype(np.float32)
        found[info.name] = words if info.type.tensor_type.elem_type == TensorProto.INT64 else floats
    return found
