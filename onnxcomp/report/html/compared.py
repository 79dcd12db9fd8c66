"""The pages of `compare`, `check` and `bench`: models side by side, and against bounds."""

from collections.abc import Iterator, Sequence

from onnxcomp.report.figures import bytes_text, counted, seconds_text
from onnxcomp.report.html.anatomy import latency_figure
from onnxcomp.report.html.bars import Pair, pairs
from onnxcomp.report.html.common import Found, circumstances, decibels, latency_tile, number, reproduce, size_tile
from onnxcomp.report.html.markup import Markup
from onnxcomp.report.html.page import Cell, Section, Tile, bullets, figure, page, table
from onnxcomp.report.html.robustness import robustness_parts
from onnxcomp.report.html.rows import Bound, Column, Interval, Measured, bounds, intervals, measures
from onnxcomp.report.html.scale import time_unit
from onnxcomp.report.html.sweeps import node_parts, stream_parts, sweep_parts

__all__ = ["bench_page", "check_page", "compare_page"]

_MOST_OPERATORS = 15
_MOST_LAYERS = 48
_EXACT = 80.0  # dB; rounding of float32 alone makes less noise than that


def compare_page(found: Found, command: str | None) -> str:
    """Return the page of `compare`; see `made_page`."""
    score, gates = found["score"], found["gates"]
    asked = {name: found[name] for name in ("evaluation", "runs", "seed", "gates", "by_position")}
    return page(
        kind="compare",
        title=f"{found['candidate']} against {found['reference']}",
        verdict=f"{100 * found['agreement']:.2f} % of the answers are the same. {_change_of_score(score)}".strip(),
        passed=not found["missed"] if any(bound is not None for bound in gates.values()) else None,
        tiles=[
            size_tile(found["reference_size"], found["candidate_size"]),
            *_score_tile(score),
            _agreement_tile(found),
        ],
        sections=[
            Section("Missed", (bullets(found["missed"]),) if found["missed"] else ()),
            Section("Outputs", tuple(_outputs(found["outputs"]))),
            Section("Score", tuple(_score(score))),
            Section("Layers", tuple(_layers(found["layers"]))),
            Section("Under disturbance", tuple(robustness_parts(found["robustness"], score))),
            reproduce(found, command),
            circumstances(found, asked),
        ],
        created=found["created"],
    )


def check_page(found: Found, command: str | None) -> str:
    """Return the page of `check`; see `made_page`."""
    results = found["results"]
    passed = sum(one["status"] == "passed" for one in results)
    drawn = [
        Bound(one["name"], one["value"], one["bound"], one["low"], one["high"],
              f"{_figure(one, 'value')}, bound {_figure(one, 'bound')}: {one['status']}", one["status"],
              f"{one['name']}: {one['status']}. {one['reason']}")
        for one in results if one["value"] is not None and one["bound"] is not None
    ]  # fmt: skip
    rows: list[list[Cell | str]] = [
        [one["name"], one["status"], _figure(one, "bound"), _figure(one, "value"), _span(one, one["unit"]),
         number(one["samples"], "d"), one["reason"]]
        for one in results
    ]  # fmt: skip
    heads = ("gate", "result", "bound", "value", "95 % interval", "samples", "reason")
    listed = table("All gates", heads, rows)
    gates: Markup | str = ""
    if drawn:
        said = "Bars are values, lines across them bounds; each row has a scale of its own."
        label = "Values of the gates and their bounds"
        gates = figure("Values and bounds", said, bounds(drawn, label=label), kind="wide")
    tiles = [size_tile(found["baseline_size"], found["size"])] if found["baseline_size"] else []
    return page(
        kind="check",
        title=found["model"],
        verdict=f"{passed} of {counted(len(results), 'gate')} passed{_others(results)}.",
        passed=not found["missed"],
        tiles=[*tiles, *_score_tile(found["score"])],
        sections=[
            Section("Gates", tuple(part for part in (gates, listed) if part)),
            Section("Score", tuple(_score(found["score"]))),
            reproduce(found, command),
            circumstances(
                found, {"evaluation": found["evaluation"], "baseline": found["baseline"], **found["settings"]}
            ),
        ],
        created=found["created"],
    )


def _others(results: Sequence[Found]) -> str:
    """Name the gates that are not passed."""
    return "".join(f"; {one['name']} is {one['status']}" for one in results if one["status"] != "passed")


def bench_page(found: Found, command: str | None) -> str:
    """Return the page of `bench`; see `made_page`."""
    models = found["models"]
    first, last = models[0], models[-1]
    tiles = [Tile("Latency", "", seconds_text(first["latency"]["median"]), "", "median of single runs")]
    if len(models) > 1:
        before, after = (one["latency"]["undisturbed"] for one in (first, last))
        tiles = [size_tile(first["size"], last["size"]), latency_tile(before, after, last["ratio"], None)]
    turns = "in turns, " if len(models) > 1 else ""
    verdict = (
        f"{len(models)} model{'s' * (len(models) > 1)}, {turns}{found['rounds']} rounds in {found['seconds']:.0f} s."
    )
    if not found["settled"] and len(models) > 1:
        verdict += " The intervals are wider than was asked for: the machine is busy, or there was too little time."
    return page(
        kind="bench",
        title=", ".join(one["model"] for one in models),
        verdict=verdict,
        passed=None,
        tiles=tiles,
        sections=[
            Section("Speed", tuple(_speed(models))),
            Section("Sizes", tuple(sweep_parts(found.get("sweep") or ()))),
            Section("Streams", tuple(stream_parts(found.get("streams")))),
            Section("Operators", (*_operators(models), *(part for one in models for part in node_parts(one)))),
            reproduce(found, command),
            circumstances(found, found["settings"]),
        ],
        created=found["created"],
    )


def _agreement_tile(found: Found) -> Tile:
    sqnr = "" if found["sqnr"] is None else f"SQNR of the worst output {found['sqnr']:.1f} dB"
    return Tile("Answers that are the same", "", f"{100 * found['agreement']:.2f} %", "", sqnr)


def _score_tile(score: Found | None) -> list[Tile]:
    if score is None:
        return []
    interval = "" if score["low"] is None else f"95 % interval {score['low']:+.4f} to {score['high']:+.4f}; "
    note = f"{interval}{counted(score['samples'], 'sample')}"
    figures = f"{score['reference']:.4f}", f"{score['candidate']:.4f}"
    return [Tile(score["metric"], *figures, f"{score['difference']:+.4f}", note)]


def _change_of_score(score: Found | None) -> str:
    if score is None or score["low"] is None or score["high"] is None:
        return ""
    if score["low"] > 0 or score["high"] < 0:
        return (
            f"The {score['metric']} is {'better' if score['low'] > 0 else 'worse'} by {abs(score['difference']):.4f}."
        )
    return f"No difference of {score['metric']} is proven: its interval holds 0."


def _outputs(outputs: Found) -> Iterator[str]:
    rows: list[list[Cell | str]] = [
        [name, decibels(one["sqnr"]), number(one["cosine"], ".6f"), number(one["max_error"], ".4g"),
         number(one["agreement"]), number(one["rows"], "d")]
        for name, one in outputs.items()
    ]  # fmt: skip
    yield table("How close each output is", ("output", "SQNR", "cosine", "max error", "agreement", "answers"), rows)


def _score(score: Found | None) -> Iterator[str]:
    if score is None or score["low"] is None or score["high"] is None:
        return
    tip = f"{score['difference']:+.4f}, interval {score['low']:+.4f} to {score['high']:+.4f}"
    row = Interval("candidate minus reference", score["difference"], score["low"], score["high"], tip)
    listed: list[list[Cell | str]] = [
        [score["metric"], *(number(score[k]) for k in ("reference", "candidate", "difference", "low", "high"))]
    ]
    heads = ("score", "reference", "candidate", "difference", "from", "to")
    yield figure(
        f"How {score['metric']} changed",
        f"With its 95 % interval ({score['method']}); where that holds 0, no difference is proven.",
        intervals([row], against=0.0, label="Difference of the scores", across=f"difference of {score['metric']}"),
        table("The score", heads, listed),
        kind="wide",
    )


def _layers(layers: Sequence[Found]) -> Iterator[str]:
    if not layers:
        return
    lost = {one["tensor"]: _lost(one) for one in layers}
    worst = {one["tensor"] for one in sorted(layers, key=lambda one: -lost[one["tensor"]])[:_MOST_LAYERS]}
    drawn = [one for one in layers if one["tensor"] in worst]
    rows = [
        Measured(
            one["node"] or one["tensor"],
            (one["sqnr"], lost[one["tensor"]]),
            f"{one['node']} ({one['op_type']}): SQNR {decibels(one['sqnr']).shown}, "
            f"{lost[one['tensor']]:.1f} dB lost here",
        )
        for one in drawn
    ]
    said = "Inner tensors of the same name in both models, in the order of the graph."
    if len(drawn) < len(layers):
        said += f" The {len(drawn)} that lose most are drawn."
    listed: list[list[Cell | str]] = [
        [one["node"], one["op_type"], one["tensor"], decibels(one["sqnr"]), decibels(one["before"]),
         number(lost[one["tensor"]], ".1f")]
        for one in layers
    ]  # fmt: skip
    columns = (Column("SQNR, dB (higher is closer)", "dot"), Column("lost here, dB", "bar"))
    yield figure(
        "Where the error starts, and where it grows",
        f"{said} A layer without a dot gives the same in both.",
        measures(rows, columns, label="Layers: SQNR, and what each loses against what it reads"),
        table("Layers", ("layer", "operator", "makes", "SQNR", "of what it reads", "lost, dB"), listed),
        kind="wide",
    )


def _lost(layer: Found) -> float:
    """Return by how much a layer is noisier than what it reads, dB; what is as good as exact counts as such."""
    before, after = (_EXACT if layer[k] is None else min(layer[k], _EXACT) for k in ("before", "sqnr"))
    return float(max(0.0, before - after))


def _speed(models: Sequence[Found]) -> Iterator[str]:
    rows = [
        Interval(one["model"], one["ratio"]["ratio"], one["ratio"]["low"], one["ratio"]["high"],
                 f"{one['model']}: {one['ratio']['ratio']:.3f} of the first model's time")
        for one in models if one["ratio"] is not None
    ]  # fmt: skip
    if rows:
        yield figure(
            "Time against the first model",
            "With 95 % intervals, paired by turn: below 1 is faster.",
            intervals(rows, against=1.0, label="Ratios of time", across="time over the first model's"),
            kind="wide",
        )
    listed: list[list[Cell | str]] = [
        [one["model"], Cell(bytes_text(one["size"]), one["size"]),
         *(Cell(seconds_text(one["latency"][k]), one["latency"][k]) for k in ("median", "p90", "p99")),
         number(one["throughput"], ".1f"), Cell(seconds_text(one["load_seconds"]), one["load_seconds"]),
         Cell(bytes_text(one["memory"]["peak"]), one["memory"]["peak"]) if one["memory"] else Cell("\N{EN DASH}"),
         number(one["ratio"] and one["ratio"]["ratio"], ".3f")]
        for one in models
    ]  # fmt: skip
    heads = ("model", "size", "median", "90 %", "99 %", "rows/s", "load", "memory", "time / first")
    if drawn := latency_figure([(one["model"], one["latency"]) for one in models]):
        yield drawn
    yield table("All models", heads, listed)


def _operators(models: Sequence[Found]) -> Iterator[str]:
    for one in models:
        operators = one["operators"]
        if not operators:
            continue
        factor, unit = time_unit(max(found["seconds"] for found in operators))
        rows = [
            Pair(found["op_type"], None, found["seconds"] * factor,
                 f"{found['op_type']}: {found['nodes']} nodes, {found['seconds'] * factor:.3g} {unit}")
            for found in operators[:_MOST_OPERATORS]
        ]  # fmt: skip
        listed: list[list[Cell | str]] = [
            [found["op_type"], number(found["nodes"], "d"), number(found["seconds"] * factor, ".4g")]
            for found in operators
        ]
        yield figure(
            one["model"],
            "Time by type of operator, from onnxruntime's profile.",
            pairs(rows, label=f"Time by operator of {one['model']}", unit=unit, written="{:.3g}".format),
            table("Time by operator", ("operator", "nodes", unit), listed),
            kind="wide",
        )


def _figure(result: Found, which: str) -> str:
    value = result[which]
    if value is None:
        return "\N{EN DASH}"
    return _written(value, result["unit"])


def _written(value: float, unit: str) -> str:
    return {"bytes": bytes_text(int(value)), "dB": f"{value:.1f} dB", "ratio": f"{value:.3f}"}.get(unit, f"{value:.4f}")


def _span(result: Found, unit: str) -> str:
    if result["low"] is None or result["high"] is None:
        return "\N{EN DASH}"
    return f"{_written(result['low'], unit)} to {_written(result['high'], unit)}"
