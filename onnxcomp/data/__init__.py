"""Sample data: read as a stream from files or from a function of the user's, or made up."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from onnxcomp.data.image_input import ImageOptions, Resize
from onnxcomp.data.image_list import list_images
from onnxcomp.data.images import ImageFolder
from onnxcomp.data.loader import LOADER, LoaderSamples, as_loader
from onnxcomp.data.npz import NpzFolder, NpzRows
from onnxcomp.data.perturb import PERTURBATIONS, can_perturb, fitting, mixed, perturbed, shifted
from onnxcomp.data.samples import Feed, InputSpec, Samples, spread_runs
from onnxcomp.data.synthetic import DYNAMIC_SIZE, SyntheticSamples
from onnxcomp.errors import DataError
from onnxcomp.usercode import load_function, names_function

__all__ = [
    "PERTURBATIONS",
    "Feed",
    "ImageFolder",
    "ImageOptions",
    "InputSpec",
    "Resize",
    "Samples",
    "Source",
    "SyntheticSamples",
    "can_perturb",
    "fitting",
    "mixed",
    "open_samples",
    "perturbed",
    "shifted",
    "spread_runs",
    "synthetic",
]

Source = str | os.PathLike[str] | Callable[[], Iterable[object]] | Iterable[object]

FORMS = (
    "samples are an .npz file (one array per model input, first axis = samples), a folder of .npz files (one run "
    "each), FILE.py:function, which returns an iterable of runs (all with optional 'labels'), or a folder of images, "
    "with one sub-folder per class or none"
)


def open_samples(
    data: Source, inputs: Sequence[InputSpec], *, batch: int = 1, images: ImageOptions | None = None
) -> Samples:
    """Open samples for a model; everything that headers tell is checked now, values as they are read.

    Args:
        data: An ``.npz`` file: rows, the first axis of each array counts samples. A folder of ``.npz`` files: each
            is one run, given to the model unchanged. Or ``FILE.py:function`` or ``module:function``, which returns an
            iterable of runs (dictionaries of one array per input), also the function itself or a list of runs. Labels
            are the array ``labels``, unless that is a model input. Or a folder of images, with one sub-folder per class
            or none (`onnxcomp.data.image_list` says which class has which number).
        inputs: Inputs of the model.
        batch: Rows of an ``.npz`` file, or images, per run, where the model takes any number.
        images: How images become values; needed where the model doesn't say enough.

    Returns:
        The samples, as a stream that can be read again and again.

    Raises:
        DataError: The data isn't there, can't be read, or doesn't fit the model. Also while reading.
        EnvironmentUnavailable: Images are given, and Pillow is not installed.
    """
    if batch < 1:
        raise DataError(f"the batch must be 1 or more, got {batch}")
    if not isinstance(data, str | os.PathLike):
        return LoaderSamples(as_loader(data), inputs)
    path = Path(data)
    try:
        if path.is_dir():
            return _open_folder(path, inputs, batch, images or ImageOptions())
        if path.is_file() and path.suffix.lower() == ".npz":
            return NpzRows(path, inputs, batch=batch)
        if path.exists():
            raise DataError(f"{path}: not a form of samples that is understood", hint=FORMS)
    except (OSError, ValueError) as err:  # no right to look; a NUL in the name
        raise DataError(f"{data}: can't be read: {err}", hint=FORMS) from err
    if names_function(spec := os.fspath(data)):
        return LoaderSamples(load_function(spec, LOADER), inputs)
    raise DataError(f"{data}: no such file or folder", hint=FORMS)


def synthetic(
    inputs: Sequence[InputSpec],
    *,
    count: int,
    seed: int,
    batch: int = 1,
    bounds: Mapping[str, int] | None = None,
    batched: bool = True,
    named: bool = False,
    size: int = DYNAMIC_SIZE,
    positive: bool = False,
) -> SyntheticSamples:
    """Make up samples for a model, the same on each reading; `onnxcomp.data.synthetic` says which values.

    Args:
        inputs: Inputs of the model.
        count: Number of runs.
        seed: Seed, 0 or more.
        batch: Size of a first axis that is dynamic, where no other input fixes it.
        bounds: Upper bound (exclusive) of integer inputs, by name.
        batched: Whether a dynamic first axis is a batch; else it is as large as any other dynamic axis.
        named: Whether the names of the dimensions tell their sizes.
        size: Of a dynamic axis that is no batch.
        positive: Whether floats are uniform between 0 and 1.

    Returns:
        The samples.

    Raises:
        DataError: Values for an input can't be made up, or a setting makes no sense.
    """
    return SyntheticSamples(
        inputs,
        count=count,
        seed=seed,
        batch=batch,
        bounds=bounds or {},
        batched=batched,
        named=named,
        size=size,
        positive=positive,
    )


def _open_folder(path: Path, inputs: Sequence[InputSpec], batch: int, images: ImageOptions) -> Samples:
    # a name that begins with a dot is a leftover of the system or of an archive program
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.suffix.lower() == ".npz"]
    if files:
        return NpzFolder(path, files, inputs)
    if (listed := list_images(path)) is not None:
        return ImageFolder(listed, inputs, batch=batch, options=images)
    what = "an empty folder" if not entries else "neither .npz files nor images in the folder"
    raise DataError(f"{path}: {what}", hint=FORMS)
