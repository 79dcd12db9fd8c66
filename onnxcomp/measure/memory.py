"""How much memory this process has needed."""

import sys
from pathlib import Path

__all__ = ["peak_rss"]

_KIB = 1024


def peak_rss() -> int | None:
    """Return the largest resident set of this process so far in bytes, or None where the system does not tell.

    Linux answers from `/proc/self/status`, because `getrusage` there starts from the peak of the process that started
    this one. macOS has no such file and counts `ru_maxrss` in bytes where other systems count KiB. Windows has
    neither, and gives None.
    """
    if sys.platform == "linux":
        from_status = _peak_of_status(Path("/proc/self/status"))
        if from_status is not None:
            return from_status
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def _peak_of_status(path: Path) -> int | None:
    """Read the `VmHWM` line, in bytes; None where there is no such file or line (some containers hide it)."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peaks[0]) * _KIB if peaks else None
