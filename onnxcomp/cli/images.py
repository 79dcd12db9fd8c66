"""Options for folders of images, as people write them."""

import re

from onnxcomp.cli.configuration import file_values
from onnxcomp.cli.options import Layout
from onnxcomp.data import ImageOptions, Resize
from onnxcomp.errors import UsageError

__all__ = ["image_options"]


def image_options(
    *, size: str | None, mean: str | None, std: str | None, layout: Layout | None, resize: str | None
) -> ImageOptions | None:
    """Return the options that were given; None where there was none.

    Those that come from a file of defaults are not required to be used: it speaks to all commands.

    Args:
        size: As in ``224`` or ``224x192``, height first.
        mean: As in ``0.485,0.456,0.406``, or one number.
        std: As `mean`.
        layout: Order of the axes.
        resize: ``crop``, ``stretch`` or a number of pixels.

    Raises:
        UsageError: A text is not of its form, or its value makes no sense.
    """
    given = {"image_size": size, "mean": mean, "std": std, "layout": layout, "resize": resize}
    if all(value is None for value in given.values()):
        return None
    return ImageOptions(
        required=any(value is not None and file_values.get().get(name) != value for name, value in given.items()),
        size=None if size is None else _size(size),
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        layout=None if layout is None else layout.value,
        resize="crop" if resize is None else _resize(resize),
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", text)
    if match is None:
        raise UsageError(f"--image-size: not a size: {text!r}", hint="write it as in 224 or 224x192 (height first)")
    return int(match[1]), int(match[2] or match[1])


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise UsageError(f"{option}: not numbers: {text!r}", hint="write them as in 0.485,0.456,0.406") from err


def _resize(text: str) -> Resize:
    words: dict[str, Resize] = {"crop": "crop", "stretch": "stretch"}
    if text not in words and not re.fullmatch(r"[0-9]{1,6}", text):
        raise UsageError(f"--resize: unknown: {text!r}", hint="crop, stretch, or pixels of the smaller side")
    return words[text] if text in words else int(text)
