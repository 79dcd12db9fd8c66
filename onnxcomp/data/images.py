"""Samples from a folder of images, decoded one by one as they are needed; the only module that imports Pillow.

What becomes of an image: it is turned as its EXIF data says; the first frame of an animation counts; palettes, CMYK and
16 bits become 8-bit RGB (or grey), and what is transparent keeps the colour under it, as in torchvision and Keras; then
it is resized (bilinear, with antialiasing) and cropped.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data.batches import Batches
from onnxcomp.data.image_input import ImageOptions, Resize, image_input
from onnxcomp.data.image_list import ImageList
from onnxcomp.data.samples import Feed, InputSpec, Samples
from onnxcomp.errors import DataError, EnvironmentUnavailable

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFolder", "decode"]

# Of what Pillow reads, the formats that need no other program (as EPS does) and that images come in
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


class ImageFolder(Samples):
    """The images of a folder, in batches.

    Args:
        images: The images and their classes.
        inputs: Inputs of the model.
        batch: Images per run, where the input doesn't fix it.
        options: How images become values.

    Raises:
        DataError: An image can't be read, or the options don't fit the inputs.
        EnvironmentUnavailable: Pillow is not installed.
    """

    def __init__(self, images: ImageList, inputs: Sequence[InputSpec], *, batch: int, options: ImageOptions) -> None:
        self._images = images
        self._input = image_input(inputs, options)
        self._batches = Batches.of(len(images.files), batch=batch, fixed=self._input.batch, where=str(images.folder))
        for file in images.files:  # headers only: better than an error after minutes of work
            with _opened(file):
                pass

    def __iter__(self) -> Iterator[Feed]:
        return self.pick(range(self.length))

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """See `Samples.pick`: only the images that are wanted are read."""
        for run in runs:
            if run >= self.length:
                return
            files = self._images.files[slice(*self._batches.bounds(run))]
            yield {self._input.name: np.stack([self._values(file) for file in files])}

    def _values(self, file: Path) -> np.ndarray:
        return self._input.fill(
            decode(file, self._input.size, channels=self._input.channels, resize=self._input.resize)
        )

    @property
    def length(self) -> int:
        """See `Samples.length`."""
        return len(self._batches)

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        images, labels, folder = self._images, self._images.labels, self._images.folder
        what = f"{len(images.files)} {'image' if len(images.files) == 1 else 'images'}"
        if labels is not None:
            count = len(set(labels))
            what += f" of {count} {'class' if count == 1 else 'classes'}"
        others = (
            f", {images.ignored} other {'file' if images.ignored == 1 else 'files'} left out" if images.ignored else ""
        )
        return f"{folder.name or folder}, {self._batches.text(what)}{others}, {self._input.description}"

    def labels(self) -> list[np.ndarray] | None:
        """See `Samples.labels`: class numbers."""
        if self._images.labels is None:
            return None
        labels = np.array(self._images.labels, np.int64)
        return [labels[slice(*self._batches.bounds(run))] for run in range(self.length)]


def decode(file: Path, size: tuple[int, int], *, channels: int, resize: Resize = "crop") -> np.ndarray:
    """Read an image.

    Args:
        file: The image.
        size: Height and width that it gets.
        channels: 1 (grey) or 3 (red, green, blue).
        resize: See `ImageOptions`.

    Returns:
        Pixels, uint8 [height, width, channels].

    Raises:
        DataError: It can't be decoded.
        EnvironmentUnavailable: Pillow is not installed.
    """
    with _opened(file) as opened:
        from PIL import ImageOps

        image = _plain(ImageOps.exif_transpose(opened), file)
        image = _fit(image.convert("L" if channels == 1 else "RGB"), size, resize)
        return np.array(image).reshape(*size, channels)


@contextmanager
def _opened(file: Path) -> "Iterator[Image.Image]":
    """Open an image; whatever Pillow raises on it, here and while it is decoded, becomes a `DataError`."""
    try:
        from PIL import Image
    except ImportError as err:
        raise EnvironmentUnavailable("images need Pillow, which is not installed", hint="pip install pillow") from err
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what it could read all the same
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as image:
                yield image
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as err:
        raise DataError(f"{file}: the image is too large: {err}", hint="make it smaller") from err
    except Exception as err:  # on damaged bytes its decoders raise almost anything
        message = getattr(err, "strerror", None) or f"{err or type(err).__name__}"
        hint = "the file is damaged or no image: mend it or leave it out"
        raise DataError(f"{file}: can't be read as an image: {message}", hint=hint) from err


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this Pillow was built for."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _plain(image: "Image.Image", file: Path) -> "Image.Image":
    """Return an image of 8 bits without palette or transparency."""
    from PIL import Image

    if image.mode == "F":
        raise DataError(f"{file}: pixels are floats of unknown range", hint="save it as an image of 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{file}: pixels of more than 16 bits", hint="save it as an image of 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    image = image.convert(PREMULTIPLIED.get(image.mode, image.mode))
    if image.mode in ("P", "PA", "LA", "RGBA"):
        return image.convert("RGBA").convert("RGB")
    return image


def _fit(image: "Image.Image", size: tuple[int, int], resize: Resize) -> "Image.Image":
    """Resize and crop to height and width."""
    from PIL import Image

    height, width = size
    if resize == "stretch":
        grown = (width, height)
    elif resize == "crop":
        if height * image.width >= width * image.height:
            grown = (max(width, height * image.width // image.height), height)
        else:
            grown = (width, max(height, width * image.height // image.width))
    else:
        short = min(image.width, image.height)
        grown = (resize * image.width // short, resize * image.height // short)
    left, top = round((grown[0] - width) / 2), round((grown[1] - height) / 2)
    # The part of the image that is left when it is resized whole and then cropped: a long strip needs no long result
    across, down = image.width / grown[0], image.height / grown[1]
    box = (
        left * across,
        top * down,
        min((left + width) * across, image.width),
        min((top + height) * down, image.height),
    )
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
