"""One run of a model with every tensor's shape written down: labels are arrays of real shapes."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed, Samples, synthetic
from onnxcomp.errors import DataError, ModelError, PassError
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.model import infer_shapes, open_session

__all__ = ["inputs_for", "shapes_of"]

_SIZES = (64, 32, 224, 16, 128, 512)  # of dynamic axes that are no batch


def inputs_for(model: ir.Model, samples: Samples | None, *, seed: int) -> Feed:
    """Return one feed that the model runs on: the first sample, or a made-up one.

    Raises:
        PassError: It runs on none.
    """
    failure = "its inputs can't be made up"
    for feed in _candidates(model, samples, seed):
        try:
            open_session(model, optimize=False).run(feed)
        except (ModelError, DataError) as err:
            failure = str(err)
        else:
            return feed
    raise PassError(f"the model does not run: {failure}", hint="give samples: --calibration DATA")


def shapes_of(model: ir.Model, feed: Feed) -> dict[str, tuple[int, ...]]:
    """Run a model once; return the shape of every tensor of the main graph that has one, by name.

    Raises:
        ModelError: It does not run.
    """
    copy = model.clone()
    infer_shapes(copy)
    known = {str(output.name) for output in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            if value.name and value.name not in known and isinstance(value.type, ir.TensorType | None):
                copy.graph.outputs.append(value)
    found: Mapping[str, object] = open_session(copy, optimize=False).run(feed)
    shapes = {name: np.shape(array) for name, array in feed.items()}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes.setdefault(name, tuple(value.const_value.shape.numpy()))
    return shapes | {name: array.shape for name, array in found.items() if isinstance(array, np.ndarray)}


def _candidates(model: ir.Model, samples: Samples | None, seed: int) -> Iterator[Feed]:
    if samples is not None:
        yield from samples.take(1)
    specs, bounds = input_specs(model), input_bounds(model)
    for size in _SIZES:
        for positive in (False, True):
            try:
                yield from synthetic(specs, count=1, seed=seed, bounds=bounds, size=size, positive=positive)
            except DataError:
                return  # nobody can make up such inputs, of whatever size
