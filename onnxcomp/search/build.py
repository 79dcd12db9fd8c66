"""From a cleaned-up model to candidates in memory."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from onnxcomp.measure import node_times
from onnxcomp.model import fingerprint, open_session, size
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.candidates import ATTENTION, Candidate, attended, corrected, retuned
from onnxcomp.search.fronts import Fronts
from onnxcomp.search.memory import Memory
from onnxcomp.search.polish import polish
from onnxcomp.search.race import NO_SLOWER, Race
from onnxcomp.search.rescue import rescue
from onnxcomp.search.result import CandidateResult
from onnxcomp.search.savings import measure_savings
from onnxcomp.search.variants import Switch, Variant, Variants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Builder", "Built", "loss", "taken"]

_SHARE_OF_ORDERING = 0.5  # of the time for optional steps; the rest is for the trials that follow


@dataclass(slots=True)
class Built:
    """A candidate in memory; its result grows while it is measured."""

    result: CandidateResult
    model: "ir.Model"
    family: str = "cleanup"  # the candidate that it is, or is a variant of
    recipe: Recipe = field(default_factory=Recipe)  # without the clean-up
    rescued: bool = False
    milder: tuple[Candidate, ...] = ()  # acceptable ones with more in float, the fastest last
    failed_verdict: bool = False  # on samples that the search did not see


class Builder:
    """Makes candidates from one cleaned-up model.

    Args:
        cleaned: The model that they start from.
        ctx: Shared by their passes.
        verifier: Compares each pass's result with the original.
        progress: Told what is going on.
        memory: Keeps what was made.
        late: Whether to begin no further candidate where there is one.
    """

    def __init__(
        self,
        cleaned: "ir.Model",
        ctx: PassContext,
        verifier: Verifier,
        progress: Callable[[str, float | None], None],
        memory: Memory,
        *,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cleaned = cleaned
        self._ctx = ctx
        self._verifier = verifier
        self._progress = progress
        self._fronts = Fronts(cleaned, ctx, verifier, progress, memory)
        self._memory = memory
        self._late = late

    def cleanup(self) -> Built:
        """Return the cleaned-up model itself as a candidate."""
        return Built(_described("cleanup", self._cleaned, ()), self._cleaned)

    def build(self, wanted: list[Candidate], *, whole: bool = False) -> list[Built]:
        """Make candidates; of equal ones the first is kept, and those that change nothing are dropped.

        Where it is late, the first that can be made is enough.

        One whose every pass was rolled back is kept as rejected, with the reason.

        Args:
            wanted: What to make.
            whole: Whether one pass that was rolled back is enough for that: somebody asked for all of them.
        """
        built: list[Built] = []
        seen = {fingerprint(self._cleaned)}
        for candidate in wanted:
            if built and self._late():
                break
            model, reports = self._made(candidate)
            result = _described(candidate.name, model, reports)
            failures = [f"{made.name}: {made.failure}" for made in reports if made.failure]
            is_new = (key := fingerprint(model)) not in seen
            seen.add(key)
            if failures and (whole or not is_new):
                result.rejected = failures[0]
            if is_new or failures:
                built.append(Built(result, model, candidate.name, candidate.recipe))
        return built

    def _made(self, candidate: Candidate) -> "tuple[ir.Model, tuple[PassReport, ...]]":
        def make() -> "tuple[ir.Model, tuple[PassReport, ...]]":
            report = partial(self._stage, candidate.name)
            front = self._fronts.of(candidate.recipe)
            rest = Recipe(candidate.recipe.steps[len(front.passes) :])
            model, others = run_recipe(front.model, rest, front.ctx, self._verifier, progress=report)
            return model, (*front.passes, *others)

        made = self._memory.recall_model(f"model of {candidate.name}", partial(_key, "model", candidate.recipe), make)
        if self._ctx.ranges is not None:
            self._memory.keep_histograms(self._ctx.ranges.known)
        return made

    def outcome(self, step: Step) -> str | None:
        """Return what tells apart the models that a step can make of the cleaned-up one; None: it changes nothing."""
        model, (report,) = run_recipe(self._cleaned, Recipe((step,)), self._ctx, self._verifier)
        return fingerprint(model) if report.modified else None

    def _varied(
        self, what: str, origin: Built, make: Callable[[], tuple[Variant, tuple[Recipe, ...]] | None]
    ) -> tuple[Variant, tuple[Recipe, ...]] | None:
        """Return the variant of a candidate that a step of the search chose, with its alternatives; it may be known."""
        fresh: list[Variant] = []

        def choose() -> tuple[str, ...]:
            found = make()
            if found is None:
                return ()
            variant, others = found
            fresh.append(variant)
            self._memory.recall_model(
                "", partial(_key, "model", variant.recipe), lambda: (variant.model, variant.passes)
            )
            return tuple(recipe.to_toml() for recipe in (variant.recipe, *others))

        key = partial(_key, what, origin.recipe)
        chosen = self._memory.recall(f"{what} of {origin.result.name}", key, tuple[str, ...], choose)
        recipes = [Recipe.from_toml(text) for text in chosen]
        if not recipes:
            return None
        if not fresh:
            fresh.append(Variant(*self._made(Candidate(_variant_name(origin, recipes[0]), recipes[0])), recipes[0]))
        return fresh[0], tuple(recipes[1:])

    def retune(self, candidate: Built) -> list[Built]:
        """Return a candidate with weights rounded better and with other thresholds: as fast, but it loses less."""
        if not candidate.recipe.needs_calibration:
            return []
        rounded = self._ctx.samples is not None
        found = self.build(retuned(candidate.result.name, candidate.recipe, rounded=rounded))
        for other in found:
            other.family, other.rescued = f"{candidate.family}{_added(candidate, other)}", candidate.rescued
        return found

    def correct(self, candidate: Built, race: Race, seconds: float) -> Built | None:
        """Return a candidate with its biases corrected, or None: it has no layers for that, or it would take longer.

        Args:
            candidate: Statically quantized.
            race: Knows what is timed.
            seconds: That this may take: layers are corrected one after another, each with a session of its own.
        """
        wanted = corrected(candidate.result.name, candidate.recipe)
        if not candidate.recipe.needs_calibration or self._ctx.samples is None:
            return None
        layers = sum(map(len, self._variants(candidate, self._verifier).units()))
        begin = time.perf_counter()
        session = open_session(candidate.model, threads=0, optimize=False)
        opened = time.perf_counter()
        session.run(race.feed)
        once = time.perf_counter() - opened
        if layers * (opened - begin + once * wanted.recipe.steps[-1].settings["runs"]) > seconds:
            return None
        (found,) = self.build([wanted]) or (None,)
        if found is not None:
            found.family, found.rescued = f"{candidate.family}{_added(candidate, found)}", True
        return found

    def rescue(
        self,
        candidate: Built,
        acceptable: Callable[["ir.Model"], bool],
        noise: Verifier,
        race: Race,
        late: Callable[[float], bool],
    ) -> Built | None:
        """Return a variant of a candidate that is acceptable because its most harmful nodes stay float, or None.

        Args:
            candidate: One that was not acceptable.
            acceptable: Whether a model keeps the budget.
            noise: Compares outputs on samples that the final judgement does not use.
            race: Where models are timed.
            late: Whether a share of the time for optional steps is used up.
        """
        if candidate.rescued or not candidate.recipe.steps:
            return None
        search = partial(self._find_rescue, candidate, acceptable, noise, race, late)
        found = self._varied("rescue", candidate, search)
        if found is None:
            return None
        variant, others = found
        rescued = self._variant(candidate, variant, rescued=True)
        rescued.milder = tuple(Candidate(_variant_name(candidate, recipe), recipe) for recipe in others)
        return rescued

    def _find_rescue(
        self,
        candidate: Built,
        acceptable: Callable[["ir.Model"], bool],
        noise: Verifier,
        race: Race,
        late: Callable[[float], bool],
    ) -> tuple[Variant, tuple[Recipe, ...]] | None:
        timed = candidate.result.latency is not None and race.profiled  # else all nodes cost the same
        variants = self._variants(candidate, noise)
        threads = race.threads
        saved = measure_savings(variants.base, candidate.model, race.feed, threads=threads) if timed else None

        def cost(group: Switch) -> float:
            return saved.seconds(group.touched) if saved else 0.0

        report = partial(self._progress, f"find what harms {candidate.result.name}")
        hurry = partial(late, _SHARE_OF_ORDERING)
        kept: list[Variant] = []
        found = rescue(
            variants, acceptable, report, partial(late, 1.0), cost=cost, late_to_order=hurry, keep=kept.append
        )
        if found is None:
            return None
        return found[0], tuple(variant.recipe for variant in kept if variant is not found[0])

    def milder(self, candidate: Built) -> Built | None:
        """Return a variant of a rescued candidate that leaves more nodes float, and was acceptable too; or None."""
        (found,) = self.build([*candidate.milder[-1:]]) or (None,)
        if found is not None:
            found.family, found.rescued, found.milder = candidate.family, True, candidate.milder[:-1]
        return found

    def polish(self, candidate: Built, race: Race) -> Built | None:
        """Return a variant of a candidate that is faster because nodes that gain nothing stay float, or None."""
        if not candidate.recipe.steps or not race.profiled:
            return None
        self._progress(f"polish {candidate.result.name}", None)

        def search() -> tuple[Variant, tuple[Recipe, ...]] | None:
            found = polish(
                self._variants(candidate, self._verifier),
                float_times=node_times(self._cleaned, race.feed, threads=race.threads),
                integer_times=node_times(candidate.model, race.feed, threads=race.threads),
                size=size,
                late=self._late,
                race=lambda models: race.among(models, f"polish {candidate.result.name}"),
            )
            return None if found is None else (found[0], ())

        found = self._varied("polish", candidate, search)
        if found is None:
            return None
        polished = self._variant(candidate, found[0], rescued=candidate.rescued)
        polished.milder = candidate.milder
        return polished

    def attend(self, candidate: Built, race: Race) -> Built | None:
        """Return a variant of a candidate that is faster because attention was fused first, or None."""
        steps = candidate.recipe.steps
        if not steps or ATTENTION.recipe.steps[0] in steps or not self._has_attention:
            return None
        (found,) = self.build([attended(candidate.result.name, candidate.recipe)]) or (None,)
        if found is None or found.result.rejected is not None or not found.result.passes[0].modified:
            return None
        if race.why_not(found.model) is not None:
            return None
        stage = f"fuse attention in {candidate.result.name}"
        ratio = race.among({"plain": candidate.model, "fused": found.model}, stage).ratios["fused"]
        found.family, found.rescued = f"{candidate.family}, {ATTENTION.name}", candidate.rescued
        found.milder = candidate.milder
        # One operator in the place of ten: not proven slower is enough, where it also seems faster
        return found if ratio.ratio < 1 and ratio.high <= NO_SLOWER else None

    def _variants(self, candidate: Built, verifier: Verifier) -> Variants:
        front = self._fronts.of(candidate.recipe)
        return Variants(front.model, candidate.recipe, front.ctx, verifier, done=len(front.passes))

    @cached_property
    def _has_attention(self) -> bool:
        _, reports = run_recipe(self._cleaned, ATTENTION.recipe, self._ctx, self._verifier)
        return reports[0].modified

    def _variant(self, origin: Built, variant: Variant, *, rescued: bool) -> Built:
        described = _described(_variant_name(origin, variant.recipe), variant.model, variant.passes)
        return Built(described, variant.model, origin.family, variant.recipe, rescued)

    def _stage(self, candidate: str, name: str) -> None:
        self._progress(f"build {candidate}: {name}", None)


def taken(name: str, model: "ir.Model") -> Built:
    """Return a model that was made before as a candidate."""
    return Built(_described(name, model, ()), model, name)


def loss(candidate: Built) -> float:
    """Return what a candidate loses; without bound where that is not known."""
    return math.inf if candidate.result.quality is None else candidate.result.quality.loss


def _described(name: str, model: "ir.Model", reports: tuple[PassReport, ...]) -> CandidateResult:
    return CandidateResult(name, recipe_of(model), reports, size(model))


def _key(kind: str, recipe: Recipe) -> list[str]:
    return [kind, recipe.to_toml()]


def _variant_name(origin: Built, recipe: Recipe) -> str:
    return f"{origin.family}, {_float_nodes(recipe)} kept float"


def _added(origin: Built, variant: Built) -> str:
    return variant.result.name.removeprefix(origin.result.name)


def _float_nodes(recipe: Recipe) -> int:
    """Count the nodes that a recipe leaves out by name."""
    return len({name for step in recipe.steps for name in step.settings.get("exclude", ())})
