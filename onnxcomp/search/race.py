"""Times candidates against the original, interleaved in this process, on one feed."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from onnxcomp.data import Feed
from onnxcomp.errors import ModelError
from onnxcomp.measure import Comparison, Ratio, check_device, interleave
from onnxcomp.model import fingerprint, materialized, open_session
from onnxcomp.runtime import Provider, Session
from onnxcomp.search.memory import Memory

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["NO_SLOWER", "Race", "slowness"]

NO_SLOWER = 1.02  # a model counts as no slower where its ratio's interval ends at or below this
_WIDEST = 0.02  # half-width of an interval that proves something
_CLEARLY_FASTER = 0.9  # a ratio whose whole interval is below this needs no narrower one

_ROUGH = (0.05, 15.0)  # half-width and seconds of a first look
_ALONE = (0.02, 1.0)
_AMONG = (0.01, 15.0)
_EXACT = (0.01, 20.0)  # 1.00 must be told from 1.02
_ATTEMPTS = 3  # each with twice the time of the one before: other programs come and go

# Where machines are shared, a neighbour makes runs slower for seconds at a time, and not all models alike: on one such
# machine ResNet-8 took 1.13 to 1.24 times as long in 8 % of the looks, and its INT8 form 1.43 to 1.6 times.
_DISTURBED = 1.06  # of the time that a model took before
_LONG = 3.0  # seconds of a look that sees enough of a machine to know it
_PAUSE = 1.0  # seconds until the next look
_FURTHER = 12  # further looks in all


class Race:
    """Timing runs against one original.

    Args:
        original: The model that all others are compared with.
        feed: The one input that is timed.
        threads: Intra-op threads.
        provider: What runs the models. On a device, inputs and outputs stay in its memory.
        seed: Of the order within rounds.
        progress: Told the stage and the share of the time used.
        memory: Keeps what was timed.
        measured: What another machine has found out: nothing is timed here.
        late: Whether to be content with one look, however wide its intervals are.
    """

    def __init__(
        self,
        original: "ir.Model",
        feed: Feed,
        *,
        threads: int,
        seed: int,
        progress: Callable[[str, float | None], None],
        provider: Provider = "cpu",
        memory: Memory | None = None,
        measured: Comparison | None = None,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        self._late = late
        self._original = original
        self.feed = feed
        self.threads = threads
        self._provider = provider
        self._seed = seed
        self._progress = progress
        self._memory = memory or Memory()
        self._measured = measured
        self._fastest: WeakKeyDictionary[ir.Model, float] = WeakKeyDictionary()  # seconds of an undisturbed run
        self._further = _FURTHER

    @property
    def profiled(self) -> bool:
        """Whether a profile tells what each node takes: on a GPU, it tells what starting its kernel takes."""
        return self._provider == "cpu"

    def meet(self) -> None:
        """Time the original alone, long before it is compared: what is slow for seconds only is noticed then.

        Raises:
            EnvironmentUnavailable: The provider is not there, or runs no node of it.
        """
        if self._measured is None:
            with materialized(self._original) as source:
                check_device("the model", source, self.feed, threads=self.threads, provider=self._provider)
            models = {"original": self._original}
            measure = partial(self._steady, models, self._alone)
            self._memory.recall("time of the original", partial(_key, "alone", models), Comparison, measure)

    def why_not(self, model: "ir.Model") -> str | None:
        """Say why a model does not run on the device where it is to be timed, or None; the CPU has run it before."""
        if self._provider == "cpu":
            return None
        try:
            self._ready(model)()
        except ModelError as err:
            return str(err)
        return None

    def rough(self, models: "Mapping[str, ir.Model]") -> Comparison:
        """Time several models well enough to rank them."""
        if self._measured is not None:
            return _only(self._measured, models)

        def measure() -> Comparison:
            contenders = {name: self._ready(model) for name, model in models.items()}
            half_width, seconds = _ROUGH
            run = partial(self._run, contenders, half_width, seconds, "measure", attempts=2)
            return self._steady({"original": self._original, **models}, run)

        return self._memory.recall(f"time of {', '.join(models)}", partial(_key, "rough", models), Comparison, measure)

    def among(self, models: "Mapping[str, ir.Model]", stage: str) -> Comparison:
        """Time models against the first of them."""

        def measure() -> Comparison:
            contenders = {name: self._ready(model) for name, model in models.items()}
            half_width, seconds = _AMONG
            run = partial(
                interleave,
                contenders,
                baseline=next(iter(models)),
                half_width=half_width,
                max_seconds=seconds,
                seed=self._seed,
                progress=partial(self._progress, stage),
            )
            return self._steady(models, run)

        return self._memory.recall(stage, partial(_key, "among", models), Comparison, measure)

    def exact(
        self, name: str, made: "ir.Model | Path", expected: float, *, model: "ir.Model | None" = None
    ) -> Comparison:
        """Time one model well enough to promise its ratio.

        Args:
            name: Of the model.
            made: What is to be delivered, or its file.
            expected: Its ratio in the rough run.
            model: The model itself, where its time may be known.
        """
        if self._measured is not None:
            return _only(self._measured, (name,))
        half_width, seconds = _EXACT
        relative = half_width / min(1.0, max(0.25, expected))

        known = {"original": self._original} | ({} if model is None else {name: model})
        run = partial(self._run, {name: self._ready(made)}, relative, seconds, f"prove {name}", attempts=_ATTEMPTS)
        measure = partial(self._steady, known, run)
        if model is None:
            return measure()
        key = partial(_key, "exact", {name: model})
        return self._memory.recall(f"exact time of {name}", key, Comparison, measure)

    def _alone(self) -> Comparison:
        half_width, seconds = _ALONE
        # two sessions, which take the caches from each other as contenders do
        contenders = {name: self._ready(self._original) for name in ("original", "itself")}
        return interleave(contenders, baseline="original", half_width=half_width, max_seconds=seconds, seed=self._seed)

    def _steady(self, models: "Mapping[str, ir.Model]", run: Callable[[], Comparison]) -> Comparison:
        """Time models, and once more a while later as long as one of them is slower than it is known to be.

        Args:
            models: By their names in the comparison; others in it are not looked at.
            run: Times them.
        """
        while True:
            comparison = run()
            times = {models[one.name]: one.undisturbed for one in comparison.timings if one.name in models}
            slow = any(taken > _DISTURBED * self._fastest.get(model, taken) for model, taken in times.items())
            if not slow or comparison.seconds > _LONG or self._further == 0:
                break
            self._progress("wait until other programs are done", None)
            time.sleep(_PAUSE)
            self._further -= 1
        for model, taken in times.items():
            self._fastest[model] = min(taken, self._fastest.get(model, taken))
        return comparison

    def _ready(self, model: "ir.Model | Path") -> Callable[[], object]:
        """Return what runs a model once on the feed."""
        if isinstance(model, Path):
            session = Session(model, threads=self.threads, provider=self._provider)
        else:
            session = open_session(model, threads=self.threads, provider=self._provider)
        return session.bound(self.feed)

    def _run(
        self,
        others: Mapping[str, Callable[[], object]],
        half_width: float,
        seconds: float,
        stage: str,
        *,
        attempts: int,
    ) -> Comparison:
        contenders = {"original": self._ready(self._original), **others}
        for attempt in range(attempts):
            comparison = interleave(
                contenders,
                baseline="original",
                half_width=half_width,
                max_seconds=seconds * 2**attempt,
                seed=self._seed + attempt,
                progress=partial(self._progress, stage),
            )
            narrow = all(ratio.half_width <= _WIDEST for ratio in comparison.ratios.values())
            if comparison.settled or narrow or self._late():
                break
        return comparison


def _only(comparison: Comparison, names: Iterable[str]) -> Comparison:
    """Leave out the ratios of others."""
    return replace(comparison, ratios={name: comparison.ratios[name] for name in names})


def _key(kind: str, models: "Mapping[str, ir.Model]") -> list[str]:
    return [kind, *(text for name, model in models.items() for text in (name, fingerprint(model)))]


def slowness(ratio: Ratio, allowed: float | None) -> str | None:
    """Say why an exact ratio does not prove a model to be fast enough, or None.

    Args:
        ratio: From `Race.exact`.
        allowed: The user's bound on it; None: no slower than the original.
    """
    bound = NO_SLOWER if allowed is None else allowed
    interval = f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    if ratio.high > bound:
        return f"not proven within {bound:g} of the original's time: {interval}"
    if ratio.half_width > _WIDEST and ratio.high > min(bound, _CLEARLY_FASTER):
        return f"the machine is too busy to prove its time: {interval}"
    return None
