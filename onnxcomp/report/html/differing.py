"""The page of `diff`: two models side by side."""

from collections.abc import Iterator

from onnxcomp.report.figures import bytes_text, count_text, counted
from onnxcomp.report.html.common import Found, change, circumstances, decibels, number, reproduce, size_tile
from onnxcomp.report.html.page import Cell, Section, Tile, page, table

__all__ = ["diff_page"]

_YES = {True: "yes", False: "no"}


def diff_page(found: Found, command: str | None) -> str:
    """Return the page of `diff`; see `made_page`."""
    first, second = found["first"], found["second"]
    alike = [f"{what} {'are the same' if first[what] == second[what] else 'differ'}" for what in ("inputs", "outputs")]
    weights = f"{counted(len(found['tensors']), 'weight')} changed, {found['unchanged']} did not"
    notes = list(dict.fromkeys((*first["notes"], *second["notes"])))
    return page(
        kind="diff",
        title=f"{first['model']} and {second['model']}",
        verdict=f"{', '.join(alike)}; {weights}.".capitalize(),
        passed=None,
        tiles=[
            size_tile(first["size"], second["size"]),
            _tile("Parameters", first["parameters"], second["parameters"]),
            _tile("MACs of a run", first["macs_known"], second["macs_known"]),
        ],
        sections=[
            Section("Side by side", (_facts(first, second),)),
            Section("Operators", tuple(_operators(found))),
            Section("Weights", tuple(_weights(found))),
            reproduce(found, command),
            circumstances({"notes": notes, "versions": second["versions"]}, {"shapes": second["run_shapes"]}),
        ],
        created=found["created"],
    )


def _tile(name: str, before: int, after: int) -> Tile:
    ratio = after / before if before else None
    said = "" if ratio is None else change(ratio, "fewer", "more")
    return Tile(name, count_text(before), count_text(after), said, ratio=ratio)


def _facts(first: Found, second: Found) -> str:
    rows = [[name, *values] for name, *values in zip(_NAMES, _side(first), _side(second), strict=True)]
    return table("Both models", ("what", "first", "second"), rows)


_NAMES = (
    "model",
    "opset",
    "IR version",
    "made by",
    "nodes",
    "weights",
    "integer operators",
    "made by onnxcomp",
    "onnxruntime loads it",
)


def _side(one: Found) -> Iterator[str]:
    yield one["model"]
    yield ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in one["opsets"].items())
    yield str(one["ir_version"])
    yield one["producer"] or "?"
    yield str(sum(operator["count"] for operator in one["operators"]))
    yield ", ".join(f"{weight['dtype']} {bytes_text(weight['bytes'])}" for weight in one["weights"]) or "none"
    yield _YES[one["quantized"]]
    yield _YES[bool(one["recipe"])]
    yield f"no: {one['refusal']}" if one["refusal"] else "yes"


def _operators(found: Found) -> Iterator[str]:
    rows: list[list[Cell | str]] = [
        [one["op_type"], number(one["first"], "d"), number(one["second"], "d"),
         number(one["second"] - one["first"], "+d")]
        for one in found["operators"]
    ]  # fmt: skip
    if rows:
        yield table("Operators whose number differs", ("operator", "first", "second", "change"), rows)


def _weights(found: Found) -> Iterator[str]:
    rows: list[list[Cell | str]] = [
        [one["name"], one["change"], one["first"] or "\N{EN DASH}", one["second"] or "\N{EN DASH}",
         Cell(bytes_text(one["first_bytes"]), one["first_bytes"]),
         Cell(bytes_text(one["second_bytes"]), one["second_bytes"]), decibels(one["sqnr"])]
        for one in found["tensors"]
    ]  # fmt: skip
    if rows:
        heads = ("weight", "change", "first", "second", "bytes before", "bytes after", "SQNR")
        yield table("Weights that differ, the largest changes first", heads, rows)
