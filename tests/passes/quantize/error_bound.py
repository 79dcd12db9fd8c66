"""How far a quantized network may be from the float one: the error of every quantizer, carried to the outputs.

Along the quantized graph each tensor has a bound on its distance from the float network's tensor. A quantizer adds half
a step, and what it cuts off; a linear operator hands on ``|W| e`` and adds ``|x| |W' - W|``; any other operator
multiplies by its Lipschitz constant. Elementwise, so that it is a bound, not an estimate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxcomp.runtime import Session

__all__ = ["error_bounds"]

Arrays = dict[str, np.ndarray]
_HALF_STEP = 0.5 + 1e-3  # of a quantizer; the rest is for float32 in scales
_FLOAT = 1e-5  # relative error of a float32 operator
_LIPSCHITZ = {"Relu": 1.0, "Clip": 1.0, "Sigmoid": 0.25, "Tanh": 1.0, "Elu": 1.0, "LeakyRelu": 1.0, "HardSwish": 1.5,
              "HardSigmoid": 0.2, "Gelu": 1.13, "PRelu": 1.0, "Min": 1.0}  # fmt: skip
_AS_IT_IS = {"AveragePool", "Cast", "Concat", "Expand", "Flatten", "Gather", "GlobalAveragePool", "MaxPool", "Reshape",
             "Resize", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}  # fmt: skip
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger"}


def error_bounds(before: onnx.ModelProto, after: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> Arrays:
    """Return, for each output, elementwise bounds on what quantization changes.

    Args:
        before: The float model; the names of its nodes and tensors are those of ``after``.
        after: The quantized model.
        feed: One run.
    """
    return _Bounds(before, after, feed).run()


class _Bounds:
    """One walk along a quantized graph.

    Attributes:
        ideal: What each tensor would be without quantization, by name.
        error: Bound on the distance from that.
    """

    def __init__(self, before: onnx.ModelProto, after: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> None:
        self.graph = after.graph
        self.opsets = after.opset_import
        self.ir_version = after.ir_version
        self.feed = dict(feed)
        self.float = {**_constants(before), **_all_tensors(before, feed), **feed}
        self.nodes = {node.name: node for node in before.graph.node}
        self.constants = _constants(after)
        self.ideal: Arrays = {**self.constants, **{name: np.asarray(a) for name, a in feed.items()}}
        self.error: Arrays = {
            name: np.zeros_like(a, np.float64) for name, a in self.ideal.items() if a.dtype.kind == "f"
        }
        self.step: dict[str, float] = {}  # scale of an integer tensor

    def run(self) -> Arrays:
        """Walk; return the bounds of the outputs."""
        for node in self.graph.node:
            rule = getattr(self, f"_{node.op_type.lower()}", None) or self._general(node)
            rule(node)
            old = self.nodes.get(node.name)  # its result's name may have gone to the quantized one
            same = old is not None and old.op_type == node.op_type
            for name, known in zip(node.output, old.output if same else node.output, strict=True):
                if known in self.float and name in self.error:
                    self.ideal[name] = self.float[known].astype(np.float64)
                    self.error[name] = self.error[name] + _FLOAT * np.abs(self.ideal[name]).max(initial=1e-9)
        return {value.name: self.error[value.name] for value in self.graph.output}

    def _general(self, node: onnx.NodeProto) -> Callable[[onnx.NodeProto], None]:
        if node.op_type in _AS_IT_IS:
            return self._as_it_is
        if node.op_type in _LIPSCHITZ:
            return self._lipschitz
        if node.op_type in _PRODUCTS:
            return self._product
        raise NotImplementedError(node.op_type)

    def _set(self, name: str, ideal: np.ndarray, error: np.ndarray) -> None:
        self.ideal[name], self.error[name] = ideal, np.broadcast_to(error, np.shape(ideal))

    def _quantizelinear(self, node: onnx.NodeProto) -> None:
        source, result = node.input[0], node.output[0]
        scale, zero_point = (self.constants[name] for name in node.input[1:3])
        info = np.iinfo(zero_point.dtype)
        low, high = ((limit - float(zero_point)) * float(scale) for limit in (info.min, info.max))
        ideal = self.ideal[source]
        cut = np.abs(np.clip(ideal, low, high) - ideal)
        self._set(result, ideal, self.error[source] + _HALF_STEP * float(scale) + cut)
        self.step[result] = float(scale)

    def _dequantizelinear(self, node: onnx.NodeProto) -> None:
        source, scale = node.input[0], self.constants[node.input[1]]
        if source in self.constants:
            self._dequantized_constant(node)
            return
        factor = float(scale) / self.step[source]  # not 1 where a scaling was absorbed
        self._set(node.output[0], self.ideal[source] * factor, self.error[source] * factor)

    def _dequantized_constant(self, node: onnx.NodeProto) -> None:
        reader, index = next(
            (n, list(n.input).index(node.output[0])) for n in self.graph.node if node.output[0] in n.input
        )
        ideal = self.float[self.nodes[reader.name].input[index]].astype(np.float64)
        levels, scale = (
            self.constants[node.input[0]].astype(np.float64),
            self.constants[node.input[1]].astype(np.float64),
        )
        zero_point = float(self.constants[node.input[2]].reshape(-1)[0]) if len(node.input) > 2 else 0.0
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.ndim:
            scale = scale.reshape([-1 if i == axis % levels.ndim else 1 for i in range(levels.ndim)])
        self._set(
            node.output[0],
            ideal,
            np.abs((levels - zero_point) * scale - ideal.reshape(levels.shape)).reshape(ideal.shape),
        )

    def _dynamicquantizelinear(self, node: onnx.NodeProto) -> None:
        """Give levels the meaning of the values themselves, and their scale that of 1; zero points round as well."""
        source, (levels, scale, zero_point) = node.input[0], node.output
        ideal, error = self.ideal[source], self.error[source]
        step = (np.ptp(np.append(ideal, 0.0)) + 2 * error.max(initial=0.0)) / 255
        self._set(levels, ideal, error + 2 * _HALF_STEP * step)
        self._set(scale, np.float64(1), np.float64(0))
        self._set(zero_point, np.float64(0), np.float64(0))

    def _product(self, node: onnx.NodeProto) -> None:
        x, weight = node.input[:2]
        weights = self.ideal[weight].astype(np.float64)
        missing = self.error.get(weight, np.full(weights.shape, 0.5))  # int8 as they are: half a level
        carried = self._evaluate(node, {x: self.error[x], weight: np.abs(weights) + missing})
        added = self._evaluate(node, {x: np.abs(self.ideal[x]), weight: missing})
        error = carried + added
        if len(node.input) > 2 and node.op_type != "MatMulInteger":
            bias = self.error[node.input[2]]
            error = error + (bias.reshape(-1, *[1] * (error.ndim - 2)) if node.op_type.startswith("Conv") else bias)
        self._set(node.output[0], self._evaluate(node, {x: self.ideal[x], weight: weights}), error)

    def _add(self, node: onnx.NodeProto) -> None:
        first, second = node.input
        ideal = self.ideal[first] + self.ideal[second] * (1 if node.op_type == "Add" else -1)
        self._set(node.output[0], ideal, self.error[first] + self.error[second])

    _sub = _add

    def _mul(self, node: onnx.NodeProto) -> None:
        (first, e1), (second, e2) = ((self.ideal[name], self.error[name]) for name in node.input)
        self._set(node.output[0], first * second, e1 * (np.abs(second) + e2) + np.abs(first) * e2)

    def _softmax(self, node: onnx.NodeProto) -> None:
        """Each exponent is off by e at most: so is the sum, and the ratio by twice that."""
        ideal, error = self._float_result(node), self.error[node.input[0]]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        most = np.minimum(error.max(axis=axis, keepdims=True), 100.0)
        self._set(node.output[0], ideal, np.minimum(1.0, ideal * np.expm1(2 * most)))

    def _as_it_is(self, node: onnx.NodeProto) -> None:
        """The error goes where the values go: averages and maxima of errors bound errors of averages and maxima."""
        names = [name for name in node.input if name and name in self.error and name not in self.constants]
        for attribute, store in (("ideal", self.ideal), ("error", self.error)):
            made = self._outputs(node, {name: getattr(self, attribute)[name] for name in names})
            store.update(zip(node.output, made, strict=True))

    def _lipschitz(self, node: onnx.NodeProto) -> None:
        factor = _LIPSCHITZ[node.op_type]
        if node.op_type == "PRelu":
            factor = max(factor, float(np.abs(self.constants[node.input[1]]).max()))
        self._set(node.output[0], self._float_result(node), factor * self.error[node.input[0]])

    def _float_result(self, node: onnx.NodeProto) -> np.ndarray:
        """Return what the float node of that name makes."""
        return self.float[self.nodes[node.name].output[0]]

    def _evaluate(self, node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> np.ndarray:
        if node.op_type == "MatMulInteger":
            return np.matmul(*(np.asarray(values[name], np.float64) for name in node.input[:2]))
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        del kept.input[2:]  # the bias
        return self._outputs(kept, values)[0]

    def _outputs(self, node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run one node in float32 on these values; its other inputs are constants."""
        if node.op_type == "Cast":
            return [np.asarray(values[node.input[0]])]
        info = [helper.make_tensor_value_info(name, 1, np.shape(array)) for name, array in values.items()]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output]
        others = [numpy_helper.from_array(self.constants[n], n) for n in node.input if n and n not in values]
        graph = helper.make_graph([node], "one", info, results, others)
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)
        found = Session(model.SerializeToString(), optimize=False).run(
            {name: np.asarray(array, np.float32) for name, array in values.items()}
        )
        return [np.asarray(found[name], np.float64) for name in node.output]


def _constants(model: onnx.ModelProto) -> Arrays:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _all_tensors(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    """Run a model, every tensor an output."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    known = {value.name for value in tapped.graph.output}
    names: Sequence[str] = [name for node in model.graph.node for name in node.output if name and name not in known]
    tapped.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return Session(tapped.SerializeToString(), optimize=False).run(feed)
