"""Reports as one page of HTML: style, script and drawings are inside, nothing is asked of any server.

A page is made of what the JSON report holds, so that a saved report gives the same page.
"""

from onnxcomp.report.html.common import Found
from onnxcomp.report.html.compared import bench_page, check_page, compare_page
from onnxcomp.report.html.differing import diff_page
from onnxcomp.report.html.inspected import inspect_page
from onnxcomp.report.html.made import made_page
from onnxcomp.report.html.optimize import optimize_page
from onnxcomp.report.html.plain import plain_page
from onnxcomp.report.html.sensitivity import sensitivity_page

__all__ = ["render_html"]

_PAGES = {
    "bench": bench_page,
    "check": check_page,
    "compare": compare_page,
    "diff": diff_page,
    "inspect": inspect_page,
    "optimize": optimize_page,
    "prune": made_page,
    "quantize": made_page,
    "sensitivity": sensitivity_page,
    "share": made_page,
}


def render_html(found: Found, *, command: str | None = None) -> str:
    """Return the page of a report.

    Args:
        found: The report, as its JSON has it.
        command: The command line that made it; None: not known.

    Raises:
        KeyError: It lacks something.
    """
    return _PAGES.get(found["kind"], plain_page)(found, command)
