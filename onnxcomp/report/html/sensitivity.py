"""The page of `sensitivity`: what each unit harms and saves, alone and together."""

from collections.abc import Iterator

from onnxcomp.report.figures import bytes_text, counted
from onnxcomp.report.html.charts import Curve, curves
from onnxcomp.report.html.common import Found, change, circumstances, decibels, number, reproduce, size_tile
from onnxcomp.report.html.page import Cell, Section, Tile, bullets, figure, page, paragraph, table
from onnxcomp.report.html.rows import Column, Measured, measures
from onnxcomp.report.html.scale import time_unit

__all__ = ["sensitivity_page"]

_MOST_DRAWN = 40
_ASKED = ("goal", "target", "calibration", "noise_samples", "evaluation", "metric", "budget", "technique", "threads",
          "batch", "seed")  # fmt: skip


def sensitivity_page(found: Found, command: str | None) -> str:
    """Return the page; see `made_page`."""
    before, after = found["seconds_before"], found["seconds_after"]
    factor, unit = time_unit(before)
    profile = Tile("Time in the profile", f"{before * factor:.3g} {unit}", f"{after * factor:.3g} {unit}",
                   change(after / before, "faster", "slower") if before else "", "with all units rewritten",
                   after / before if before else None)  # fmt: skip
    return page(
        kind="sensitivity",
        title=found["model"],
        verdict=_verdict(found),
        passed=None,
        tiles=[size_tile(found["original_size"], found["size"]), profile],
        sections=[
            Section("Units alone", tuple(_units(found))),
            Section("Units together", tuple(_together(found))),
            Section("To leave out", (bullets(found["exclude"]),) if found["exclude"] else ()),
            reproduce(found, command),
            circumstances(found, {name: found[name] for name in _ASKED}),
        ],
        created=found["created"],
    )


def _verdict(found: Found) -> str:
    count = len(found["units"])
    if found["exclude"] is None:
        return "No choice that was tried keeps the budget."
    if not found["exclude"]:
        return f"{counted(count, 'unit')}: all can be rewritten inside the budget."
    left = next((one["units"] for one in found["together"] if one["quality"] and one["objection"] is None), None)
    return f"The budget is kept without the first {left} of {counted(count, 'unit')}."


def _units(found: Found) -> Iterator[str]:
    units = found["units"]
    if not units:
        return
    factor, unit = time_unit(max(abs(one["seconds"]) for one in units))
    rows = [
        Measured(
            one["name"],
            (one["sqnr"], one["seconds"] * factor, one["bytes"] / 1e3),
            f"{one['name']} ({one['op_type']}): SQNR {decibels(one['sqnr']).shown}, "
            f"saves {one['seconds'] * factor:.3g} {unit} and {bytes_text(one['bytes'])}",
        )
        for one in units[:_MOST_DRAWN]
    ]
    columns = (Column("SQNR alone, dB (higher is closer)", "dot"), Column(f"saves, {unit}", "bar"),
               Column("saves, kB", "bar"))  # fmt: skip
    listed: list[list[Cell | str]] = [
        [one["name"], one["op_type"], one["step"], decibels(one["sqnr"]), number(one["seconds"] * factor, ".4g"),
         number(one["bytes"] / 1e3, ".1f"), number(one["harm"], ".3g"),
         number(one["quality"] and one["quality"]["score"]), number(one["quality"] and one["quality"]["agreement"])]
        for one in units
    ]  # fmt: skip
    heads = ("unit", "operator", "pass", "SQNR", f"saves {unit}", "saves kB", "harm", "score", "agreement")
    yield figure(
        "What each unit harms and saves when it alone is rewritten",
        f"The most harm for what it saves ({found['goal']}) first"
        + (f"; the first {_MOST_DRAWN} of {len(units)}." if len(units) > _MOST_DRAWN else "."),
        measures(rows, columns, label="Units: SQNR alone, time and bytes saved"),
        table("All units", heads, listed),
        kind="wide",
    )


def _together(found: Found) -> Iterator[str]:
    together = found["together"]
    known = [one for one in together if one["sqnr"] is not None]
    yield paragraph("Units are left out one after another, in the order that takes most noise away for what it costs.")
    rows: list[list[Cell | str]] = [
        [number(one["units"], "d"), one["last"], decibels(one["sqnr"]), number(one["seconds"] * 1e3, ".4g"),
         number(one["bytes"] / 1e3, ".1f"), number(one["quality"] and one["quality"]["score"]),
         number(one["quality"] and one["quality"]["agreement"]),
         one["objection"] or ("kept" if one["quality"] else "not judged")]
        for one in together
    ]  # fmt: skip
    heads = ("left out", "the last one", "SQNR", "save ms", "save kB", "score", "agreement", "budget")
    listed = table("What is left of harm and savings", heads, rows)
    if len(known) < 2:
        yield listed
        return
    points = tuple((float(one["units"]), float(one["sqnr"])) for one in known)
    tips = tuple(
        f"{one['units']} left out{', the last ' + one['last'] if one['last'] else ''}: SQNR {one['sqnr']:.1f} dB"
        + (f"; {one['objection'] or 'keeps the budget'}" if one["quality"] else "")
        for one in known
    )
    drawn = curves([Curve("SQNR", "after", points, tips)], label="SQNR by units left out", across="units left out",
                   up="SQNR, dB")  # fmt: skip
    yield figure("How much closer the answers get", "SQNR on the calibration samples, simulated.", drawn, kind="narrow")
    yield listed
