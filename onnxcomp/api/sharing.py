"""``share``: weights that share values, with given bits or with bits chosen by sensitivity, verified by execution."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.api.bits import Choice, path, smallest_good
from onnxcomp.api.common import Data, check_threads
from onnxcomp.api.making import (
    MadeResult,
    Measured,
    assign,
    cleaned,
    judge_of,
    measured,
    missed,
    race_of,
    timed,
    times,
)
from onnxcomp.api.storing import forms_beside_int8
from onnxcomp.api.thinning import AUTO, Thinner, objection, sparsity_of, wary
from onnxcomp.data import Feed, ImageOptions
from onnxcomp.errors import GateFailed, ModelError, PassError, UsageError
from onnxcomp.facts import all_nodes
from onnxcomp.model import open_session
from onnxcomp.passbase import PassContext, Unit
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.sharing import ShareReport, TriedBits
from onnxcomp.report.sizes import StoredForm
from onnxcomp.runtime import Session
from onnxcomp.search import Judge, Progress, Task, why_nothing
from onnxcomp.statistics import GramStore
from onnxcomp.target import Gates, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ShareResult", "share"]

_PASS = "share-weights"
_NOISE_RUNS = 8  # to tell how much noise each unit makes
_COUNT_RUNS = 128  # of calibration samples, to tell what inputs count
_CHOICES = {"kmeans": (1, 2, 4, 8), "entropy": tuple(quarter / 4 for quarter in range(1, 33))}
_MEASURED = {"kmeans": 4.0, "entropy": 3.0}  # bits at which noise is measured
_LEAST, _MOST = 0.25, 8.0
_SPARSE = 0.99  # of the weights; where fewer are not zero, the others alone get more bits or less
_DEFAULT_DROP = 0.01
_DEFAULT_SQNR = 20.0  # dB, without labels


class ShareResult(MadeResult[ShareReport]):
    """What `share` gives back."""

    __slots__ = ()


def share(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    bits: str | float = "auto",
    method: str | None = None,
    granularity: str | None = None,
    group_channels: int | None = None,
    init: str | None = None,
    codebook: str | None = None,
    vector: int | None = None,
    calibration: Data | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    prune: str | float | None = None,
    exclude: Sequence[str] = (),
    gates: Gates | None = None,
    bench: bool = True,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    sizes: bool = False,
    progress: Progress | None = None,
) -> ShareResult:
    """Clean up a model, let the weights of each layer share a few values, and measure what that changed.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        bits: Of each index, 1 to 8, with ``entropy`` from 0.25 on; ``auto``: chosen per weight, as few as the gates
            allow (``max_drop`` 0.01 where there are labels and no gate is named, ``min_sqnr`` 20 dB where there are
            none).
        method: ``kmeans``, or ``entropy``: for files that are packed afterwards; None: ``kmeans``.
        granularity: ``tensor``, ``group`` or ``model``: what has a codebook of its own; None: ``tensor``.
        group_channels: Output channels of a group; None: the pass's default.
        init: Of k-means: ``exact``, ``linear``, ``density`` or ``random``; None: ``exact``.
        codebook: ``free``, or ``powers``: 0 and powers of two, with 2 bits or more; None: ``free``.
        vector: Neighbours along the inputs of a layer that have an index together, 1 to 16: ``bits`` / ``vector`` bits
            are spent on a weight, and with 2 or more bits are to be named; None: 1.
        calibration: Samples that tell what layers read, so that their outputs change least; None: weights do.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity to the original.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        prune: Share of the weights that become zero first, over all layers together; ``auto``: as many as two thirds
            of what the gates allow, bits take the rest. Bits are then chosen that keep ``max_drop`` and
            ``min_agreement`` (1 - 3 x ``max_drop`` where it is not named) by a standard error more: the boldest of
            many looks better than it is. For files that are packed: zeros cost them little.
        exclude: Names of nodes whose weights stay as they are.
        gates: Bounds that the result must keep; None: it is returned as it is.
        bench: Whether the latency is measured, in turns with the original.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: For every random choice.
        sizes: Whether the original, one with int8 weights and the result are stored in several ways, and loaded.
        progress: Called with the stage and the share done.

    Raises:
        GateFailed: A gate is missed; it carries the report.
        PassError: No weight can be shared, or the file would be larger.
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable.
    """
    show = progress or _silent
    gates = gates or Gates()
    number, share_of_zeros = _number(bits, granularity, vector), sparsity_of(prune)
    if isinstance(exclude, str):
        raise UsageError("exclude is a list of names, not one text", hint="pass ['name']")
    check_threads(threads)
    if gates.max_latency_ratio is not None and not bench:
        raise UsageError("max-latency-ratio can't be checked: latency not measured", hint="leave --no-bench out")
    given: dict[str, Any] = {
        "method": method,
        "granularity": granularity,
        "group_channels": group_channels,
        "init": init,
        "codebook": codebook,
        "vector": vector,
        "exclude": list(exclude) or None,
        "bits": number,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    Step(_PASS, settings).make()
    work = assign(
        model,
        calibration=calibration,
        evaluation=eval,
        metric=metric,
        gates=gates,
        batch=batch,
        images=images,
        seed=seed,
    )
    samples, task = work.samples, work.task
    if number is None or prune == AUTO:
        work = replace(work, gates=(gates := _bounded(gates, task)))
    # The smallest model that keeps these is taken
    quality_gates = replace(gates, max_size=None, max_size_ratio=None, max_latency_ratio=None)
    if prune == AUTO:
        quality_gates = wary(quality_gates)

    counting = None if samples is None else samples.spread(_COUNT_RUNS)
    ctx = PassContext(target=get_target("auto"), samples=counting, seed=seed)
    verifier, clean, clean_up = cleaned(work, ctx, show)
    base = clean
    units = Step(_PASS, settings | {"exclude": []}).make().units(base, ctx)
    Recipe((Step(_PASS, settings),)).check_excluded([name for unit in units for name in unit.nodes])
    units = [unit for unit in units if not set(unit.nodes) & set(exclude)]
    judge = judge_of(work)
    thinner = Thinner(ctx, verifier, judge, exclude)
    thinned: list[PassReport] = []
    if prune == AUTO:
        base, thinned = thinner.most(base, quality_gates, show)
    elif share_of_zeros:
        base, thinned = thinner.pruned(base, share_of_zeros)
    maker = _Maker(base, ctx, verifier, judge, settings, wary=prune == AUTO)
    made = maker.make({}) if number is not None else _chosen(maker, units, task, quality_gates, show)
    if made.found.size >= work.size:
        raise PassError(
            f"the file would not get smaller: {made.found.size} bytes of {work.size}",
            hint="the weights are too few or too small to share values",
        )
    found = made.found
    if bench:
        race = race_of(work, threads=threads, show=show)
        found = timed(found, race, exact=gates.max_latency_ratio)
    stored: tuple[StoredForm, ...] = ()
    if sizes:
        stored, notes = forms_beside_int8(work, clean, found, judge, verifier, threads=threads, show=show)
        work.notes.extend(notes)
    show("look into it", None)
    report = ShareReport(
        **work.facts(judge, found, [*thinned, made.done], clean_up),
        **times(found, ctx.target, threads=threads, batch=batch),
        settings=made.settings,
        bits=made.settings.get("bits_of", {}),
        pruned=tuple(thinner.tried),
        tried=tuple(maker.tried),
        sizes=stored,
        calibration=None if samples is None else samples.description,
        anatomy=work.anatomy(clean, made.found),
    )
    if report.missed:
        raise GateFailed("; ".join(report.missed), report=report)
    return ShareResult(found.model, report)


@dataclass(frozen=True, slots=True)
class _Made:
    """A model with shared weights, how it was made, and what was measured on it."""

    settings: Mapping[str, Any]
    done: PassReport
    found: Measured


class _Maker:
    """Makes models with shared weights, and judges them."""

    def __init__(
        self,
        base: "ir.Model",
        ctx: PassContext,
        verifier: Verifier,
        judge: Judge,
        settings: Mapping[str, Any],
        *,
        wary: bool,
    ) -> None:
        self.base, self.ctx = base, ctx
        self.settings = dict(settings)
        self.tried: list[TriedBits] = []
        self._verifier, self._judge, self._wary = verifier, judge, wary
        if ctx.samples is not None:
            ctx.grams = GramStore(base, ctx.samples, seed=ctx.seed)

    def make(self, bits_of: Mapping[str, float]) -> _Made:
        """Share weights, save, load back and judge.

        Raises:
            PassError: No weight was shared.
        """
        settings = self.settings | ({"bits_of": dict(bits_of)} if bits_of else {})
        shared, (done,) = run_recipe(self.base, Recipe((Step(_PASS, settings),)), self.ctx, self._verifier)
        if not done.modified:
            raise PassError(f"no weight can share values: {why_nothing(self.base, (done,))}")
        return _Made(settings, done, measured(shared, self._judge))

    def objection(self, made: _Made, gates: Gates) -> str | None:
        """Say why a model is not to be chosen, or None."""
        if self._wary:
            return objection(gates, self._judge, made.found)
        return "; ".join(missed(gates, self._judge, made.found)) or None


def _chosen(maker: _Maker, units: Sequence[Unit], task: Task, gates: Gates, show: Progress) -> _Made:
    """Return the smallest model that keeps the gates; the one with all bits where none does."""
    method = str(maker.settings.get("method", "kmeans"))
    if not units:
        return maker.make({})  # which says why
    show("sensitivity", None)
    counts = _counts(maker.base, units)
    sparse = {name: each.kept < _SPARSE * each.all and method == "entropy" for name, each in counts.items()}

    def spent(bits: Mapping[str, float]) -> dict[str, float]:
        return {name: counts[name].spent(each) if sparse[name] else each for name, each in bits.items()}

    noise = _noise(maker, units, task, spent(dict.fromkeys(counts, _MEASURED[method])))
    kept = {name: each.kept if sparse[name] else each.all for name, each in counts.items()}
    least = 2 if maker.settings.get("codebook") == "powers" else 0
    choices = [bits for bits in _CHOICES[method] if bits >= least]
    candidates = path(noise, kept, choices, measured=_MEASURED[method])
    total = sum(each.all for each in counts.values())
    made: list[_Made] = []  # the last good one, and the last one

    def good(candidate: Choice) -> bool:
        bits = spent(candidate.bits)
        mean = sum(each * counts[name].all for name, each in bits.items()) / total
        show(f"judge {mean:.2f} bits", None)
        found = maker.make(bits)
        why_not = maker.objection(found, gates)
        maker.tried.append(TriedBits(mean, found.found.size, found.found.quality, why_not))
        made[:] = [found] if why_not is None else [*made[:1], found]
        return why_not is None

    best = smallest_good(candidates, good)
    if best is None:
        return made[-1]
    # what is estimated of a unit alone may mislead, and judging is no smooth function of bits: the same for all, too
    smallest_good([Choice(dict.fromkeys(counts, each), each) for each in choices[::-1] if each < best.mean], good)
    return made[0]


def _noise(maker: _Maker, units: Sequence[Unit], task: Task, bits: Mapping[str, float]) -> dict[str, float]:
    """Measure what each unit alone adds to the outputs, noise power over signal power."""
    step = Step(_PASS, maker.settings | {"bits_of": dict(bits)})
    simulation = step.make().simulate(maker.base, maker.ctx)
    assert simulation is not None
    verifier = Verifier(maker.base, task.samples.spread(_NOISE_RUNS))
    session = open_session(simulation.model, threads=0)
    found = {}
    for unit in units:
        others = {name for other in units if other is not unit for name in other.nodes} - set(unit.nodes)
        try:
            found[unit.name] = verifier.compare(_Switched(session, simulation.switches(others))).noise
        except ModelError:  # an output is not finite any more
            found[unit.name] = math.inf
    return found


class _Switched:
    """A session whose switches are set."""

    def __init__(self, session: Session, switches: Mapping[str, Any]) -> None:
        self._session = session
        self._switches = switches

    def run(self, feed: Feed) -> dict[str, Any]:
        return self._session.run({**feed, **self._switches})


@dataclass(frozen=True, slots=True)
class _Count:
    """How many weights a unit has, and how many of them are not zero."""

    all: int
    kept: int

    def spent(self, bits: float) -> float:
        """Return the entropy of a weight, where one that is not zero has so many bits."""
        share = self.kept / self.all
        where = -sum(each * math.log2(each) for each in (share, 1 - share) if each > 0)
        return min(max(where + share * bits, _LEAST), _MOST)


def _counts(model: "ir.Model", units: Sequence[Unit]) -> dict[str, _Count]:
    """Count the weights of each unit."""
    import onnx_ir as ir

    work = model.clone()
    found = {}
    nodes = {str(node.name): node for node in all_nodes(work)}
    for unit in units:
        tensors = [ir.convenience.get_const_tensor(value) for value in nodes[unit.name].inputs if value is not None]
        matrices = [t for t in tensors if t is not None and t.dtype.is_floating_point() and len(t.shape) > 1]
        kept = sum(int(np.count_nonzero(tensor.numpy())) for tensor in matrices)
        found[unit.name] = _Count(max(sum(int(tensor.size) for tensor in matrices), 1), max(kept, 1))
    return found


def _bounded(gates: Gates, task: Task) -> Gates:
    """Return gates that bound what answers may lose."""
    if not gates.max_drop is gates.min_agreement is gates.min_sqnr is None:
        return gates
    if task.metric is None:
        return replace(gates, min_sqnr=_DEFAULT_SQNR)
    return replace(gates, max_drop=_DEFAULT_DROP)


def _number(bits: str | float, granularity: str | None, vector: int | None) -> float | None:
    """Return a number of bits; None: they are chosen.

    Raises:
        UsageError: It is neither a number nor ``auto``, or can't be chosen here.
    """
    if bits == "auto":
        if granularity == "model":
            raise UsageError("bits can't be chosen per weight where the model has one codebook", hint="--bits 4")
        if vector not in (None, 1):
            raise UsageError("bits can't be chosen per weight where vectors are shared", hint="--bits 8")
        return None
    try:
        number = float(bits)
    except (TypeError, ValueError) as err:
        raise UsageError(f"bits must be a number from 1 to 8, or auto; got {bits!r}") from err
    return int(number) if number.is_integer() else number


def _silent(_stage: str, _share: float | None) -> None:
    pass
