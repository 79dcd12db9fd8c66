"""The coders with numba's loops, and without them."""

import pytest

from onnxcomp.coding import huffman, kernels, rans

BACKENDS = ("numba", "numpy")


def use(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
    for module in (huffman, rans):
        monkeypatch.setattr(module, "kernels", kernels.kernels if backend == "numba" else lambda: None)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the coders run with this backend."""
    use(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A patch to switch backends with; skips where numba is missing."""
    pytest.importorskip("numba")
    return monkeypatch
