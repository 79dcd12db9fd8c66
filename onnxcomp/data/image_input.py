"""What the image input of a model takes, told from its shape and data type and from what the user says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np

from onnxcomp.data.checks import is_float, shape_text
from onnxcomp.data.samples import InputSpec
from onnxcomp.errors import DataError

__all__ = ["ImageInput", "ImageOptions", "Layout", "Resize", "image_input"]

Layout = Literal["NCHW", "NHWC"]
Resize = Literal["crop", "stretch"] | int
LOADER_HINT = "prepare the samples yourself: FILE.py:function, or an .npz file"
CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the images of a folder become the input of a model.

    Attributes:
        size: Height and width in pixels, or one number for both. Default: what the model takes.
        mean: For a float input, which gets ``(pixel / 255 - mean) / std``; for all channels or for each. Default: 0.
        std: See `mean`. Default: 1.
        layout: Order of the axes. Default: where the model has 1 or 3 channels.
        resize: ``crop``: the smaller side is resized to fit, and of the other one the middle is taken; ``stretch``:
            both sides are resized, whatever the proportions; a number: the smaller side is resized to so many pixels,
            and the middle is taken.
        required: Whether it is an error that no samples are images.
    """

    size: int | tuple[int, int] | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    layout: Layout | None = None
    resize: Resize = "crop"
    required: bool = True

    def __post_init__(self) -> None:
        if self.size is not None:
            sizes = _height_width(self.size)
            if len(sizes) != 2 or not all(type(pixels) is int and pixels >= 1 for pixels in sizes):
                raise DataError(f"image-size must be 1 or more, got {self.size}", hint="as in 224, or height and width")
        for name, given in (("mean", self.mean), ("std", self.std)):
            values = _tuple(given)
            if given is not None and not (len(values) in CHANNELS and all(map(_is_finite, values))):
                raise DataError(
                    f"{name} must be one number, or one for each of 3 channels, got {given}",
                    hint="as in 0.485,0.456,0.406",
                )
        if any(value > 1 for value in _tuple(self.mean)):
            raise DataError(
                f"mean {self.mean} is larger than any pixel: they are scaled to [0, 1] first",
                hint="divide mean and std by 255",
            )
        if any(value <= 0 for value in _tuple(self.std)):
            raise DataError(f"std must be positive, got {self.std}", hint="it is divided by")
        if self.layout is not None and self.layout not in get_args(Layout):
            raise DataError(f"unknown layout {self.layout!r}", hint=f"one of: {', '.join(get_args(Layout))}")
        if not (self.resize in ("crop", "stretch") or (type(self.resize) is int and self.resize >= 1)):
            raise DataError(f"unknown resize {self.resize!r}", hint="crop, stretch, or pixels of the smaller side")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image input, everything decided.

    Attributes:
        name: Name of the input.
        dtype: Data type: an integer one gets pixels as they are.
        batch: Images per run; None: any number.
        size: Height and width.
        channels: 1 (grey) or 3 (red, green, blue).
        layout: Order of the axes.
        mean: Subtracted from pixels in [0, 1].
        std: What is left is divided by it.
        resize: See `ImageOptions`.
    """

    name: str
    dtype: np.dtype
    batch: int | None
    size: tuple[int, int]
    channels: int
    layout: Layout
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize

    def fill(self, pixels: np.ndarray) -> np.ndarray:
        """Return the values of the input for pixels, uint8 [height, width, channels]."""
        values = pixels
        if is_float(self.dtype):
            values = pixels.astype(np.float32) / np.float32(255)
            values = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return values.astype(self.dtype)

    @property
    def description(self) -> str:
        """What becomes of an image, for people."""
        colour = "grey" if self.channels == 1 else "RGB"
        values = "pixels as they are"
        if is_float(self.dtype):
            values = f"(pixel / 255 - {_list(self.mean)}) / {_list(self.std)}"
            if set(self.mean) == {0} and set(self.std) == {1}:
                values = "pixel / 255"
        how = self.resize if isinstance(self.resize, str) else f"{self.resize} and crop"
        return f"{colour} {self.size[0]}x{self.size[1]} ({how}), {values}, {self.layout}"


def image_input(inputs: Sequence[InputSpec], options: ImageOptions) -> ImageInput:
    """Decide what the images are made into.

    Args:
        inputs: Inputs of the model.
        options: What the user says.

    Raises:
        DataError: The model has no image input, or not that one alone; the options don't fit it, or are too few.
    """
    needed = [spec for spec in inputs if not spec.optional]
    if len(needed) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in needed)
        raise DataError(f"a folder of images fills one input, the model has {len(needed)}: {names}", hint=LOADER_HINT)
    (spec,) = needed
    shape = (None,) * 4 if spec.shape is None else spec.shape
    takes = f"input '{spec.name}' takes {'?' if spec.dtype is None else spec.dtype.name} {shape_text(shape)}"
    if len(shape) != 4:
        raise DataError(f"{takes}, no images [N, C, H, W] or [N, H, W, C]", hint=LOADER_HINT)
    layout = options.layout or _layout(shape)
    channels = shape[1 if layout == "NCHW" else 3] or 3
    if channels not in CHANNELS:
        raise DataError(f"{takes}: {channels} channels in layout {layout}", hint=f"--layout; or {LOADER_HINT}")
    dtype = spec.dtype
    if dtype is None or not ((is_float(dtype) and dtype.kind != "c") or _holds_pixels(dtype)):
        raise DataError(f"{takes}, which pixels don't fit into", hint=LOADER_HINT)
    if not is_float(dtype) and (options.mean is not None or options.std is not None):
        raise DataError(f"{takes}: it gets pixels as they are, mean and std have no effect", hint="leave them out")
    mean, std = _tuple(options.mean) or (0.0,), _tuple(options.std) or (1.0,)
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise DataError(f"{takes}: {channels} channel, but mean or std has more", hint="give one number each")
    size = _size(shape[2:] if layout == "NCHW" else shape[1:3], options.size, takes)
    if isinstance(options.resize, int) and options.resize < max(size):
        raise DataError(
            f"resize {options.resize} is smaller than the image size {size[0]}x{size[1]}", hint="crop needs no number"
        )
    return ImageInput(spec.name, dtype, shape[0], size, channels, layout, mean, std, options.resize)


def _layout(shape: Sequence[int | None]) -> Layout:
    """Tell the order of the axes: where 1 or 3 channels are; NCHW where they may be on either side."""
    return "NHWC" if shape[3] in CHANNELS and shape[1] not in CHANNELS else "NCHW"


def _size(taken: Sequence[int | None], wanted: int | tuple[int, int] | None, takes: str) -> tuple[int, int]:
    """Return height and width: what the model takes, or what the user wants where it takes any."""
    sizes = (None, None) if wanted is None else _height_width(wanted)
    height, width = (model or user for model, user in zip(taken, sizes, strict=True))
    if height is None or width is None:
        raise DataError(f"{takes}: images of any size", hint="say which: --image-size 224, or HEIGHTxWIDTH")
    if wanted is not None and (height, width) != sizes:
        raise DataError(
            f"{takes}: images of {height}x{width}, not {sizes[0]}x{sizes[1]}", hint="leave out --image-size"
        )
    return height, width


def _holds_pixels(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" and bool(np.iinfo(dtype).max >= 255)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _tuple(values: float | tuple[float, ...] | None) -> tuple[float, ...]:
    return () if values is None else tuple(values) if isinstance(values, Sequence) else (values,)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _list(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
