"""The page of `optimize`: what changed, all candidates in the plane, what the delivered model is made of."""

from collections.abc import Iterator, Sequence

from onnxcomp.report.figures import counted
from onnxcomp.report.html.anatomy import anatomy_sections
from onnxcomp.report.html.charts import Point, scatter
from onnxcomp.report.html.common import (
    Found,
    circumstances,
    key,
    latency_tile,
    left_alone,
    number,
    quality_tiles,
    reproduce,
    size_tile,
    work_done,
)
from onnxcomp.report.html.markup import Markup, tag
from onnxcomp.report.html.page import Cell, Section, figure, page, paragraph, table
from onnxcomp.report.html.robustness import robustness_parts

__all__ = ["optimize_page"]

_MOST_LABELS = 40


def optimize_page(found: Found, command: str | None) -> str:
    """Return the page.

    Args:
        found: The report, as its JSON has it.
        command: The command line that made it; None: not known.
    """
    settings, winner = found["settings"], found["winner"]
    delivered = winner or "the original"
    sizes = found["original_size"], found["size"]
    chosen = [one for one in found["candidates"] if one["name"] == winner]
    passes = [("cleanup", done) for done in found["cleanup"]]
    passes += [(one["name"], done) for one in chosen for done in one["passes"]]
    return page(
        kind="optimize",
        title=settings["model"],
        verdict=_verdict(found),
        passed=False if found["missed"] is not None else None,
        tiles=[
            size_tile(*sizes),
            latency_tile(found["original_seconds"], found["seconds_per_run"], found["latency"], settings["unmeasured"]),
            *quality_tiles(
                found["original_quality"],
                found["quality"],
                settings["metric"],
                allowed=settings["budget"]["max_drop"],
                least=_least_agreement(settings["budget"]),
                note=_evidence(found["evidence"]),
            ),
        ],
        sections=[
            Section("Candidates", tuple(_candidates(found))),
            *anatomy_sections(found["anatomy"], sizes, found["timings"], delivered=delivered),
            Section("Under disturbance", tuple(_robustness(found))),
            Section("What was done", tuple(work_done(passes))),
            Section("What was left alone", tuple(left_alone(skip for _, done in passes for skip in done["skipped"]))),
            reproduce(found, command),
            circumstances(found, settings),
        ],
        created=found["created"],
    )


def _robustness(found: Found) -> Iterator[str]:
    before, after = (found[which]["score"] for which in ("original_quality", "quality"))
    known = before is not None and after is not None
    score = {"metric": found["settings"]["metric"], "reference": before, "candidate": after} if known else None
    yield from robustness_parts(found.get("robustness") or (), score, ("original", "delivered"))


def _least_agreement(budget: Found) -> float:
    asked = budget["min_agreement"]
    return float(round(1 - 3 * budget["max_drop"], 6) if asked is None else asked)


def _verdict(found: Found) -> str:
    if found["missed"] is not None:
        return f"No model is written: {found['missed']}."
    if found["winner"] is None:
        return "Nothing better was proven inside the budget: the original is delivered unchanged."
    size, latency = found["size"] / found["original_size"], found["latency"]
    said = [f"{1 / size:.2f}x smaller" if size < 1 else f"{size:.2f}x larger"]
    if latency is not None:
        ratio = latency["ratio"]
        said.append(f"{1 / ratio:.2f}x faster" if ratio < 1 else f"{ratio:.2f}x slower")
    what = "The cleaned-up model" if found["winner"] == "cleanup" else f"The candidate “{found['winner']}”"
    return f"{what} is delivered: {' and '.join(said)}, and inside the budget."


def _evidence(evidence: Found | None) -> str:
    if evidence is None:
        return ""
    seen = "not seen by the search" if evidence["held_out"] else "seen by the search too"
    if evidence["low"] is None or evidence["high"] is None:
        return f"{counted(evidence['samples'], 'sample')}, {seen}"
    interval = f"95 % interval of the change {evidence['low']:+.4f} to {evidence['high']:+.4f}"
    return f"{interval}; {counted(evidence['samples'], 'sample')}, {seen}"


def _candidates(found: Found) -> Iterator[str]:
    candidates = found["candidates"]
    points = [_Candidate(index, one, found) for index, one in enumerate(candidates, 1)]
    if not points:
        return
    yield paragraph(
        f"Built: {counted(len(points), 'candidate')}. Each is a number here, and a row of the table below, which "
        "says what became of it. Figures are shares of the original's; the original is the square at 1."
    )
    drawn = [*_planes(found, points)]
    yield tag("div", *drawn, class_="columns")
    if drawn:
        yield key(
            ("rect", "before", "the original"),
            ("circle", "after", "delivered"),
            ("circle", "ranked", "not rejected, ranked lower"),
            ("circle", "rejected", "rejected: point at it for the reason"),
        )
    heads = ("#", "candidate", "size", "latency", "95 % interval", "score", "agreement", "SQNR", "what became of it")
    yield table("All candidates", heads, [one.row() for one in points], keys=[one.key for one in points])
    if found["front"]:
        listed: list[list[Cell | str]] = [
            [one["name"], number(one["size"] / found["original_size"], ".3f"),
             number(one["latency"] and one["latency"]["ratio"], ".3f"), number(one["quality"]["score"]),
             number(one["quality"]["agreement"]), "; ".join(one["missed"]) or "inside the budget", one["model_file"]]
            for one in found["front"]
        ]  # fmt: skip
        columns = ("front", "size", "latency", "score", "agreement", "budget", "file")
        yield table("The front: nothing beats these in size, latency and score at once", columns, listed)


class _Candidate:
    """One candidate with its number, as a point and as a row."""

    def __init__(self, index: int, one: Found, found: Found) -> None:
        self.index, self.one = index, one
        self.key = f"c{index}"
        self.size = one["size"] / found["original_size"]
        self.latency = one["latency"]["ratio"] if one["latency"] else None
        delivered = one["name"] == found["winner"]
        self.fate = "delivered" if delivered else one["rejected"] or "ranked lower"
        self.kind = "after" if delivered else "rejected" if one["rejected"] else "ranked"
        self.quality = one["quality"]
        reference = found["searched_quality"]["score"]
        self.lost = None
        if self.quality is not None:
            scored = self.quality["score"] is not None and reference is not None
            self.lost = reference - self.quality["score"] if scored else 1 - self.quality["agreement"]

    def point(self, x: float, span: tuple[float, float] | None = None) -> Point:
        return Point(self.key, str(self.index), x, self.size, span, self.kind, self._tip())

    def span(self) -> tuple[float, float] | None:
        latency = self.one["latency"]
        return (latency["low"], latency["high"]) if latency and latency["high"] is not None else None

    def row(self) -> list[Cell | str]:
        quality, span = self.quality or {"score": None, "agreement": None, "sqnr": None}, self.span()
        return [
            Cell(str(self.index), self.index),
            self.one["name"],
            number(self.size, ".3f"),
            number(self.latency, ".3f"),
            Cell(f"{span[0]:.3f} to {span[1]:.3f}", span[0]) if span else Cell("\N{EN DASH}"),
            number(quality["score"]),
            number(quality["agreement"]),
            Cell("\N{EN DASH}") if quality["sqnr"] is None else Cell(f"{quality['sqnr']:.1f} dB", quality["sqnr"]),
            self.fate,
        ]

    def _tip(self) -> str:
        said = [f"{self.index}: {self.one['name']}", f"size {self.size:.3f}"]
        said += [f"latency {self.latency:.3f}"] if self.latency is not None else []
        if self.quality is not None:
            score, agreement = self.quality["score"], self.quality["agreement"]
            said += [f"score {score:.4f}"] if score is not None else []
            said.append(f"agreement {agreement:.4f}")
        return f"{', '.join(said)}. {self.fate[:1].upper()}{self.fate[1:]}."


def _planes(found: Found, points: Sequence[_Candidate]) -> Iterator[Markup]:
    """Yield the candidates by time and size, and by what they lose and size."""
    labels = len(points) <= _MOST_LABELS
    original = Point("c0", "original" if labels else "", 1.0, 1.0, None, "before", "The original: size 1, latency 1.")
    timed = [one.point(one.latency, one.span()) for one in points if one.latency is not None]
    if timed:
        yield figure(
            "Size and latency",
            "The lines through the points are 95 % intervals.",
            scatter(
                [original, *timed],
                label="Candidates by latency and size",
                across="latency, share of the original's time",
                up="size, share of the original's",
            ),
        )
    judged = [one.point(one.lost) for one in points if one.lost is not None]
    if judged:
        metric = found["settings"]["metric"] if found["searched_quality"]["score"] is not None else None
        budget = found["settings"]["budget"]
        bound = budget["max_drop"] if metric else 1 - _least_agreement(budget)
        here = Point("c0", "original", 0.0, 1.0, None, "before", "The original: size 1, nothing lost.")
        yield figure(
            "Size and what is lost" if not metric else f"Size and loss of {metric}",
            f"Judged: {len(judged)} of {len(points)}, best first, until one keeps the budget.",
            scatter(
                [here, *judged],
                label="Candidates by loss and size",
                across=f"{metric} lost" if metric else "share of answers that changed",
                up="size, share of the original's",
                bound=(bound, "allowed"),
            ),
        )
