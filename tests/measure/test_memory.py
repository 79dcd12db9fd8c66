import subprocess
import sys
from pathlib import Path

import pytest

from onnxcomp.measure import memory, peak_rss


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_peak_grows_with_memory_that_is_used():
    code = "from onnxcomp.measure import peak_rss as p; a = p(); x = b'x' * 200_000_000; del x; print(p() - a)"
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert 150_000_000 < grown < 300_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="what getrusage does on Linux")
def test_peak_is_not_that_of_the_parent():
    ballast = b"x" * 300_000_000
    code = "from onnxcomp.measure import peak_rss; print(peak_rss())"
    child = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert child < len(ballast)


def test_peak_of_status_needs_file_and_line(tmp_path: Path):
    status = tmp_path / "status"
    assert memory._peak_of_status(status) is None
    status.write_text("Name:\tpython\n")
    assert memory._peak_of_status(status) is None
    status.write_text("VmPeak:\t  900 kB\nVmHWM:\t  123 kB\nVmRSS:\t  100 kB\n")
    assert memory._peak_of_status(status) == 123 * 1024


def test_no_resource_module_means_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_rss() is None


@pytest.mark.parametrize(("platform", "factor"), [("darwin", 1), ("freebsd14", 1024)])
def test_units_of_other_platforms(monkeypatch: pytest.MonkeyPatch, platform: str, factor: int):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = peak_rss()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak is not None
    assert before * factor <= peak <= after * factor
