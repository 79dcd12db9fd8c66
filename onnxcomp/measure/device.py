"""How much of a GPU's memory is in use."""

import os
import subprocess

__all__ = ["device_memory"]

_MIB = 1 << 20
_PATIENCE = 30.0  # seconds


def device_memory() -> int | None:
    """Return the bytes in use on the first GPU that this process sees, by all programs; None: that is not known.

    ``nvidia-smi`` tells. What onnxruntime has once taken it keeps, so that the figure after some runs is the peak.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",", maxsplit=1)[0].strip() or "0"
    command = ["nvidia-smi", f"--id={visible}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    told = done.stdout.strip()
    return int(told) * _MIB if told.isdecimal() else None
