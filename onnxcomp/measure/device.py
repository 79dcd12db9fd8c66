"""What a GPU is, and how much of its memory is in use: ``nvidia-smi`` tells."""

import os
import subprocess

__all__ = ["device_memory", "device_name"]

_MIB = 1 << 20
_PATIENCE = 30.0  # seconds


def device_memory() -> int | None:
    """Return the bytes in use on the first GPU that this process sees, by all programs; None: that is not known.

    What onnxruntime has once taken it keeps, so that the figure after some runs is the peak.
    """
    told = _ask("memory.used")
    return int(told) * _MIB if told.isdecimal() else None


def device_name() -> str | None:
    """Return what the first GPU that this process sees is called; None: that is not known."""
    return _ask("name") or None


def _ask(what: str) -> str:
    """Return a property of the first GPU that this process sees; empty: that is not known."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",", maxsplit=1)[0].strip() or "0"
    command = ["nvidia-smi", f"--id={visible}", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
