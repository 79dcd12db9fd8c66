"""A `check` report as CI systems read it: JUnit XML, and the annotations of GitHub Actions."""

import xml.etree.ElementTree as ET

from onnxcomp.report.check import CheckReport, GateResult
from onnxcomp.report.figures import one_line

__all__ = ["annotations", "junit_xml"]

_LABELS = ("bound", "value", "95 % interval", "samples")


def junit_xml(report: CheckReport) -> str:
    """Return JUnit XML with a test case per gate.

    A gate that makes the check fail is a failure. What else is undecided or not measured is skipped, with its reason.
    """
    failed = [result for result in report.results if report.fails(result)]
    skipped = [result for result in report.results if result.status != "passed" and result not in failed]
    counts = {
        "tests": str(len(report.results)),
        "failures": str(len(failed)),
        "errors": "0",
        "skipped": str(len(skipped)),
    }
    suites = ET.Element("testsuites", {"name": "onnxcomp check", **counts})
    # an xs:dateTime without a zone, in UTC, is what readers of this format expect
    head = {"name": one_line(report.model), **counts, "time": "0", "timestamp": report.created.partition("+")[0]}
    suite = ET.SubElement(suites, "testsuite", head)
    for result in report.results:
        named = {"classname": "onnxcomp.check", "name": result.name, "time": "0"}
        case = ET.SubElement(suite, "testcase", named)
        reason = one_line(result.reason)
        if result in failed:
            ET.SubElement(case, "failure", {"type": result.status, "message": reason}).text = reason
        elif result in skipped:
            ET.SubElement(case, "skipped", {"message": f"{result.status}: {reason}"})
        ET.SubElement(case, "system-out").text = _figures(result)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def annotations(report: CheckReport) -> str:
    """Return a workflow command per gate that is not passed: an error where it fails the check, else a warning."""
    lines = []
    for result in report.results:
        if result.status == "passed":
            continue
        title = _property(f"onnxcomp check: {result.name} {result.status}")
        text = _data(f"{report.model}: {result.reason} ({_figures(result)})")
        lines.append(f"::{'error' if report.fails(result) else 'warning'} title={title}::{text}\n")
    return "".join(lines)


def _figures(result: GateResult) -> str:
    _, _, *figures = result.cells()
    return ", ".join(f"{label} {text}" for label, text in zip(_LABELS, figures, strict=True) if text != "-")


def _data(text: str) -> str:
    """Escape the message of a workflow command; no character of it can end the line."""
    return one_line(text).replace("%", "%25")


def _property(text: str) -> str:
    """Escape the value of a property, which a colon or a comma would end."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
