"""Disturbed samples: what happens to inputs in the field, at a strength that is known.

The unit of a strength is the standard deviation of the input in that run. Only floats, and uint8 (nearly always an
image), are disturbed; uint8 is rounded and kept in its range.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from onnxcomp.data.checks import is_float
from onnxcomp.data.samples import Feed

__all__ = ["PERTURBATIONS", "can_perturb", "perturbed"]

_Disturb = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _noise(values: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent normal noise."""
    disturbed: np.ndarray = values + strength * values.std() * rng.standard_normal(values.shape)
    return disturbed


def _brightness(values: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Add the same to all values."""
    disturbed: np.ndarray = values + strength * values.std()
    return disturbed


def _contrast(values: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Spread the values about their mean."""
    mean = values.mean()
    disturbed: np.ndarray = mean + (1 + strength) * (values - mean)
    return disturbed


PERTURBATIONS: Mapping[str, _Disturb] = MappingProxyType(
    {"noise": _noise, "brightness": _brightness, "contrast": _contrast}
)


def can_perturb(value: np.ndarray) -> bool:
    """Say whether an input is one that is disturbed."""
    if not isinstance(value, np.ndarray) or value.size == 0 or value.dtype.kind == "c":
        return False
    return is_float(value.dtype) or value.dtype == np.uint8


def perturbed(feed: Feed, kind: str, strength: float, rng: np.random.Generator) -> Feed:
    """Return a copy of one run's inputs, disturbed.

    Args:
        feed: The inputs.
        kind: One of `PERTURBATIONS`.
        strength: As a share of each input's standard deviation.
        rng: Makes the noise.
    """
    found = {}
    for name, value in feed.items():
        if can_perturb(value):
            disturbed = PERTURBATIONS[kind](value.astype(np.float64), strength, rng)
            if value.dtype == np.uint8:
                disturbed = np.clip(np.rint(disturbed), 0, 255)
            found[name] = disturbed.astype(value.dtype)
        else:
            found[name] = value
    return found
