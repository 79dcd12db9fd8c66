"""The page of verbs that make one model in a named way: `quantize`, `prune`, `share`."""

from collections.abc import Iterator

from onnxcomp.report.figures import bytes_text
from onnxcomp.report.html.anatomy import BEFORE_AND_AFTER, anatomy_sections
from onnxcomp.report.html.bars import Pair, pairs
from onnxcomp.report.html.common import (
    Found,
    circumstances,
    latency_tile,
    left_alone,
    number,
    quality_tiles,
    reproduce,
    size_tile,
    work_done,
)
from onnxcomp.report.html.page import Cell, Section, Tile, figure, page, table
from onnxcomp.report.html.scale import percent

__all__ = ["made_page"]

_MOST_DRAWN = 40
_ASKED = ("mode", "granularity", "recovery", "target", "calibration", "evaluation", "metric", "gates", "settings",
          "threads", "batch", "seed")  # fmt: skip


def made_page(found: Found, command: str | None) -> str:
    """Return the page.

    Args:
        found: The report, as its JSON has it.
        command: The command line that made it; None: not known.
    """
    kind, gates = found["kind"], found["gates"]
    passes = [("cleanup", done) for done in found["cleanup"]] + [(kind, done) for done in found["passes"]]
    bounds = any(bound is not None for bound in gates.values())
    return page(
        kind=kind,
        title=found["model"],
        verdict=_verdict(found),
        passed=not found["missed"] if bounds or found["missed"] else None,
        tiles=[*_tiles(found)],
        sections=[
            Section("Groups", tuple(_groups(found))),
            Section("Bits", tuple(_bits(found))),
            Section("Sizes", tuple(_sizes(found))),
            *anatomy_sections(
                found.get("anatomy"),
                (found["original_size"], found["size"]),
                found.get("timings") or (),
                delivered="result",
            ),
            Section("What was done", tuple(work_done(passes))),
            Section("What was left alone", tuple(left_alone(skip for _, done in passes for skip in done["skipped"]))),
            reproduce(found, command),
            circumstances(found, {name: found[name] for name in _ASKED if name in found}),
        ],
        created=found["created"],
    )


def _verdict(found: Found) -> str:
    if found["missed"]:
        return f"A bound is missed: {'; '.join(found['missed'])}."
    ratio = found["size"] / found["original_size"]
    said = [f"{1 / ratio:.2f}x smaller" if ratio < 1 else f"{ratio:.2f}x larger"]
    if (latency := found.get("latency")) is not None:
        share = latency["ratio"]
        said.append(f"{1 / share:.2f}x faster" if share < 1 else f"{share:.2f}x slower")
    how = found.get("mode") or found.get("granularity")
    return f"{found['kind'].capitalize()}{f' ({how})' if how else ''}: {' and '.join(said)}."


def _tiles(found: Found) -> Iterator[Tile]:
    yield size_tile(found["original_size"], found["size"])
    if "latency" in found:
        yield latency_tile(found["original_seconds"], found["seconds_per_run"], found["latency"], None)
    if found.get("macs") and found.get("pruned_macs") is not None:
        before, after = found["macs"], found["pruned_macs"]
        said = f"{100 * after / before:.0f} % are left"
        told = "multiply-accumulate operations of a run"
        yield Tile("Operations", f"{before / 1e6:.1f} M", f"{after / 1e6:.1f} M", said, told, after / before)
    gates = found["gates"]
    yield from quality_tiles(
        found["original_quality"],
        found["quality"],
        found["metric"],
        allowed=gates["max_drop"],
        least=gates["min_agreement"],
    )


def _groups(found: Found) -> Iterator[str]:
    groups = found.get("groups") or []
    if not groups:
        return
    drawn = sorted(groups, key=lambda one: one["kept"] - one["channels"])[:_MOST_DRAWN]
    rows = [
        Pair(one["name"], one["channels"], one["kept"], f"{one['name']}: {one['kept']} of {one['channels']} are left")
        for one in groups
        if one in drawn
    ]
    listed: list[list[Cell | str]] = [
        [one["name"], one["kind"], number(one["channels"], "d"), number(one["kept"], "d")] for one in groups
    ]
    yield figure(
        "What is left of each group",
        "Channels, heads and units that may go one by one; groups that lost nothing are in the table."
        if len(drawn) < len(groups)
        else "Channels, heads and units that may go one by one.",
        pairs(rows, label="Groups before and after", unit="channels", written="{:g}".format),
        BEFORE_AND_AFTER,
        table("Groups of channels", ("group", "of", "before", "after"), listed),
        kind="wide",
    )


def _sizes(found: Found) -> Iterator[str]:
    if forms := found.get("sizes"):
        heads = ("form", "bytes", "smaller", "bits/weight", "over entropy", "load, ms", "score", "agreement")
        rows: list[list[Cell | str]] = [
            [one["name"], number(one["size"], ",d"), number(forms[0]["size"] / one["size"], ".2f"),
             number(one["bits"], ".2f"), number(one["over_entropy"], "+.1%"),
             number(None if one["load"] is None else 1e3 * one["load"], ".2f"), number(one["score"]),
             number(one["agreement"])]
            for one in forms
        ]  # fmt: skip
        yield table("What the file takes in several forms, and how long each takes to load", heads, rows)


def _bits(found: Found) -> Iterator[str]:
    if found.get("tried"):
        rows: list[list[Cell | str]] = [
            [number(one["mean"], ".2f"), Cell(bytes_text(one["size"]), one["size"]), number(one["quality"]["score"]),
             number(one["quality"]["agreement"]), one["objection"] or "inside the bounds"]
            for one in found["tried"]
        ]  # fmt: skip
        yield table("Allocations that were judged", ("bits per weight", "size", "score", "agreement", "bounds"), rows)
    if found.get("pruned"):
        zeros: list[list[Cell | str]] = [
            [Cell(percent(one["sparsity"]), one["sparsity"]), number(one["quality"]["score"]),
             number(one["quality"]["agreement"]), one["objection"] or "inside half of the bounds"]
            for one in found["pruned"]
        ]  # fmt: skip
        yield table("Shares of zeros that were judged before", ("zeros", "score", "agreement", "bounds"), zeros)
    if bits := found.get("bits"):
        drawn = [Pair(name, None, each, f"{name}: {each:g} bits") for name, each in [*bits.items()][:_MOST_DRAWN]]
        listed: list[list[Cell | str]] = [[name, number(each, "g")] for name, each in bits.items()]
        yield figure(
            "Bits of the weights of each node",
            "In the order of the graph: where few bits do harm, there are more."
            + (f" The first {_MOST_DRAWN} of {len(bits)} are drawn." if len(bits) > _MOST_DRAWN else ""),
            pairs(drawn, label="Bits per weight of each node", unit="bits per weight", written="{:g}".format),
            table("Bits of the weights of each node", ("node", "bits"), listed),
            kind="wide",
        )
