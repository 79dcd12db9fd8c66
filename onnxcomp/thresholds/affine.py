"""Uniform affine quantizers: ``x = scale * (q - zero_point)`` (Jacob et al. 2018, eq. 1)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxcomp.thresholds.blocks import clipped_scales

__all__ = ["Affine", "affine", "quantize_weights"]

_SMALLEST_SCALE = 1e-30  # float32: keeps products of two scales away from denormals
_SMALLEST_PRODUCT = 1e-37  # of an input's and a weight's scale: float32 must hold it too
_BIAS_LIMIT = 2.0**31 * 0.99


@dataclass(frozen=True, slots=True)
class Affine:
    """Quantizer of one activation tensor.

    Attributes:
        scale: Step between two levels.
        zero_point: The level that stands for 0.0.
    """

    scale: np.float32
    zero_point: "np.generic"


def affine(low: float, high: float, dtype: npt.DTypeLike, *, symmetric: bool = False) -> Affine:
    """Return the quantizer whose levels span [low, high], widened to contain 0 (padding must be exact).

    Args:
        low: Smallest value to represent.
        high: Largest value to represent; values outside saturate.
        dtype: ``uint8`` or ``int8``, of 256 levels.
        symmetric: Zero point 0, whatever the range; for int8 alone.

    Raises:
        ValueError: A bound is not finite, or ``low > high``, or a symmetric quantizer is asked of unsigned levels.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"no quantizer for the range [{low}, {high}]")
    low, high = min(low, 0.0), max(high, 0.0)
    info = np.iinfo(np.dtype(dtype))
    if symmetric:
        if info.min == 0:
            raise ValueError("a symmetric quantizer needs levels below 0")
        scale = _usable_scale(max(-low, high) / info.max)
        return Affine(scale, info.dtype.type(0))
    scale = _usable_scale((high - low) / (info.max - info.min))
    zero_point = np.clip(np.rint(info.min - low / float(scale)), info.min, info.max)
    return Affine(scale, info.dtype.type(zero_point))


def quantize_weights(
    weights: npt.NDArray[np.floating],
    *,
    axis: int | None,
    bits: int = 8,
    method: str = "minmax",
    input_scale: float = 1.0,
    bias: npt.NDArray[np.floating] | None = None,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantize weights symmetrically, by channel or as a whole.

    A channel whose bias would overflow int32 at ``input_scale * scale`` gets a larger scale; so does a channel of
    zeros with a bias, which otherwise would have no scale to express the bias in.

    Args:
        weights: Any shape.
        axis: The output-channel axis; None: one scale for all.
        bits: 2 to 8: 7 where the target's 16-bit sums saturate (``Target.reduce_range``), else 8 as a rule.
        method: ``minmax``, or ``mmse``: the scale of least squared error, beyond which weights saturate.
        input_scale: Scale of the layer's input.
        bias: [channels], where the layer has one.

    Returns:
        int8 weights of the same shape, and their scales: [channels], or a scalar array where ``axis`` is None.

    Raises:
        ValueError: A weight is not finite.
    """
    levels = 2 ** (bits - 1) - 1
    others = None if axis is None else tuple(a for a in range(weights.ndim) if a != axis % weights.ndim)
    largest = np.abs(weights).max(axis=others, initial=0.0).astype(np.float64)
    if not np.isfinite(largest).all():
        raise ValueError("weights are not finite")
    scale = largest / levels
    if method == "mmse" and weights.size:
        groups = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(len(scale), -1)
        scale = clipped_scales(groups, levels=levels).reshape(scale.shape)
    if bias is not None:
        largest_bias = np.abs(bias.astype(np.float64))
        if axis is None:
            largest_bias = largest_bias.max(initial=0.0)
        scale = np.maximum(scale, largest_bias / (input_scale * _BIAS_LIMIT))
    smallest = max(_SMALLEST_SCALE, _SMALLEST_PRODUCT / input_scale)
    scale = np.where(scale == 0, 1.0, np.maximum(scale, smallest)).astype(np.float32)
    divisor = scale if others is None else np.expand_dims(scale, others)
    quantized = np.clip(np.rint(weights / divisor), -levels, levels).astype(np.int8)
    return quantized, scale


def _usable_scale(scale: float) -> np.float32:
    """Return a scale that float32 can hold and divide by; a tensor that is always 0 gets 1."""
    return np.float32(1.0 if scale == 0 else max(scale, _SMALLEST_SCALE))
