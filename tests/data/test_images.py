"""Folders of images: which are listed, what becomes of their pixels, and what is refused."""

import io
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxcomp.api import optimize
from onnxcomp.cli.app import build_app, run
from onnxcomp.cli.images import image_options
from onnxcomp.cli.options import Layout
from onnxcomp.data import ImageOptions, InputSpec, Samples, open_samples
from onnxcomp.data.images import decode
from onnxcomp.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")

F32, U8 = np.dtype(np.float32), np.dtype(np.uint8)
RGB = InputSpec("x", U8, (None, 3, 8, 8))
GREY = InputSpec("x", U8, (None, 1, 8, 8))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def picture(path: Path, pixels: np.ndarray | int = 0, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((8, 8, 3), pixels, np.uint8) if isinstance(pixels, int) else pixels
    Image.fromarray(array).save(path, **settings)
    return path


def values(samples: Samples) -> list[int]:
    """The first value of each image, in order."""
    return [int(image.flat[0]) for feed in samples for image in feed["x"]]


def classes(samples: Samples) -> list[int]:
    labels = samples.labels()
    assert labels is not None
    return np.concatenate(labels).tolist()


# --- which images, which classes


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name, shades in {"b": (10, 11, 12), "a": (20,), "c": (30, 31)}.items():
        for shade in shades:
            picture(tmp_path / name / f"{shade}.png", shade)
    (tmp_path / ".hidden").mkdir()
    picture(tmp_path / "a" / ".trash.png")
    (tmp_path / "a" / "note.txt").write_text("no image")
    samples = open_samples(tmp_path, [RGB], batch=4)
    assert values(samples) == [20, 10, 30, 11, 31, 12]  # classes take turns
    assert classes(samples) == [0, 1, 2, 1, 2, 1]
    assert [len(feed["x"]) for feed in samples] == [4, 2]
    assert values(samples.pick([1, 9])) == [31, 12]
    assert samples.description == (
        f"{tmp_path.name}, 6 images of 3 classes in batches of 4, 1 other file left out, "
        "RGB 8x8 (crop), pixels as they are, NCHW"
    )


def test_a_folder_of_images_has_no_labels(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        picture(tmp_path / f"{number}.PNG", number)
    samples = open_samples(tmp_path, [InputSpec("x", U8, (2, 3, 8, 8))])
    assert values(samples) == [1, 2]  # the model takes two at a time
    assert samples.labels() is None
    assert "3 images in batches of 2 (the last 1 left out: the model takes 2 at a time), RGB" in samples.description


def test_folders_called_by_class_numbers(tmp_path: Path) -> None:
    for number in ("10", "9", "007"):
        picture(tmp_path / number / "i.png", int(number))
    (tmp_path / "3").mkdir()  # a class without images does no harm: numbers are numbers
    samples = open_samples(tmp_path, [RGB])
    assert classes(samples) == values(samples) == [7, 9, 10]
    picture(tmp_path / "7" / "i.png")
    with pytest.raises(DataError, match="class number 7 is there twice"):
        open_samples(tmp_path, [RGB])


def test_the_order_of_a_list_of_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        picture(tmp_path / name / "i.png", number)
    (tmp_path / "dog").mkdir()
    listed = tmp_path / "classes.txt"
    listed.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n\r\nbee\r\nant\r\n")
    samples = open_samples(tmp_path, [RGB])
    assert (classes(samples), values(samples)) == ([0, 3, 4], [2, 1, 0])
    assert "left out" not in samples.description
    for text, says in ((b"cat\nbee\n", "folder ant is not in it"), (b"a\na", "class a is there"), (b"\xff", "UTF-8")):
        listed.write_bytes(text)
        with pytest.raises(DataError, match=says):
            open_samples(tmp_path, [RGB])


@pytest.mark.parametrize(
    ("files", "folders", "says"),
    [
        (["1.png", "a/1.png"], [], "images beside a folder of images (a)"),
        (["a/1.png"], ["b"], "b: no images, and without it"),
        (["train/a/1.png", "val/a/1.png"], [], "train holds folders of images"),
        ([], ["a"], "neither .npz files nor images"),
        ([], [], "an empty folder"),
    ],
)
def test_folders_that_are_not_understood(files: list[str], folders: list[str], says: str, tmp_path: Path) -> None:
    for name in files:
        picture(tmp_path / name)
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path, [RGB])
    assert says in str(caught.value)
    assert caught.value.hint


# --- pixels and values


def only(folder: Path, spec: InputSpec, **options: Any) -> np.ndarray:
    (feed,) = open_samples(folder, [spec], images=ImageOptions(**options))
    return feed[spec.name]


def test_integer_inputs_get_pixels_and_float_inputs_get_them_scaled(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    picture(tmp_path / "i.png", pixels)
    nchw = pixels.transpose(2, 0, 1)[None]
    for dtype in (U8, np.dtype(np.int64), np.dtype(np.uint16)):
        got = only(tmp_path, InputSpec("x", dtype, (None, 3, 8, 8)))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, nchw)
    np.testing.assert_allclose(only(tmp_path, InputSpec("x", F32, (1, 3, 8, 8))), nchw / 255, rtol=1e-6)
    half = only(tmp_path, InputSpec("x", np.dtype(np.float16), (1, 3, 8, 8)), mean=0.5, std=(0.5,))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, nchw / 127.5 - 1, atol=1e-3)
    wanted = ((pixels / 255 - MEAN) / STD)[None]
    got = only(tmp_path, InputSpec("x", F32, (None, 8, 8, 3)), mean=MEAN, std=STD)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        ((None, 3, 8, 6), {}, (1, 3, 8, 6)),
        ((None, 8, 6, 3), {}, (1, 8, 6, 3)),
        ((None, None, None, 3), {"size": (4, 5)}, (1, 4, 5, 3)),
        ((None, None, None, 1), {"size": 4}, (1, 4, 4, 1)),
        ((None, 1, None, 6), {"size": (5, 6)}, (1, 1, 5, 6)),
        ((None, None, None, None), {"size": 4}, (1, 3, 4, 4)),
        ((None, None, None, None), {"size": 4, "layout": "NHWC"}, (1, 4, 4, 3)),
        (None, {"size": 4, "layout": "NCHW"}, (1, 3, 4, 4)),
        ((None, 3, 8, 8), {"size": 8, "layout": "NCHW", "resize": 9}, (1, 3, 8, 8)),
    ],
)
def test_size_layout_and_channels(
    shape: tuple[int | None, ...] | None, options: dict[str, Any], wanted: tuple[int, ...], tmp_path: Path
) -> None:
    picture(tmp_path / "i.png", noise(10, 12))
    assert only(tmp_path, InputSpec("x", F32, shape), **options).shape == wanted


def left_to_right(height: int, width: int) -> np.ndarray:
    """Brightness grows from left to right, and is the same from top to bottom."""
    return np.tile(np.arange(width, dtype=np.uint8) * (240 // width), (height, 1))


def test_crop_takes_the_middle_and_stretch_all(tmp_path: Path) -> None:
    wide = left_to_right(20, 40)
    file = picture(tmp_path / "i.png", wide)
    np.testing.assert_array_equal(decode(file, (20, 20), channels=1)[..., 0], wide[:, 10:30])
    np.testing.assert_array_equal(decode(file, (20, 40), channels=1)[..., 0], wide)
    np.testing.assert_array_equal(decode(file, (10, 10), channels=1, resize=20)[..., 0], wide[5:15, 15:25])
    stretched = decode(file, (20, 20), channels=1, resize="stretch")[5, :, 0]
    assert stretched[0] <= 6
    assert stretched[-1] >= 228
    tall = picture(tmp_path / "t.png", wide.T.copy())
    np.testing.assert_array_equal(decode(tall, (20, 20), channels=1)[..., 0], wide.T[10:30])


@pytest.mark.parametrize("height", [1, 30, 33, 40, 500])
@pytest.mark.parametrize("width", [1, 30, 47, 400])
@pytest.mark.parametrize(("size", "resize"), [((30, 30), "crop"), ((30, 30), 34), ((20, 31), "crop"), ((20, 31), 36)])
def test_it_is_what_resizing_the_whole_and_then_cropping_gives(
    height: int, width: int, size: tuple[int, int], resize: Any, tmp_path: Path
) -> None:
    pixels = np.clip(np.add.outer(np.arange(height) * 3, np.arange(width) * 2) % 256, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    scale = resize / min(height, width) if resize != "crop" else max(size[0] / height, size[1] / width)
    whole = (int(width * scale + 1e-9), int(height * scale + 1e-9))
    left, top = (round((whole[i] - size[1 - i]) / 2) for i in (0, 1))
    wanted = image.resize(whole, Image.Resampling.BILINEAR).crop((left, top, left + size[1], top + size[0]))
    got = decode(picture(tmp_path / "i.png", pixels), size, channels=1, resize=resize)[..., 0]
    assert np.abs(got.astype(int) - np.asarray(wanted)).max() <= 1  # a level of 255: rounding


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    file = picture(tmp_path / f"i.{suffix}", pixels)
    assert np.abs(decode(file, (8, 8), channels=3).astype(int) - pixels).max() <= 3


def saved(path: Path, image: Any, **settings: Any) -> Path:
    image.save(path, **settings)
    return path


def test_modes_become_rgb_and_grey(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    image = Image.fromarray(pixels)
    luma = np.asarray(image.convert("L"))
    palette = image.quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    files = {
        "RGBA": (saved(tmp_path / "rgba.png", Image.fromarray(np.dstack([pixels, noise(8, 8, 1)]))), pixels),
        "P": (saved(tmp_path / "p.png", palette), expected),
        "P with transparency": (saved(tmp_path / "pt.png", palette, transparency=bytes(range(16))), expected),
        "CMYK": (saved(tmp_path / "cmyk.tif", image.convert("CMYK")), pixels),
        "L": (saved(tmp_path / "l.png", image.convert("L")), np.dstack([luma] * 3)),
        "LA": (saved(tmp_path / "la.png", image.convert("LA")), np.dstack([luma] * 3)),
        "1": (saved(tmp_path / "1.png", image.convert("1")), np.dstack([np.asarray(image.convert("1")) * 255] * 3)),
    }
    for mode, (file, wanted) in files.items():
        assert np.abs(decode(file, (8, 8), channels=3).astype(int) - wanted).max() <= 1, mode
        grey = np.asarray(Image.fromarray(wanted.astype(np.uint8)).convert("L"))
        assert np.abs(decode(file, (8, 8), channels=1)[..., 0].astype(int) - grey).max() <= 1, mode


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    shades = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    for file in (
        saved(tmp_path / "i.png", Image.fromarray(shades)),
        saved(tmp_path / "i.tif", Image.fromarray(shades)),
        saved(tmp_path / "j.tif", Image.fromarray(shades.astype(np.int32))),
    ):
        np.testing.assert_array_equal(decode(file, (8, 8), channels=1)[..., 0], np.round(shades / 257))


def test_an_image_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    upright = np.repeat(left_to_right(16, 8)[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    lying = picture(tmp_path / "i.png", np.rot90(upright).copy(), exif=exif)
    np.testing.assert_array_equal(decode(lying, (16, 8), channels=3), upright)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), shade, np.uint8)) for shade in (40, 200)]
    frames[0].save(tmp_path / "i.gif", save_all=True, append_images=frames[1:])
    assert set(decode(tmp_path / "i.gif", (8, 8), channels=1).flat) == {40}


def test_one_image_is_held_at_a_time(tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / f"{number}.png", noise(256, 256, seed=number))
    samples = open_samples(tmp_path, [InputSpec("x", F32, (None, 3, 256, 256))])
    next(iter(samples))  # Pillow's modules are loaded
    tracemalloc.start()
    for _ in samples:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 256 * 256 * 3 * 4  # eight of thirty


# --- what is refused


def test_images_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    good = picture(tmp_path / "good" / "a.png", noise(64, 64)).read_bytes()
    float_image = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.float32)).save(float_image, "TIFF")
    big_values = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(big_values, "TIFF")
    bomb = Image.new("1", (40_000, 40_000))
    packed = io.BytesIO()
    bomb.save(packed, "PNG")
    for name, content, says in (
        ("empty.png", b"", "cannot identify"),
        ("text.jpg", b"no image at all", "cannot identify"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
        ("cut.png", good[: len(good) // 2], "can't be read as an image"),
        ("float.tif", float_image.getvalue(), "floats of unknown range"),
        ("big.tif", big_values.getvalue(), "more than 16 bits"),
        ("bomb.png", packed.getvalue(), "too large"),
    ):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=says) as caught:
            list(open_samples(folder, [RGB]))
        assert name in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize("seed", range(40))
def test_damaged_images_are_our_errors(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    file = picture(tmp_path / f"i.{('png', 'jpg', 'gif', 'tif', 'webp')[seed % 5]}", noise(24, 24))
    content = bytearray(file.read_bytes())
    for _ in range(rng.integers(1, 6)):
        content[rng.integers(len(content))] = rng.integers(256)
    file.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
    try:
        assert decode(file, (8, 8), channels=3).shape == (8, 8, 3)
    except DataError as err:
        assert file.name in str(err)  # noqa: PT017 - both outcomes are fine: the damage may be where it does no harm


@pytest.mark.parametrize(
    ("specs", "options", "says"),
    [
        ([RGB, InputSpec("y", F32, (1,))], {}, "the model has 2: 'x', 'y'"),
        ([InputSpec("x", F32, (None, 784))], {}, "no images [N, C, H, W] or [N, H, W, C]"),
        ([InputSpec("x", F32, (1, 4, 8, 8))], {}, "4 channels in layout NCHW"),
        ([InputSpec("x", F32, (1, 3, 8, 8))], {"layout": "NHWC"}, "8 channels in layout NHWC"),
        ([InputSpec("x", np.dtype(np.int8), (1, 3, 8, 8))], {}, "int8 [1, 3, 8, 8], which pixels don't fit into"),
        ([InputSpec("x", np.dtype(bool), (1, 3, 8, 8))], {}, "which pixels don't fit into"),
        ([InputSpec("x", None, (1, 3, 8, 8))], {}, "which pixels don't fit into"),
        ([RGB], {"mean": 0.5}, "mean and std have no effect"),
        ([RGB], {"std": STD}, "mean and std have no effect"),
        ([InputSpec("x", F32, (1, 1, 8, 8))], {"mean": MEAN}, "1 channel, but mean or std has more"),
        ([InputSpec("x", F32, (1, 3, None, None))], {}, "images of any size"),
        ([InputSpec("x", F32, (1, 3, 8, None))], {"size": 9}, "images of 8x9, not 9x9"),
        ([RGB], {"size": 9}, "images of 8x8, not 9x9"),
        ([RGB], {"resize": 7}, "resize 7 is smaller than the image size 8x8"),
        ([InputSpec("x", U8, (2, 3, 8, 8))], {}, "the model takes batches of 2"),
    ],
)
def test_models_and_options_that_do_not_fit(
    specs: list[InputSpec], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    picture(tmp_path / "i.png")
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path, specs, images=ImageOptions(**options))
    assert says in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0}, {"size": (8, -1)}, {"size": (8,)}, {"size": 8.0}, {"size": True}, {"mean": (1, 2)},
        {"mean": float("nan")}, {"mean": ()}, {"mean": (123.7, 116.3, 103.5)}, {"mean": "0.5"}, {"std": 0},
        {"std": (1, 1, -1)}, {"std": float("inf")}, {"layout": "CHW"}, {"resize": "squeeze"}, {"resize": 0},
        {"resize": 2.5},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        ImageOptions(**wrong)
    assert caught.value.hint


def test_options_as_people_write_them() -> None:
    nothing = {"size": None, "mean": None, "std": None, "layout": None, "resize": None}
    assert image_options(**nothing) is None  # type: ignore[arg-type]
    given = image_options(size="8x6", mean="0.1,0.2,-0.3", std="0.5", layout=Layout.NHWC, resize="9")
    assert given == ImageOptions(size=(8, 6), mean=(0.1, 0.2, -0.3), std=(0.5,), layout="NHWC", resize=9)
    assert image_options(**{**nothing, "size": "8"}) == ImageOptions(size=(8, 8))  # type: ignore[arg-type]
    for wrong in ({"size": "8x"}, {"size": "big"}, {"size": "0"}, {"mean": "a"}, {"std": "1,,2"}, {"resize": "up"}):
        with pytest.raises(UsageError) as caught:
            image_options(**{**nothing, **wrong})  # type: ignore[arg-type]
        assert caught.value.hint


def test_without_pillow_the_hint_says_how_to_install_it(sample_models: Path, tmp_path: Path) -> None:
    picture(tmp_path / "images" / "i.png", noise(28, 28, 1))
    program = (
        "import sys\nsys.modules['PIL'] = None\nimport onnxcomp.cli\n"
        f"sys.argv = ['onnxcomp', 'optimize', {str(sample_models / 'lenet5' / 'model.onnx')!r}, "
        f"'--eval', {str(tmp_path / 'images')!r}, '-o', {str(tmp_path / 'o.onnx')!r}]\nonnxcomp.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "Pillow" in done.stderr
    assert "pip install pillow" in done.stderr
    assert not (tmp_path / "o.onnx").exists()


# --- end to end


@pytest.fixture(scope="module")
def clothes(sample_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample data as folders of PNG: the first images of calibration.npz, and of eval.npz by class."""
    root = tmp_path_factory.mktemp("clothes")
    data = sample_models / "fashion_mnist"
    with np.load(data / "calibration.npz") as rows:
        for number, image in enumerate(rows["image"][:40]):
            picture(root / "calibration" / f"{number:03}.png", image[0])
    with np.load(data / "eval.npz") as rows:
        images, labels = rows["image"][:300], rows["labels"][:300]
    order = []  # of the rows, as the folder gives them
    for label in range(10):
        for place, number in enumerate(np.flatnonzero(labels == label)):
            picture(root / "eval" / str(label) / f"{number:03}.png", images[number][0])
            order.append((place, label, number))
    rows_in_order = [number for _, _, number in sorted(order)]
    np.savez(root / "eval.npz", image=images[rows_in_order], labels=labels[rows_in_order])
    return root


def test_optimize_with_images_scores_as_with_arrays(clothes: Path, sample_models: Path, tmp_path: Path) -> None:
    model = sample_models / "resnet8" / "model.onnx"
    spec = InputSpec("image", U8, (None, 1, 28, 28))
    folder, archive = (open_samples(clothes / name, [spec], batch=10) for name in ("eval", "eval.npz"))
    for from_image, from_array in zip(folder, archive, strict=True):
        np.testing.assert_array_equal(from_image["image"], from_array["image"])
    assert classes(folder) == classes(archive)
    call = [
        "optimize",
        model,
        "--calibration",
        clothes / "calibration",
        "--eval",
        clothes / "eval",
        "--batch",
        "10",
        "--technique",
        "static",
    ]
    assert run(build_app(), [*map(str, call), "--resize", "stretch", "-o", str(tmp_path / "o.onnx"), "-q"]) == 0
    settings: dict[str, Any] = {
        "calibration": clothes / "calibration",
        "batch": 10,
        "time_budget": 30,
        "techniques": ["static"],
    }
    reports = [optimize(model, eval=clothes / name, **settings).report for name in ("eval", "eval.npz")]
    scores = [report.outcome.original_quality.score for report in reports]
    assert scores[0] == scores[1]
    assert scores[0] is not None
    assert scores[0] > 0.9
    assert "grey 28x28 (crop), pixels as they are, NCHW" in reports[0].settings.evaluation


def test_image_options_without_images_are_refused(
    clothes: Path, sample_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["optimize", str(sample_models / "lenet5" / "model.onnx"), "-o", str(tmp_path / "o.onnx")]
    assert run(build_app(), [*call, "--image-size", "28", "--eval", str(clothes / "eval.npz")]) == 2
    assert "no folder of images" in capsys.readouterr().err
    assert run(build_app(), [*call, "--image-size", "32", "--eval", str(clothes / "eval")]) == 2
    assert "images of 28x28, not 32x32" in capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    "command",
    [
        "optimize MODEL --eval EVAL -o OUT",
        "quantize MODEL --mode dynamic --eval EVAL --no-bench -o OUT",
        "compare MODEL MODEL --eval EVAL",
        "inspect MODEL --calibration EVAL",
        "bench MODEL --data EVAL",
    ],
)
def test_every_command_takes_the_options(
    command: str, clothes: Path, sample_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"MODEL": sample_models / "lenet5" / "model.onnx", "EVAL": clothes / "eval", "OUT": tmp_path / "o.onnx"}
    call = [str(names.get(word, word)) for word in command.split()]
    for options, says in (
        ("--image-size 32", "images of 28x28, not 32x32"),
        ("--mean 0.5", "mean and std have no effect"),
        ("--std 0.5", "mean and std have no effect"),
        ("--layout NHWC", "layout NHWC"),
        ("--resize 20", "resize 20 is smaller"),
        ("--resize up", "--resize: unknown: 'up'"),
    ):
        assert run(build_app(), [*call, *options.split()]) == 2
        assert says in capsys.readouterr().err
    without = [word if word != str(names["EVAL"]) else str(clothes / "eval.npz") for word in call]
    assert run(build_app(), [*without, "--image-size", "28"]) == 2
    assert "no folder of images" in capsys.readouterr().err
