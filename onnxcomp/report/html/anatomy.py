"""Sections on what a model is made of, before and after: layers, bytes, time, ranges of activations."""

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxcomp.report.figures import bytes_text, counted
from onnxcomp.report.html.bars import Pair, Stack, dtype_kind, histogram, layer_map, pairs, short_dtype, stacks
from onnxcomp.report.html.charts import run_dots, shortened
from onnxcomp.report.html.common import Found, decibels, key, number
from onnxcomp.report.html.markup import Markup, tag
from onnxcomp.report.html.page import Cell, Section, figure, paragraph, table
from onnxcomp.report.html.scale import percent, time_unit

__all__ = ["BEFORE_AND_AFTER", "anatomy_sections", "latency_figure", "storage_figure"]

_MOST_LAYERS = 48  # that are drawn
_MOST_HISTOGRAMS = 24
_MOST_OPERATORS = 12
BEFORE_AND_AFTER = key(("rect", "before", "before"), ("rect", "after", "after"))
_REWRITTEN = (("QLinear", ""), ("Fused", ""), ("DynamicQuantize", ""), ("Dynamic", ""), ("Integer", ""), ("Nhwc", ""))


def anatomy_sections(
    anatomy: Found | None, sizes: tuple[int, int], timings: Sequence[Found], *, delivered: str
) -> Iterator[Section]:
    """Yield sections on layers, bytes, time and calibration, as far as they are known.

    Args:
        anatomy: As the report has it; None: there is none.
        sizes: Bytes of both files.
        timings: Of both models; may be empty.
        delivered: Name of the model after.
    """
    if anatomy is not None:
        yield Section("Layers", tuple(_layers(anatomy["layers"])))
        yield Section("Bytes", (storage_figure(anatomy["storage"], sizes),) if anatomy["storage"] else ())
    time = [latency_figure([(t["name"] if t["name"] == "original" else delivered, t) for t in timings])]
    time += [_operators(anatomy["operators"])] if anatomy is not None and anatomy["operators"] else []
    yield Section("Time", tuple(part for part in time if part))
    if anatomy is not None:
        yield Section("Calibration", tuple(_activations(anatomy["activations"])))


def _layers(layers: Sequence[Found]) -> Iterator[str]:
    if not layers:
        return
    changed = sum(one["dtype_before"] != one["dtype_after"] for one in layers)
    largest = sorted(layers, key=lambda one: -max(one["bytes_before"], one["bytes_after"]))[:_MOST_LAYERS]
    drawn = [one for one in layers if one in largest]
    said = f"Another data type than before: {changed} of {counted(len(layers), 'node')} with weights."
    if len(drawn) < len(layers):
        said += f" The {len(drawn)} largest are drawn, in the order of the graph; the table has them all."
    yield paragraph(said)
    longest = max((one[k] or 0.0 for one in layers for k in ("seconds_before", "seconds_after")), default=0.0)
    rows: list[list[Cell | str]] = [
        [
            one["name"],
            one["op_type"],
            short_dtype(one["dtype_before"]),
            short_dtype(one["dtype_after"]),
            _bytes(one["bytes_before"]),
            _bytes(one["bytes_after"]),
            _seconds(one["seconds_before"]),
            _seconds(one["seconds_after"]),
            decibels(one["sqnr"]),
        ]
        for one in layers
    ]
    heads = ("layer", "operator", "weights before", "after", "bytes before", "after", "time before", "after", "SQNR")
    yield figure(
        "Each layer, before and after",
        "The SQNR compares what a layer gives with what it gave before, in one run: where it falls, answers drift. "
        "A layer without a dot gives the same as before, or can't be compared.",
        layer_map(drawn, label="Layers: data type, bytes, time and SQNR before and after", unit=time_unit(longest)),
        table("Layers in the order of the graph", heads, rows),
        kind="wide",
    )
    yield BEFORE_AND_AFTER


def storage_figure(storage: Sequence[Found], sizes: tuple[int, int]) -> Markup:
    """Return what both files are made of, by data type, with the table by operator."""
    rows = []
    for name, which, total in (("before", "before", sizes[0]), ("after", "after", sizes[1])):
        found: Counter[str] = Counter()
        for one in storage:
            found[one["dtype"]] += one[which]
        parts = [(short_dtype(dtype), dtype_kind(dtype), float(count)) for dtype, count in found.most_common() if count]
        rest = total - sum(found.values())
        parts += [("graph", "w64", float(rest))] if rest > 0 else []
        rows.append(Stack(name, tuple(parts)))
    listed: list[list[Cell | str]] = [
        [one["op_type"], short_dtype(one["dtype"]), _bytes(one["before"]), _bytes(one["after"])] for one in storage
    ]
    return figure(
        "What the files hold, by data type",
        "Constants count for the nodes that read them; graph is all that is no constant.",
        stacks(rows, label="Bytes of the files by data type, before and after"),
        table("Bytes of constants by operator and data type", ("read by", "data type", "before", "after"), listed),
        kind="wide",
    )


def latency_figure(timings: Sequence[tuple[str, Found]]) -> Markup:
    """Return how the times of single runs are distributed; nothing where that is not known."""
    known = [(name, found) for name, found in timings if found["quantiles"]]
    if not known:
        return Markup("")
    rows = [(name, "before" if index == 0 and len(known) > 1 else "after", found["quantiles"])
            for index, (name, found) in enumerate(known)]  # fmt: skip
    listed: list[list[Cell | str]] = [
        [
            name,
            *(_seconds(found[which]) for which in ("undisturbed", "median", "p90", "p99")),
            number(found["runs"], "d"),
        ]
        for name, found in known
    ]
    heads = ("model", "undisturbed", "median", "90 %", "99 %", "runs")
    return figure(
        "Latency of single runs",
        "Each dot is a twentieth of the runs: further left is faster, a tall stack means steady times.",
        run_dots(rows, label="Times of single runs, a dot for each twentieth"),
        table("Latency of single runs", heads, listed),
        kind="wide",
    )


def _operators(operators: Sequence[Found]) -> Markup:
    sums: dict[str, list[float]] = {}
    for one in operators:
        total = sums.setdefault(_family(one["op_type"]), [0.0, 0.0, 0, 0])
        for index, which in enumerate(("seconds_before", "seconds_after", "nodes_before", "nodes_after")):
            total[index] += one[which]
    ordered = sorted(sums.items(), key=lambda one: -max(one[1][:2]))
    factor, unit = time_unit(max(max(total[:2]) for total in sums.values()))
    rows = [
        Pair(name, before * factor if nodes else None, after * factor if now else None,
             f"{name}: {before * factor:.3g} to {after * factor:.3g} {unit}, {nodes:g} to {now:g} nodes")
        for name, (before, after, nodes, now) in ordered[:_MOST_OPERATORS]
    ]  # fmt: skip
    listed: list[list[Cell | str]] = [
        [one["op_type"], *(number(one[w], "d") for w in ("nodes_before", "nodes_after")),
         *(_seconds(one[w]) for w in ("seconds_before", "seconds_after"))]
        for one in operators
    ]  # fmt: skip
    heads = ("operator", "nodes before", "after", "time before", "after")
    drawn = pairs(
        rows,
        label="Time by operator, before and after",
        unit=f"{unit} per run",
        written=lambda value: _seconds(value / factor).shown,
    )
    return figure(
        "What takes the time",
        "By onnxruntime's profile, which slows a run down; quantized and fused kernels count with their operator.",
        drawn,
        BEFORE_AND_AFTER,
        table("Time by type of operator, as onnxruntime runs them", heads, listed),
        kind="wide",
    )


def _family(op_type: str) -> str:
    """Return the operator that a kernel of onnxruntime does the work of."""
    name = op_type
    for mark, plain in _REWRITTEN:
        name = name.replace(mark, plain)
    return {"QGemm": "Gemm", "QAttention": "Attention", "MatMulNBits": "MatMul", "MatMulToFloat": "MatMul"}.get(
        name, name
    )


def _activations(activations: Sequence[Found]) -> Iterator[str]:
    if not activations:
        return
    drawn = sorted(activations, key=lambda one: (-one["clipped"], -_unused(one)))[:_MOST_HISTOGRAMS]
    yield paragraph(
        "How the values of quantized tensors are distributed on the calibration samples (bars, logarithmic), "
        "and the range that the integers cover (between the lines). What lies outside is cut off."
        + (f" The {len(drawn)} of which most is cut off are drawn." if len(drawn) < len(activations) else "")
    )
    yield key(("rect", "before", "kept"), ("rect", "bad", "cut off"), ("rect", "after", "bounds of the range"))
    yield tag("div", *map(_histogram, drawn), class_="small")
    listed: list[list[Cell | str]] = [
        [one["tensor"], *(number(one[w], ".4g") for w in ("least", "most", "low", "high")),
         Cell(percent(one["clipped"]), one["clipped"])]
        for one in activations
    ]  # fmt: skip
    heads = ("tensor", "smallest", "largest", "range from", "to", "cut off")
    yield tag(
        "details", tag("summary", "As a table"), table("Quantized tensors in the order of the graph", heads, listed)
    )


def _histogram(one: Found) -> Markup:
    values = f"values from {one['least']:.3g} to {one['most']:.3g}"
    label = f"{one['tensor']}: {values}, range {one['low']:.3g} to {one['high']:.3g}"
    cut = f"{percent(one['clipped'])} cut off" if one["clipped"] else "nothing cut off"
    bins = histogram(one["counts"], (one["least"], one["most"]), (one["low"], one["high"]), label=label)
    return figure(shortened([one["tensor"]], 30)[one["tensor"]], cut, bins)


def _unused(one: Found) -> float:
    width = one["high"] - one["low"]
    return float(1 - (one["most"] - one["least"]) / width) if width > 0 else 0.0


def _bytes(count: int) -> Cell:
    return Cell(bytes_text(count), float(count))


def _seconds(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell("\N{EN DASH}")
    factor, unit = time_unit(seconds)
    return Cell(f"{seconds * factor:.3g} {unit}", float(seconds))
