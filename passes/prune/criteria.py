"""Other ways to tell how much a channel matters, measured with samples; see `importance` for those without.

From the second moments of what reads the channels, as `obs` has them, but without fitting what is left:

- ``energy``: what the channel alone contributes, E[x^2] |W_c|^2.
- ``thinet``: the set whose joint contribution is least, greedily (Luo et al. 2017, "ThiNet", algorithm 1; their sum
  over drawn output elements is taken over all).
- ``lasso``: the channels whose factors vanish last when an L1 penalty on one factor per channel is relaxed (He et al.
  2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 2).

From the activations themselves:

- ``apoz``: the share of values that are not zero (Hu et al. 2016, "Network Trimming", eq. 1).
- ``activation-mean``, ``activation-std``: their mean size, and how much they vary (Molchanov et al. 2017, "Pruning
  Convolutional Neural Networks for Resource Efficient Inference", section 2.2).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.data import Samples
from onnxcomp.passbase import PassContext
from onnxcomp.statistics import runs

from .groups import Group
from .importance import per_channel
from .obs import Curve, Reading, ranked, removal
from .readings import RUNS
from .walk import Reader

__all__ = ["ACTIVE", "READ", "activations", "energy", "lasso", "thinet"]

_Floats = npt.NDArray[np.float64]


def _joint(readings: Sequence[Reading], channels: int) -> _Floats:
    """Return what channels contribute together, [channels, channels]: the error without a set is the sum over it."""
    found = np.zeros((channels, channels))
    for reading in readings:
        energy = max(float(np.einsum("prk,prk->", reading.rows @ reading.gram, reading.rows)), 1e-30)
        for gram, rows, place in zip(reading.gram, reading.rows, reading.place, strict=True):
            member = np.zeros((channels, place.size))
            member[place[place >= 0], np.flatnonzero(place >= 0)] = 1
            found += member @ (rows.T @ rows * gram) @ member.T / energy
    return found


def energy(readings: Sequence[Reading], channels: int) -> Curve:
    """Rank channels by what each contributes alone."""
    return ranked(_joint(readings, channels).diagonal())


def thinet(readings: Sequence[Reading], channels: int) -> Curve:
    """Remove, again and again, the channel with which all that is removed contributes least."""
    joint = _joint(readings, channels)
    errors, order = [0.0], list[int]()
    added = joint.diagonal().copy()  # to the error, by the next channel
    for _ in range(channels):
        best = int(np.argmin(added))
        order.append(best)
        errors.append(errors[-1] + float(added[best]))
        added += 2 * joint[best]
        added[best] = np.inf
    return Curve(np.array(order, np.int64), np.maximum.accumulate(errors))


def lasso(readings: Sequence[Reading], channels: int) -> Curve:
    """Rank channels by the penalty at which their factor gets to be something else than zero."""
    from sklearn.linear_model import lars_path_gram

    joint = _joint(readings, channels)
    scale = np.trace(joint) / channels or 1.0
    gram = joint / scale + 1e-9 * np.eye(channels)
    penalties, _, factors = lars_path_gram(gram.sum(axis=1), gram, n_samples=1, method="lasso")
    entered = (np.abs(factors) > 0).argmax(axis=1)
    never = ~(factors != 0).any(axis=1)
    return ranked(np.where(never, 0.0, np.append(penalties, 0.0)[np.maximum(entered - 1, 0)]))


READ: Mapping[str, Callable[[Sequence[Reading], int], Curve]] = MappingProxyType(
    {"obs": removal, "energy": energy, "thinet": thinet, "lasso": lasso}
)
# From the sums of x, |x|, x^2 and x != 0 over many values, [4, channels], each divided by their number
ACTIVE: Mapping[str, Callable[[_Floats], _Floats]] = MappingProxyType(
    {
        "apoz": lambda sums: sums[3],
        "activation-mean": lambda sums: sums[1],
        "activation-std": lambda sums: np.sqrt(np.maximum(sums[2] - sums[0] ** 2, 0)),
    }
)


def activations(
    model: ir.Model, groups: Sequence[Group], criterion: str, samples: Samples, ctx: PassContext
) -> dict[str, Curve]:
    """Rank the channels of groups by the activations that are read; groups that nobody reads are left out.

    Args:
        model: What `groups.prepare` returned; not changed.
        groups: Of the model.
        criterion: One of `ACTIVE`.
        samples: To run it on, `RUNS` of them at most.
        ctx: Its threads and progress.

    Raises:
        ModelError: The model does not run.
        DataError: There are no samples, or they do not fit.
    """
    nodes = {str(node.name): node for node in model.graph}
    axes = {(str(_read(nodes, reader).name), reader.axis) for group in groups for reader in group.consumers}
    sums = {key: np.zeros((4, 0)) for key in axes}
    some = samples.spread(RUNS)
    for number, values in enumerate(runs(model, some, sorted({name for name, _ in axes}), threads=ctx.threads)):
        for name, axis in axes:
            rows = np.moveaxis(values[name], axis, 0)
            rows = rows.reshape(len(rows), -1).astype(np.float64)
            means = np.stack([f(rows).mean(axis=1) for f in (np.positive, np.abs, np.square, lambda x: x != 0)])
            sums[name, axis] = means if number == 0 else sums[name, axis] + (means - sums[name, axis]) / (number + 1)
        if ctx.progress:
            ctx.progress(number + 1, some.length)
    found = {}
    for group in groups:
        total = np.zeros(group.channels)
        for reader in group.consumers:
            scores = ACTIVE[criterion](sums[str(_read(nodes, reader).name), reader.axis])
            total += per_channel(group, reader.labels, scores) / max(float(scores.mean()), 1e-12)
        if group.consumers:
            found[group.name] = ranked(total)
    return found


def _read(nodes: Mapping[str, ir.Node], reader: Reader) -> ir.Value:
    value = nodes[reader.node].inputs[reader.input]
    assert value is not None
    return value
