"""Runs a recipe: each pass on a copy, executed before and after; kept, or rolled back with the reason.

An exact pass whose outputs differ by more than rounding from those of the model that it got failed. A lossy one is
judged later, by the budget; here it must only load, run and give finite numbers where the model did.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, ModelError, PassError, RecipeError
from onnxcomp.facts import is_quantized
from onnxcomp.measure import Stopwatch
from onnxcomp.metrics import Fidelity, Outputs, as_arrays, typical_sqnr
from onnxcomp.model import open_session
from onnxcomp.passbase import Need, PassContext, Skip
from onnxcomp.recipe import METADATA_KEY, Recipe, Step
from onnxcomp.statistics import MeanStore

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PassReport", "Runnable", "Verifier", "recipe_of", "run_recipe"]

_ROUNDING_DB = 60.0  # fp32 rewrites measure 90 dB and more; a wrong one, less than 40
_WRONG_DB = 40.0  # under this no rounding is the reason
_ONE_BIT = 6.0  # dB: noise of twice the amplitude
_FLIPS_DB = 10.0  # that flipped integers are below the noise of the quantization; 20 dB were measured
_SAME_ANSWERS = 0.99  # of an output that is no float; rounding may decide a close ArgMax


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass of a recipe did.

    Attributes:
        name: The pass.
        modified: Whether its result was kept and differs from what it got.
        counters: What it did how often.
        skipped: What it left alone, and why.
        failure: Why its result was rolled back, where it was.
        noise: Noise power over signal power, summed over the outputs; None: not measured.
        sqnr: Signal-to-noise ratio of the outputs against those of the pipeline's input, dB; None: not measured.
        seconds: Wall-clock time, verification included.
    """

    name: str
    modified: bool
    counters: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()
    failure: str | None = None
    noise: float | None = None
    sqnr: float | None = None
    seconds: float = 0.0


class Runnable(Protocol):
    """What answers like a session."""

    def run(self, feed: Feed) -> dict[str, Any]:
        """Return all outputs by name."""


class Verifier:
    """Compares a changed model with the original by running both on a few samples.

    Args:
        model: The original.
        feeds: A few runs; their outputs are kept.

    Raises:
        ModelError: The original does not run.
        DataError: The samples do not fit it.
    """

    def __init__(self, model: "ir.Model", feeds: Iterable[Feed]) -> None:
        session = open_session(model)
        self._feeds = list(feeds)
        self._expected = [as_arrays(session.run(feed)) for feed in self._feeds]

    def compare(self, session: Runnable) -> Fidelity:
        """Return how close a session's outputs are to the original's.

        Raises:
            ModelError: It does not run, its inputs or outputs have other names or shapes, or an output is not finite
                where the original's is.
        """
        fidelity = Fidelity()
        for expected, outputs in self._pairs(session):
            fidelity.add(expected, outputs)
        return fidelity

    def against(self, model: "ir.Model") -> "Verifier":
        """Return what compares with another model, on the same runs.

        Raises:
            ModelError: It does not run.
        """
        return Verifier(model, self._feeds)

    def typical_sqnr(self, session: Runnable) -> float:
        """Return the median of the runs' SQNR, dB.

        Raises:
            ModelError: As for ``compare``.
        """
        return typical_sqnr(self._pairs(session))

    def _pairs(self, session: Runnable) -> Iterator[tuple[Outputs, Outputs]]:
        for feed, expected in zip(self._feeds, self._expected, strict=True):
            try:
                outputs = as_arrays(session.run(feed))
            except DataError as err:  # the original took these samples
                raise ModelError(f"the inputs changed: {err}") from err
            if list(outputs) != list(expected):
                raise ModelError(f"the outputs changed from {list(expected)} to {list(outputs)}")
            for name, value in outputs.items():
                if value.shape != expected[name].shape:
                    raise ModelError(f"output {name} changed its shape")
                if _broken(expected[name], value):
                    raise ModelError(f"output {name} is not finite any more")
            yield expected, outputs


def run_recipe(
    model: "ir.Model",
    recipe: Recipe,
    ctx: PassContext,
    verifier: Verifier,
    *,
    progress: Callable[[str], None] | None = None,
) -> tuple["ir.Model", list[PassReport]]:
    """Apply a recipe to a copy of a model.

    Returns:
        The result, which carries the steps that were kept in its ``metadata_props``, and a report per pass.
    """
    kept: list[Step] = []
    reports = []
    ctx.origin = None
    ctx.timer = ctx.timer or Stopwatch(threads=ctx.threads or 1, seed=ctx.seed)
    for step in recipe.steps:
        if progress:
            progress(step.name)
        start = time.perf_counter()
        _keep_reference(model, ctx)
        origin = ctx.origin
        changed, report = _run_step(model, step, ctx, verifier)
        reports.append(replace(report, seconds=time.perf_counter() - start))
        if changed is not None:
            model = changed
            kept.append(step)
            if step.make().shifts:
                ctx = ctx.afresh(model)
        else:
            ctx.origin = origin
    if kept:
        earlier = recipe_of(model).steps
        model = model.clone()
        model.metadata_props[METADATA_KEY] = Recipe((*earlier, *kept)).to_toml()
    return model, reports


def _run_step(
    model: "ir.Model", step: Step, ctx: PassContext, verifier: Verifier
) -> tuple["ir.Model | None", PassReport]:
    """Return the changed model, or None where nothing changed or the change was rolled back."""
    work = step.make()
    if Need.CALIBRATION in work.needs and ctx.ranges is None:
        return None, PassReport(step.name, modified=False, failure="needs calibration samples (--calibration)")
    changed = model.clone()
    ctx.skipped.clear()
    noise, sqnr = None, None
    try:
        stats = work.run(changed, ctx)
        skipped = (*stats.skipped, *ctx.skipped)
        if not stats.modified:
            return None, PassReport(step.name, modified=False, counters=stats.counters, skipped=skipped)
        session = open_session(changed)
        fidelity = verifier.compare(session)
        noise, sqnr = fidelity.noise, fidelity.sqnr
        if work.exact and _change(fidelity) and (change := _own_change(model, session, verifier)):
            raise PassError(change)  # noqa: TRY301  (one more way to fail)
    except (PassError, ModelError) as err:
        return None, PassReport(step.name, modified=False, failure=str(err), noise=noise, sqnr=sqnr)
    return changed, PassReport(
        step.name, modified=True, counters=stats.counters, skipped=skipped, noise=noise, sqnr=sqnr
    )


def _keep_reference(model: "ir.Model", ctx: PassContext) -> None:
    """Let later passes ask what a model gave before it was quantized."""
    known = None if ctx.reference is None else ctx.reference.model
    if ctx.samples is not None and model is not known and not is_quantized(model):
        ctx.reference = MeanStore(model, ctx.samples, threads=ctx.threads, progress=ctx.progress)


def _change(fidelity: Fidelity, least: float = _ROUNDING_DB) -> str | None:
    """Say which change is more than rounding, or None."""
    if not fidelity.sqnr >= least:
        return f"outputs changed by more than rounding ({fidelity.sqnr:.1f} dB)"
    name = _flipped(fidelity)
    return None if name is None else f"output {name} changed"


def _own_change(model: "ir.Model", changed: Runnable, verifier: Verifier) -> str | None:
    """Say which change of what a pass got is more than rounding: what lossy passes did before is not its doing.

    What rounding may do is seen on the model itself: some outputs, such as probabilities near 0, change by as much when
    onnxruntime rewrites it on loading. Between quantized layers rounding flips integers here and there: noise of their
    kind, but far less of it.
    """
    got = verifier.against(model)
    if is_quantized(model):
        natural = verifier.compare(open_session(model)).sqnr + _FLIPS_DB
    else:
        natural = max(got.compare(open_session(model, optimize=False)).sqnr - _ONE_BIT, _WRONG_DB)
    return _change(got.compare(changed), min(_ROUNDING_DB, natural))


def _flipped(fidelity: Fidelity) -> str | None:
    """Name an output of integers, booleans or strings that is not the same any more."""
    outputs = fidelity.outputs.items()
    return next((name for name, found in outputs if found.sqnr is None and found.agreement < _SAME_ANSWERS), None)


def _broken(expected: np.ndarray, value: np.ndarray) -> bool:
    """Whether a float output is NaN or infinite where it was a number."""
    if expected.dtype.kind != "f":
        return False
    return bool((np.isfinite(expected) & ~np.isfinite(value)).any())


def recipe_of(model: "ir.Model") -> Recipe:
    """Return the recipe that made the model; an empty one where it carries none that this program can read."""
    text = model.metadata_props.get(METADATA_KEY)
    if not text:
        return Recipe()
    try:
        return Recipe.from_toml(text)
    except RecipeError:  # made by another version, or by a pass that is not installed here
        return Recipe()
