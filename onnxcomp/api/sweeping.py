"""Sweeps of `bench`: the same models at several sizes of their open dimensions.

    sweep {"batch": [1, 4], "sequence": [16, 64]}      input_ids ["batch", "sequence"], mask ["batch", "sequence"]
    -> 4 points: input_ids and mask of 1 x 16, 1 x 64, 4 x 16, 4 x 64

What goes in is the first run of the samples, cut or repeated along the swept axes: values stay such as the model takes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, ModelError, UsageError
from onnxcomp.measure import Comparison
from onnxcomp.report import SweepPoint, SweepTiming

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Place", "check_sweep", "places_of", "resized", "sweep_points", "swept_places"]

_MOST_POINTS = 64
_BATCH = "batch"
_HINT = "DIMENSION is a name, batch (the first axis of all inputs), or INPUT.AXIS; export the model with dynamic axes"


@dataclass(frozen=True, slots=True)
class Place:
    """An axis of an input."""

    input: str
    axis: int


def check_sweep(sweep: Mapping[str, Sequence[int]]) -> None:
    """Refuse a sweep that makes no sense for any model.

    Raises:
        UsageError: A dimension has no sizes, one twice or one below 1, or there are too many points.
    """
    for name, sizes in sweep.items():
        if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
            said = ", ".join(map(str, sizes)) or "none"
            raise UsageError(
                f"the sizes of a sweep must be 1 or more, each once: {name} has {said}", hint=f"{name}=1,2,4"
            )
    if (points := math.prod(len(sizes) for sizes in sweep.values())) > _MOST_POINTS:
        raise UsageError(f"the sweep has {points} points, at most {_MOST_POINTS} are timed", hint="name fewer sizes")


def places_of(models: "Sequence[tuple[str, ir.Model]]", dimension: str) -> tuple[Place, ...]:
    """Find the axes that a dimension stands for.

    It is a name in the first model's inputs, the only one that begins so, ``batch`` for the first axis of all inputs
    (where it is open), or ``INPUT.AXIS`` for an axis without a name.

    Args:
        models: What each is called, and its graph; all must leave the axes open.
        dimension: As the user wrote it.

    Raises:
        UsageError: There is no such dimension, or a model has it fixed.
    """
    (first, model), *others = models
    found = _named(_open_places(model), dimension)
    if not found:
        raise UsageError(f"{first} has no open dimension {dimension!r}: {_open_text(model)}", hint=_HINT)
    for name, other in others:
        fixed = [place for place in found if place not in _open_places(other)]
        if fixed:
            where = ", ".join(f"axis {place.axis} of {place.input}" for place in fixed)
            raise UsageError(f"{name} can't be swept over {dimension!r}: it has {where} fixed", hint=_HINT)
    return found


def swept_places(models: "Sequence[tuple[str, ir.Model]]", sweep: Iterable[str]) -> dict[str, tuple[Place, ...]]:
    """Find the axes of every dimension; see `places_of`.

    Raises:
        UsageError: A dimension is not there or fixed, or two are the same.
    """
    found = {dimension: places_of(models, dimension) for dimension in sweep}
    every = [place for some in found.values() for place in some]
    if len(set(every)) < len(every):
        raise UsageError(f"two dimensions of the sweep are the same: {', '.join(sweep)}", hint="name each once")
    return found


def _named(places: Mapping[Place, str], dimension: str) -> tuple[Place, ...]:
    names = {name for name in places.values() if name.lower().startswith(dimension.lower())}
    wanted = dimension if dimension in names else next(iter(names)) if len(names) == 1 else None
    if wanted:
        return tuple(place for place, name in places.items() if name == wanted)
    if dimension == _BATCH:
        return tuple(place for place in places if place.axis == 0)
    return tuple(place for place in places if f"{place.input}.{place.axis}" == dimension)


def _open_places(model: "ir.Model") -> dict[Place, str]:
    """Return the axes of inputs that may have any size, with their names (empty: none)."""
    found = {}
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            for axis, size in enumerate(value.shape or ()):
                if not isinstance(size, int):
                    found[Place(str(value.name), axis)] = size.value or ""
    return found


def _open_text(model: "ir.Model") -> str:
    named: dict[str, list[str]] = {}
    for place, name in _open_places(model).items():
        own = f"{place.input}.{place.axis}"
        named.setdefault(name or own, []).append(own)
    if named:
        listed = ", ".join(f"{name} ({', '.join(places)})" for name, places in named.items())
        return f"it has {listed}"
    fixed = ", ".join(f"{value.name} {list(value.shape or ())}" for value in model.graph.inputs)
    return f"all its inputs have fixed shapes ({fixed})"


def resized(feed: Feed, places: Mapping[Place, int]) -> Feed:
    """Return a run whose axes have these sizes: cut, or with what there is repeated.

    Raises:
        DataError: There is nothing to repeat, or an input is no array.
    """
    found = dict(feed)
    for place, size in places.items():
        value = found[place.input]
        if not isinstance(value, np.ndarray) or not value.shape[place.axis]:
            raise DataError(f"the run holds nothing along axis {place.axis} of {place.input} that could be repeated")
        found[place.input] = np.take(value, np.arange(size) % value.shape[place.axis], axis=place.axis)
    return found


def sweep_points(
    models: "Sequence[tuple[str, ir.Model]]",
    feed: Feed,
    sweep: Mapping[str, Sequence[int]],
    *,
    rows: int,
    time: Callable[[Feed, str], Comparison],
) -> Iterator[SweepPoint]:
    """Time models at every combination of the sizes.

    Args:
        models: What each is called, and its graph; the first is what the others are compared with.
        feed: The run that others are made from.
        sweep: Sizes by dimension; see `places_of`.
        rows: In a run, where the first axis is not swept.
        time: Times all models on a run; the text says which point it is.

    Raises:
        UsageError: A dimension is not there or fixed, or two are the same.
        DataError: The run can't be cut or repeated, or does not fit a model at a point.
        ModelError: A model fails at a point.
    """
    places = swept_places(models, sweep)
    every = {place for some in places.values() for place in some}
    for combination in product(*sweep.values()):
        sizes = dict(zip(sweep, combination, strict=True))
        point = ", ".join(f"{dimension} {size}" for dimension, size in sizes.items())
        run = resized(feed, {place: size for name, size in sizes.items() for place in places[name]})
        try:
            timed = time(run, point)
        except (DataError, ModelError) as err:
            raise type(err)(f"at {point}: {err}", hint="leave that size out, or sweep what depends on it too") from err
        first = {Place(name, 0) for name in run}
        firsts = {np.shape(value)[:1] for value in run.values()}
        items = next(iter(firsts))[0] if first <= every and len(firsts) == 1 else rows
        yield SweepPoint(
            sizes=sizes,
            shapes={name: tuple(np.shape(value)) for name, value in run.items()},
            rows=items,
            models=tuple(
                SweepTiming(
                    model=name,
                    latency=found,
                    per_row=found.median / items,
                    throughput=items / found.median,
                    ratio=timed.ratios.get(found.name),
                )
                for (name, _), found in zip(models, timed.timings, strict=True)
            ),
            rounds=timed.rounds,
            settled=timed.settled,
            seconds=timed.seconds,
            warnings=timed.warnings,
        )
