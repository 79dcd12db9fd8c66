"""Disturbed samples: what happens to inputs in the field, at a strength that is known.

Noise, brightness, contrast and scaling are of any input, blur and occlusion of images: arrays [N, C, H, W] or
[N, H, W, C] with 1, 3 or 4 channels. Only floats, and uint8 (nearly always an image), are disturbed; uint8 is rounded
and kept in its range. Each kind has five severities, in the manner of Hendrycks and Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", ICLR 2019; their strengths are this module's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from onnxcomp.data.checks import is_float
from onnxcomp.data.samples import Feed

__all__ = ["PERTURBATIONS", "Perturbation", "can_perturb", "fitting", "mixed", "perturbed", "shifted"]

_Disturb = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
_CHANNELS = (1, 3, 4)
_SMALLEST = 8  # pixels of a side


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One kind of disturbance.

    Attributes:
        disturb: Returns a disturbed copy of one input; for images alone, [N, H, W, C].
        unit: Of the strength.
        severities: Strengths of the severities 1 to 5.
        images: Whether it is of images alone.
    """

    disturb: _Disturb
    unit: str
    severities: tuple[float, float, float, float, float]
    images: bool = False


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


def _scaling(values: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Multiply all values."""
    disturbed: np.ndarray = (1 + strength) * values
    return disturbed


def _blur(values: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian of that width."""
    # a tenth of a second to import, which commands that only look can do without
    from scipy.ndimage import gaussian_filter

    width = strength * min(values.shape[1:3])
    blurred: np.ndarray = gaussian_filter(values, (0, width, width, 0), mode="nearest")
    return blurred


def _occlusion(values: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Put a rectangle of the mean over each image, anywhere."""
    height, width = (max(1, round(side * strength**0.5)) for side in values.shape[1:3])
    disturbed = values.copy()
    for image in disturbed:
        top, left = (int(rng.integers(0, side - size + 1)) for side, size in zip(image.shape, (height, width)))  # noqa: B905
        image[top : top + height, left : left + width] = values.mean()
    return disturbed


_DEVIATIONS = "of the input's standard deviation"
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "noise": Perturbation(_noise, _DEVIATIONS, (0.1, 0.2, 0.4, 0.7, 1.0)),
        "brightness": Perturbation(_brightness, _DEVIATIONS, (0.2, 0.4, 0.6, 0.8, 1.0)),
        "contrast": Perturbation(_contrast, "more distance from the mean", (0.2, 0.4, 0.6, 0.8, 1.0)),
        "scaling": Perturbation(_scaling, "added to a factor of 1", (0.1, 0.2, 0.4, 0.7, 1.0)),
        "blur": Perturbation(_blur, "of the smaller side", (0.01, 0.02, 0.03, 0.045, 0.06), images=True),
        "occlusion": Perturbation(_occlusion, "of the area", (0.02, 0.05, 0.1, 0.2, 0.3), images=True),
    }
)
_OF_IMAGES = ("noise", "blur", "brightness", "contrast", "occlusion")
_OF_OTHERS = ("noise", "scaling")


def can_perturb(value: np.ndarray, kind: str = "noise") -> bool:
    """Say whether an input is one that a kind of disturbance is of."""
    if not isinstance(value, np.ndarray) or value.size == 0 or value.dtype.kind == "c":
        return False
    if PERTURBATIONS[kind].images and _channels(value) is None:
        return False
    return is_float(value.dtype) or value.dtype == np.uint8


def fitting(feed: Feed) -> tuple[str, ...]:
    """Name the kinds that suit a run's inputs: those of images where one is an image."""
    return _OF_IMAGES if any(can_perturb(value, "blur") for value in feed.values()) else _OF_OTHERS


def perturbed(feed: Feed, kind: str, strength: float, rng: np.random.Generator) -> Feed:
    """Return a copy of one run's inputs, disturbed.

    Args:
        feed: The inputs.
        kind: One of `PERTURBATIONS`.
        strength: In the unit of the kind.
        rng: Makes the noise, and chooses places.
    """
    found = {}
    for name, value in feed.items():
        if can_perturb(value, kind):
            disturbed = _disturbed(value, kind, strength, rng)
            if value.dtype == np.uint8:
                disturbed = np.clip(np.rint(disturbed), 0, 255)
            found[name] = disturbed.astype(value.dtype)
        else:
            found[name] = value
    return found


def shifted(feed: Feed, share: float, rng: np.random.Generator) -> Feed:
    """Return a copy of one run's inputs in which images are moved, what was at their edges repeated behind them.

    Args:
        feed: The inputs.
        share: Of the smaller side, which they are moved by at most, up or down and left or right.
        rng: Chooses how far, the same for all images of the run.
    """
    ways = rng.uniform(-share, share, 2)
    found = {}
    for name, value in feed.items():
        moved = value
        if can_perturb(value, "blur"):
            first = 2 if _channels(value) == 1 else 1  # [N, C, H, W] or [N, H, W, C]
            sides = value.shape[first : first + 2]
            for axis, (side, way) in enumerate(zip(sides, ways, strict=True), first):
                moved = moved.take(np.clip(np.arange(side) + round(way * min(sides)), 0, side - 1), axis)
        found[name] = moved
    return found


def mixed(feed: Feed, other: Feed, share: float, rng: np.random.Generator) -> Feed:
    """Return a copy of one run's inputs with images of another mixed in, where both are of one shape.

    All images of the run are mixed alike: blended, or with a rectangle of the other's put over them.

    Args:
        feed: The inputs.
        other: Of another run of the same model.
        share: Of the other's images, in [0, 1].
        rng: Chooses how, and where.

    Sources: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2; Yun et al. 2019, "CutMix",
    section 3.1.
    """
    blends, corner = rng.random() < 0.5, rng.random(2)
    found = {}
    for name, value in feed.items():
        found[name] = value
        added = other.get(name)
        if not can_perturb(value, "blur") or not isinstance(added, np.ndarray) or added.shape != value.shape:
            continue
        if blends:
            blend = value * (1 - share) + added * share
            found[name] = (np.rint(blend) if value.dtype == np.uint8 else blend).astype(value.dtype)
        else:
            first = 2 if _channels(value) == 1 else 1
            sides = value.shape[first : first + 2]
            sizes = [round(side * share**0.5) for side in sides]
            starts = [round(place * (side - size)) for place, side, size in zip(corner, sides, sizes, strict=True)]
            places = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
            where = (*[slice(None)] * first, *places)
            found[name] = value.copy()
            found[name][where] = added[where]
    return found


def _disturbed(value: np.ndarray, kind: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    chosen = PERTURBATIONS[kind]
    if not chosen.images:
        return chosen.disturb(value.astype(np.float64), strength, rng)
    axis = _channels(value)
    assert axis is not None
    images = np.moveaxis(value.astype(np.float64), axis, -1)  # [N, H, W, C]
    return np.moveaxis(chosen.disturb(images, strength, rng), -1, axis)


def _channels(value: np.ndarray) -> int | None:
    """Return the axis of an image's channels; None: it is no image."""
    if value.ndim != 4:
        return None
    for axis, sides in ((1, value.shape[2:]), (3, value.shape[1:3])):
        if value.shape[axis] in _CHANNELS and min(sides) >= _SMALLEST:
            return axis
    return None
