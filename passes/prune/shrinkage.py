"""What few samples tell of the second moment of all: the measured one, moved towards a multiple of the identity.

With fewer vectors than columns, a fit without most of the columns would seem to cost nothing. How far to move is told
twice, and the larger share counts:

- by the number of vectors, as if none depended on another (OAS);
- by how much halves of the samples differ. Positions of one image, and crops of one photo, say much the same: there
  may be many vectors and little in them. Those of one source come one after the other, or take turns: so the halves are
  the first and the second part, and the odd and the even runs.

With halves A and B that are independent, ``E<A, B> = |M|^2`` while ``E<A, A>`` holds the noise too: moving A towards
its target T by the share ``<A - B, A - T> / |A - T|^2`` brings it nearest to B. Of all samples half of that variance is
left.

Source: Chen et al. 2010, "Shrinkage Algorithms for MMSE Covariance Estimation", eq. 23 (OAS); Ledoit and Wolf 2004, "A
well-conditioned estimator for large-dimensional covariance matrices", theorem 2.1, with the expectations taken over
halves of the samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.data.samples import Samples, Selection
from onnxcomp.passbase import PassContext
from onnxcomp.statistics import MOST_BYTES, Columns, Gram, collect_grams

__all__ = ["collect_parts", "shrunk"]

_PARTS = 4
_HALVES = ((0, 1), (2, 3)), ((0, 2), (1, 3))
_Floats = npt.NDArray[np.float64]


def collect_parts(
    model: ir.Model, samples: Samples, layers: Mapping[str, Columns], *, positions: int, ctx: PassContext
) -> Iterator[tuple[str, tuple[Gram, ...]]]:
    """Run a model over samples and yield the Gram matrices of each layer, of four parts of the samples.

    These are the even and odd runs of the first half, the even and odd ones of the second; one part where there are
    fewer than four runs.

    Args:
        model: Not changed.
        samples: What it is run on.
        layers: How each layer reads its input, by any name.
        positions: Vectors per layer at most, of all runs together (at least one per run).
        ctx: Its seed, threads and progress.

    Raises:
        As `collect_grams`.
    """
    total = samples.count()
    half = total // 2
    dealt = [range(total)]
    if total >= _PARTS:
        dealt = [range(first, end, 2) for begin, end in ((0, half), (half, total)) for first in (begin, begin + 1)]
    done = np.cumsum([0, *map(len, dealt)]).tolist()

    def tell(before: int, now: int, _: int | None) -> None:
        if ctx.progress:
            ctx.progress(before + now, total)

    collected = [
        collect_grams(
            model,
            Selection(samples, runs) if len(dealt) > 1 else samples,
            layers,
            positions=-(-positions // len(dealt)),
            most_bytes=MOST_BYTES // len(dealt),
            seed=ctx.seed + place,
            threads=ctx.threads,
            progress=partial(tell, before),
        )
        for place, (runs, before) in enumerate(zip(dealt, done, strict=False))
    ]
    for found in zip(*collected, strict=True):
        yield found[0][0], tuple(gram for _, gram in found)


def shrunk(parts: Sequence[Gram], *, centred: bool) -> _Floats:
    """Return the moment, or the covariance, that parts of the samples tell together, shrunk, [groups, K, K].

    Args:
        parts: As `collect_parts` returns them, or one.
        centred: Whether a bias takes up the mean.
    """
    whole = _moment(parts, centred=centred)
    target = _target(whole)
    share = _oas(whole, sum(gram.count for gram in parts))
    if len(parts) == _PARTS:
        halves = [[_moment([parts[k] for k in half], centred=centred) for half in both] for both in _HALVES]
        share = np.maximum(share, max(_apart(first, second) for first, second in halves))
    found: _Floats = (1 - share) * whole + share * target
    return found


def _moment(parts: Sequence[Gram], *, centred: bool) -> _Floats:
    total = reduce(lambda a, b: Gram(a.products + b.products, a.sums + b.sums, a.count + b.count), parts[1:], parts[0])
    return total.covariance if centred else total.moment


def _target(moment: _Floats) -> _Floats:
    size = moment.shape[-1]
    target: _Floats = np.trace(moment, axis1=1, axis2=2)[:, None, None] / size * np.eye(size)
    return target


def _oas(moment: _Floats, count: int) -> _Floats:
    """Return how far to move a moment of so many independent vectors, [groups, 1, 1]."""
    size = moment.shape[-1]
    trace = np.trace(moment, axis1=1, axis2=2)[:, None, None]
    squares = np.square(moment).sum(axis=(1, 2), keepdims=True)
    spread = (count + 1 - 2 / size) * (squares - trace**2 / size)
    share = np.ones_like(trace)
    np.divide((1 - 2 / size) * squares + trace**2, spread, out=share, where=spread > 0)
    found: _Floats = np.clip(share, 0, 1)
    return found


def _apart(first: _Floats, second: _Floats) -> float:
    """Return how far to move the moment of all samples, judged by those of two halves."""
    shares = []
    for one, other in ((first, second), (second, first)):
        way = one - _target(one)
        power = float(np.square(way).sum())
        shares.append(float(((one - other) * way).sum()) / power if power > 0 else 0.0)
    share = min(max(sum(shares) / 2, 0.0), 1.0)
    return share / (2 - share)
