"""Which images are in a folder, and which classes they are of.

::

    photos/cat/1.jpg            photos/1.jpg
    photos/cat/2.png            photos/2.png
    photos/dog/1.jpg

Left: one sub-folder per class. Right: images without labels. The number of a class is its place in ``classes.txt`` (one
name per line) where the folder has that file; else the folder's name, where all names are numbers; else its place among
the names, sorted. Names that begin with a dot are left out everywhere.

Classes take turns in the list, so that its beginning, too, has something of each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onnxcomp.errors import DataError

__all__ = ["ImageList", "list_images"]

SUFFIXES = frozenset({".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
                      ".pnm", ".ppm", ".tif", ".tiff", ".webp"})  # fmt: skip
CLASSES = "classes.txt"


@dataclass(frozen=True, slots=True)
class ImageList:
    """The images of a folder.

    Attributes:
        folder: The folder.
        files: The images.
        labels: The class of each, from 0; None where there are no classes.
        ignored: How many files and folders beside them are left out.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    ignored: int


def list_images(folder: Path) -> ImageList | None:
    """List the images of a folder; None where there are none.

    Raises:
        DataError: There are images, but which classes they are of can't be told.
        OSError: A folder can't be read.
    """
    images, others = _look(folder)
    classes = {path: _look(path) for path in others if path.is_dir()}
    filled = [path for path, (inside, _) in classes.items() if inside]
    if images:
        if filled:
            raise DataError(
                f"{folder}: images beside a folder of images ({filled[0].name})",
                hint="put each image into the folder of its class, or name a folder of images alone",
            )
        return ImageList(folder, tuple(images), None, len(others))
    if not filled:
        deep = [path for path, (_, inside) in classes.items() if any(_look(sub)[0] for sub in inside if sub.is_dir())]
        if deep:
            raise DataError(
                f"{folder}: {deep[0].name} holds folders of images, no images",
                hint=f"name the folder whose sub-folders are the classes: {deep[0]}",
            )
        return None
    numbers = _numbers(folder, list(classes), filled)
    found = [
        (place, numbers[path], file) for path in filled for place, file in enumerate(classes[path][0])
    ]  # ordered by place first: classes take turns
    found.sort()
    listed = sum(1 for path in others if path.name == CLASSES)
    ignored = len(others) - len(classes) - listed + sum(len(classes[path][1]) for path in filled)
    return ImageList(folder, tuple(file for _, _, file in found), tuple(number for _, number, _ in found), ignored)


def _look(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and its other entries, sorted by name."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    taken = set(images)
    return images, [entry for entry in entries if entry not in taken]


def _numbers(folder: Path, classes: list[Path], filled: list[Path]) -> dict[Path, int]:
    """Return the class number of each folder that has images."""
    if (listed := folder / CLASSES).is_file():
        return _listed_numbers(listed, filled)
    if all(path.name.isascii() and path.name.isdecimal() for path in filled):
        _refuse_twice(folder, (int(path.name) for path in filled), "class number")
        return {path: int(path.name) for path in filled}
    empty = sorted(set(classes) - set(filled))
    if empty:
        raise DataError(
            f"{empty[0]}: no images, and without it the classes behind it would get other numbers",
            hint=f"delete the folder if it is no class, or list all classes in {folder / CLASSES}, one name per line",
        )
    return {path: number for number, path in enumerate(filled)}


def _listed_numbers(listed: Path, filled: list[Path]) -> dict[Path, int]:
    try:
        names = [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as err:
        raise DataError(f"{listed}: is no UTF-8 text: {err}", hint="write one class name per line") from err
    _refuse_twice(listed, filter(None, names), "class")
    numbers = {name: number for number, name in enumerate(names)}
    missing = [path for path in filled if path.name not in numbers]
    if missing:
        raise DataError(
            f"{listed}: the folder {missing[0].name} is not in it", hint="list every class folder, one name per line"
        )
    return {path: numbers[path.name] for path in filled}


def _refuse_twice(where: Path, names: Iterable[object], what: str) -> None:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: the {what} {name} is there twice", hint="each class has one name and one folder")
        seen.add(name)
