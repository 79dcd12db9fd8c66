"""The page of `inspect`: what a model is made of, and what could be done with it."""

from collections.abc import Iterator

from onnxcomp.report.figures import bytes_text, count_text
from onnxcomp.report.html.bars import Pair, pairs
from onnxcomp.report.html.common import Found, circumstances, number, reproduce
from onnxcomp.report.html.page import Cell, Section, Tile, facts, figure, page, paragraph, table
from onnxcomp.report.html.scale import percent
from onnxcomp.report.html.weights import histogram_parts

__all__ = ["inspect_page"]

_MOST_OPERATORS = 15
_UNKNOWN = Cell("\N{EN DASH}")


def inspect_page(found: Found, command: str | None) -> str:
    """Return the page of `inspect`; see `made_page`."""
    refusal = found["refusal"]
    state = "It holds integer operators already." if found["quantized"] else "It is not quantized."
    return page(
        kind="inspect",
        title=found["model"],
        verdict=f"{state} {f'onnxruntime refuses it: {refusal}' if refusal else 'onnxruntime loads it.'}",
        passed=None,
        tiles=list(_tiles(found)),
        sections=[
            Section("What it is", (_facts(found), *_weights(found))),
            Section("Operators", tuple(_operators(found))),
            Section("Histograms", tuple(histogram_parts(found.get("histograms") or ()))),
            Section("Channels that can be pruned", tuple(_groups(found["groups"]))),
            Section("Integers", tuple(_verdicts(found["quantization"]))),
            Section("Nodes", tuple(_nodes(found))),
            reproduce(found, command),
            circumstances(found, {"shapes": found["run_shapes"]}),
        ],
        created=found["created"],
    )


def _tiles(found: Found) -> Iterator[Tile]:
    gains = found.get("estimates")
    counted = ""
    if gains and gains["int8"] < found["size"]:
        counted = f"by counting, not tried: {bytes_text(gains['int8'])} with int8 weights"
    yield Tile("Size", "", bytes_text(found["size"]), "", counted)
    yield Tile("Parameters", "", count_text(found["parameters"]))
    macs = found["macs"] if found["macs"] is not None else found["macs_known"]
    yield Tile("MACs of a run", "", count_text(macs), "", "at least" if found["macs"] is None else found["run_shapes"])
    live = found.get("activations")
    if live:
        how = "shapes of a run" if live["measured"] else "inferred shapes"
        yield Tile("Inputs, outputs and what is between", "", bytes_text(live["peak"]), "", f"at {live['node']}, {how}")


def _facts(found: Found) -> str:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in found["opsets"].items())
    said = [("format", f"IR {found['ir_version']}, opset {opsets or 'none'}"), ("made by", found["producer"] or "?")]
    for kind in ("inputs", "outputs"):
        for one in found[kind]:
            shape = "any shape" if one["shape"] is None else [("?" if d is None else d) for d in one["shape"]]
            said.append((kind.removesuffix("s"), f"{one['name']}: {one['type']} {shape}".replace("'", "")))
    said += [(f"in {name}", bytes_text(size)) for name, size in found["external"].items()]
    return facts(said)


def _weights(found: Found) -> Iterator[str]:
    rows: list[list[Cell | str]] = [
        [one["dtype"], number(one["tensors"], "d"), number(one["elements"], ",d"),
         Cell(bytes_text(one["bytes"]), one["bytes"])]
        for one in found["weights"]
    ]  # fmt: skip
    if rows:
        yield table("Weights by data type", ("data type", "tensors", "elements", "bytes"), rows)


def _operators(found: Found) -> Iterator[str]:
    operators = found["operators"]
    rows: list[list[Cell | str]] = [
        [one["op_type"], number(one["count"], "d"), number(one["parameters"], ",d"), number(one["macs"], ",d"),
         number(one["unknown"], "d")]
        for one in operators
    ]  # fmt: skip
    listed = table("Operators", ("operator", "nodes", "parameters", "MACs", "nodes of unknown MACs"), rows)
    drawn = [
        Pair(one["op_type"], None, float(one["macs"]), f"{one['op_type']}: {count_text(one['macs'])} MACs")
        for one in operators[:_MOST_OPERATORS]
        if one["macs"]
    ]
    if not drawn:
        yield listed
        return
    chart = pairs(drawn, label="MACs by operator", unit="MACs", written=lambda macs: count_text(int(macs)))
    yield figure("Multiplications by operator", "Of one run.", chart, listed, kind="wide")


def _groups(found: Found | None) -> Iterator[str]:
    if found is None:
        return
    rows: list[list[Cell | str]] = [
        [one["name"], number(one["channels"], "d"), number(one["parameters"], ",d"), number(one["macs"], ",d"),
         _UNKNOWN if one["time"] is None else Cell(percent(one["time"]), one["time"]),
         ", ".join(one["makers"]), ", ".join(one["readers"])]
        for one in found["groups"]
    ]  # fmt: skip
    heads = ("group", "channels", "parameters", "MACs", "time", "made by", "read by")
    yield table("Groups of channels that are cut together", heads, rows)
    frozen = [[one["node"], one["op_type"], one["reason"]] for one in found["frozen"]]
    if frozen:
        yield table("Layers whose channels all stay", ("layer", "operator", "why"), frozen)


def _verdicts(found: Found | None) -> Iterator[str]:
    if found is None:
        return
    yield paragraph(f"On {found['target']} ({found['checked']}).")
    rows = [
        [one["name"], one["op_type"], *(_verdict(one[kind], one[f"{kind}_reason"]) for kind in ("static", "dynamic"))]
        for one in found["nodes"]
    ]
    yield table("What would run in int8", ("node", "operator", "static", "dynamic"), rows)


def _verdict(integer: bool, reason: str) -> str:
    return f"int8 ({reason})" if integer and reason else "int8" if integer else f"no: {reason}"


def _nodes(found: Found) -> Iterator[str]:
    rows: list[list[Cell | str]] = [
        [f"{one['place']}/{one['name']}" if one["place"] else one["name"], one["op_type"],
         " ".join("?" if shape is None else "x".join(map(str, shape)) or "number" for shape in one["shapes"]),
         number(one["parameters"], ",d"), number(one["macs"], ",d")]
        for one in found["nodes"]
    ]  # fmt: skip
    if rows:
        yield table("All nodes", ("node", "operator", "makes", "parameters", "MACs"), rows)
