"""The front: the candidates of which none is better in size, latency and score at once, each with its recipe.

Whoever chooses among them may give up what the budget forbids: those outside it are kept too, and say what they miss.
"""

import math
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from onnxcomp.files import replacing
from onnxcomp.model import fingerprint, load, save
from onnxcomp.search import choose
from onnxcomp.search.build import Built
from onnxcomp.search.prove import Prover
from onnxcomp.search.race import NO_SLOWER, Race
from onnxcomp.search.result import FrontModel, Quality
from onnxcomp.search.work import Work

__all__ = ["explore", "non_dominated", "told_apart"]

_ORIGINAL = "original"
_SPARE = 1.1  # of a latency that is to be measured again


def explore(
    built: list[Built], prover: Prover, work: Work, race: Race, *, original_size: int, late: Callable[[], bool]
) -> tuple[FrontModel, ...]:
    """Judge every candidate, time those that nothing beats in all respects, and write them.

    Args:
        built: All candidates.
        prover: Judges them on the samples of the final verdict.
        work: Says where they are written.
        race: Times them.
        original_size: Bytes of the original, which stands on the front unless something beats it, and is not written.
        late: Whether to be content with what has been judged.

    Raises:
        OutputError: The folder can't be written.
    """
    assert work.pareto is not None
    judged: dict[str, Built] = {}
    found: dict[str, Quality] = {_ORIGINAL: prover.original}
    seen = set()
    for candidate in built:
        name = candidate.result.name
        if (late() and candidate.result.quality is None) or (key := fingerprint(candidate.model)) in seen:
            continue
        seen.add(key)
        if (quality := prover.final_quality(candidate)) is not None:
            judged[name], found[name] = candidate, quality

    def points() -> dict[str, tuple[float, ...]]:
        costs = {_ORIGINAL: (original_size, 1.0)} | {
            name: (c.result.size, 1.0 if c.result.latency is None else c.result.latency.ratio)
            for name, c in judged.items()
        }
        return {name: (*costs[name], found[name].loss) for name in costs}

    if work.timed:  # those that were timed apart from each other are timed together
        near = [name for name in non_dominated(points()) if name != _ORIGINAL]
        judged = {name: judged[name] for name in near}
        timed = race.rough({name: judged[name].model for name in near}).ratios if near else {}
        for name, ratio in timed.items():
            judged[name].result.latency = ratio
    final = points()
    kept = told_apart({name: final[name] for name in non_dominated(final)})
    names = [name for name in kept if name != _ORIGINAL]
    stems = _stems(names)
    work.pareto.mkdir(exist_ok=True)
    return tuple(
        _write(judged[name], found[name], prover, work, original_size=original_size, stem=work.pareto / stems[name])
        for name in names
    )


def non_dominated(points: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Name the points that no other one equals or beats in every respect, of equal ones the first; lower is better."""

    def beaten(name: str, index: int) -> bool:
        mine = points[name]
        return any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or i < index)
            for i, other in enumerate(points.values())
            if i != index
        )

    return [name for index, name in enumerate(points) if not beaten(name, index)]


def told_apart(points: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Leave out points that gain next to nothing: another loses no more, and is as small and as fast but for a tie.

    Args:
        points: Size, latency and loss of each; lower is better.
    """
    kept: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][2], points[name][:2])):
        size, latency, _ = points[name]
        small, fast = size * (1 + choose.SIZE_TIE), latency * (1 + choose.LATENCY_TIE)
        if not any(points[other][0] <= small and points[other][1] <= fast for other in kept):
            kept.append(name)
    return [name for name in points if name in kept]


def _write(
    candidate: Built, quality: Quality, prover: Prover, work: Work, *, original_size: int, stem: Path
) -> FrontModel:
    """Write a model as it is when it is loaded back, and its recipe."""
    result = candidate.result
    missed = [*choose.misses(result, original_size, work.budget), *prover.misses(quality)]
    options = _options(candidate, quality, prover, work, original_size)
    found = FrontModel(
        name=result.name,
        recipe=candidate.recipe.to_toml(),
        size=result.size,
        latency=result.latency,
        quality=quality,
        missed=tuple(miss.text for miss in missed),
        options=options,
        model_file=f"{stem.name}.onnx",
        recipe_file=f"{stem.name}.toml",
    )
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        path = Path(folder, "model.onnx")
        save(candidate.model, path)
        save(load(path), stem.with_name(found.model_file))
    about = [f"{result.name}: {result.size} bytes", *found.missed]
    if options:
        about.append(f"to have it delivered: --recipe {found.recipe_file} {options}")
    with replacing(stem.with_name(found.recipe_file)) as temporary:
        comment = "".join(f"# {line}\n" for line in about)
        temporary.write_text(f"{comment}\n{found.recipe}", encoding="utf-8")
    return found


def _options(candidate: Built, quality: Quality, prover: Prover, work: Work, original_size: int) -> str:
    """Return the options under which `optimize` delivers a model whose recipe it is given; mostly none."""
    result, budget, found = candidate.result, work.budget, []
    qualities = [(quality, prover.original)]
    qualities += [(result.quality, prover.searched)] if result.quality is not None else []
    drops = [before.score - q.score for q, before in qualities if q.score is not None and before.score is not None]
    if drops and max(drops) > budget.max_drop:
        found.append(f"--max-drop {math.ceil(max(drops) * 1000) / 1000:g}")
    agreement = min(q.agreement for q, _ in qualities)
    if agreement < budget.agreement_bound:
        found.append(f"--min-agreement {math.floor(agreement * 1000) / 1000:g}")
    sqnr = min(q.sqnr for q, _ in qualities)
    if any("SQNR" in miss.text for q, _ in qualities for miss in prover.misses(q)) and math.isfinite(sqnr):
        found.append(f"--min-sqnr {math.floor(sqnr):g}")
    if result.latency is not None and result.latency.high > (budget.max_latency_ratio or NO_SLOWER):
        found.append(f"--max-latency-ratio {math.ceil(result.latency.high * _SPARE * 100) / 100:g}")
    bounds = choose.objection(result, original_size, work.goal, budget, fallback=not candidate.recipe.steps)
    if bounds is not None and result.size < original_size and work.goal != "size":
        found.append("--goal size")
    if budget.max_size is not None and result.size > budget.max_size:
        found.append(f"--max-size {result.size}")
    return " ".join(found)


def _stems(names: list[str]) -> dict[str, str]:
    """Return names of files, each once."""
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
        taken = sum(1 for other in found.values() if other == stem or other.startswith(f"{stem}-again"))
        found[name] = stem if not taken else f"{stem}-again{taken}"
    return found
