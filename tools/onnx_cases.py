"""The test models that the installed onnx package brings along, with their inputs and the outputs that it expects.

Three sources: the node tests, which the package makes when they are asked for; the small models on its disk
(``simple``, ``pytorch-converted``, ``pytorch-operator``); and the ``light`` models, well-known networks whose weights
are a constant each.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader

__all__ = ["Case", "all_cases", "constants_planted", "light_model"]

_LIGHT = Path(loader.DATA_DIR, "light")
_KINDS = ("simple", "pytorch-converted", "pytorch-operator")
_READERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
    "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
    "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
    "map_type": (onnx.MapProto, numpy_helper.to_dict),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A model, runs of it, and what they should give.

    Attributes:
        name: Of the test, with its kind before it.
        model: As the package has it.
        runs: For each run the inputs by name and the expected outputs in order.
        rtol: Relative tolerance of float outputs.
        atol: Absolute tolerance.
    """

    name: str
    model: onnx.ModelProto
    runs: Sequence[tuple[dict[str, Any], list[Any]]]
    rtol: float
    atol: float


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Collect every case that the installed package has, in the order of their names; takes some seconds."""
    found = [*_node_cases(), *_disk_cases(), *_light_cases()]
    return tuple(sorted(found, key=lambda case: case.name))


def constants_planted(case: Case) -> Case | None:
    """Return the case with all tensor inputs of its first run as initializers, but for the first that is a float.

    What the graph computes from them is then for the clean-up to fold. None where no input is a tensor.
    """
    inputs, expected = case.runs[0]
    tensors = [value for value in case.model.graph.input if value.type.HasField("tensor_type") and value.name in inputs]
    kept = next((v.name for v in tensors if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT), None)
    planted = [v for v in tensors if v.name != kept and isinstance(inputs[v.name], np.ndarray)]
    if not planted:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = max(model.ir_version, 4)  # older ones want initializers among the inputs
    for value in planted:
        model.graph.input.remove(value)
        tensor = numpy_helper.from_array(inputs[value.name], value.name)
        model.graph.initializer.append(tensor)
    names = {value.name for value in planted}
    rest = {name: value for name, value in inputs.items() if name not in names}
    return Case(f"{case.name} (constants)", model, [(rest, expected)], case.rtol, case.atol)


def _node_cases() -> Iterator[Case]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # some tests divide by zero on purpose
        made = loader.load_node_model_tests()
    for test in made:
        assert test.model is not None
        assert test.data_sets is not None
        names = [value.name for value in test.model.graph.input]
        runs = [
            (dict(zip(names, map(_plain, inputs), strict=True)), [_plain(output) for output in outputs])
            for inputs, outputs in test.data_sets
        ]
        yield Case(f"node/{test.name}", test.model, runs, test.rtol, test.atol)


def _disk_cases() -> Iterator[Case]:
    for kind in _KINDS:
        for test in loader.load_model_tests(kind=kind):
            assert test.model_dir is not None
            model = onnx.load(Path(test.model_dir, "model.onnx"))
            runs = [
                (_read(folder, "input", model.graph.input), list(_read(folder, "output", model.graph.output).values()))
                for folder in sorted(Path(test.model_dir).glob("test_data_set_*"))
            ]
            yield Case(f"{kind}/{test.name}", model, runs, test.rtol, test.atol)


def _light_cases() -> Iterator[Case]:
    tolerances = {Path(str(test.url)).name: test for test in loader.load_model_tests(kind="real")}
    for path in sorted(_LIGHT.glob("*.onnx")):
        model = onnx.load(path)
        known = {tensor.name for tensor in model.graph.initializer}
        inputs = {}
        for value in model.graph.input:
            if value.name not in known:
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                count = int(np.prod(shape))
                inputs[value.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
        outputs = [path.with_name(f"{path.stem}_output_{index}.pb") for index in range(len(model.graph.output))]
        expected = [numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in outputs]
        test = tolerances[path.name]
        yield Case(f"light/{path.stem}", model, [(inputs, expected)], test.rtol, test.atol)


def _read(folder: Path, what: str, values: Sequence[onnx.ValueInfoProto]) -> dict[str, Any]:
    found = {}
    for index, value in enumerate(values):
        path = folder / f"{what}_{index}.pb"
        if path.is_file():
            proto, convert = _READERS[str(value.type.WhichOneof("value"))]
            found[value.name] = convert(proto.FromString(path.read_bytes()))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def light_model(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """Return a ``light`` model whose constants of one value each are random weights, scaled to keep activations alive.

    Args:
        name: As in ``light_NAME.onnx``.
        seed: Of the weights.
    """
    model = onnx.load(_LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    uses = {value: (node.op_type, index) for node in model.graph.node for index, value in enumerate(node.input)}
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape":
            weight = _random_weight(*uses[node.output[0]], tuple(shapes[node.input[0]]), rng)
            model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
            model.graph.node.remove(node)
    return model


def _random_weight(op_type: str, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape, np.float32)
    if op_type in ("Conv", "Gemm") and index == 1:  # He's initialisation
        return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if op_type == "BatchNormalization" and index in (1, 4):  # scale and variance
        return 1 + np.abs(noise) / 10
    return noise / 10
