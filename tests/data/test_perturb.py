"""Disturbances: known effects, the right inputs, severities that grow."""

import numpy as np
import pytest

from onnxcomp.data import PERTURBATIONS, can_perturb, fitting, mixed, perturbed, shifted

IMAGES = {"NCHW": (2, 3, 16, 12), "NHWC": (2, 16, 12, 3)}


def images(layout: str, dtype: type) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, IMAGES[layout]).astype(dtype)


@pytest.mark.parametrize("kind", PERTURBATIONS)
@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_severity_is_stronger(kind: str, layout: str, dtype: type) -> None:
    feed = {"x": images(layout, dtype), "n": np.array([3])}
    before = feed["x"].copy()
    distances = []
    for strength in PERTURBATIONS[kind].severities:
        found = perturbed(feed, kind, strength, np.random.default_rng(1))
        assert found["n"] is feed["n"]
        assert (found["x"].dtype, found["x"].shape) == (feed["x"].dtype, feed["x"].shape)
        distances.append(float(np.square(found["x"].astype(np.float64) - before).mean()))
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]
    assert (feed["x"] == before).all()


def test_the_same_seed_gives_the_same() -> None:
    feed = {"x": images("NCHW", np.float32)}
    one, two, other = (perturbed(feed, "occlusion", 0.1, np.random.default_rng(seed))["x"] for seed in (3, 3, 4))
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.parametrize("layout", IMAGES)
def test_occlusion_covers_its_share_of_all_channels(layout: str) -> None:
    values = images(layout, np.float64)
    found = perturbed({"x": values}, "occlusion", 0.25, np.random.default_rng(0))["x"]
    channels = 1 if layout == "NCHW" else 3
    changed = np.moveaxis(found != values, channels, -1)
    assert changed.mean() == pytest.approx(8 * 6 / (16 * 12))
    assert (changed.all(axis=-1) == changed.any(axis=-1)).all()


@pytest.mark.parametrize("layout", IMAGES)
def test_images_are_moved_as_a_whole_and_nothing_else_is(layout: str) -> None:
    feed = {"x": images(layout, np.uint8), "n": np.arange(4)}
    first = 2 if layout == "NCHW" else 1
    edge = [(0, 0)] * first + [(3, 3), (3, 3)] + [(0, 0)] * (2 - first)
    wide = np.pad(feed["x"], edge, mode="edge")
    ways = set()
    for seed in range(30):
        found = shifted(feed, 0.25, np.random.default_rng(seed))
        assert found["n"] is feed["n"]
        assert found["x"].dtype == np.uint8
        ways |= {
            (down, right)
            for down in range(7)
            for right in range(7)
            if np.array_equal(
                wide.take(range(down, down + 16), first).take(range(right, right + 12), first + 1), found["x"]
            )
        }
    assert len(ways) > 10
    assert {abs(way - 3) for pair in ways for way in pair} == {0, 1, 2, 3}
    assert (shifted(feed, 0.0, np.random.default_rng(0))["x"] == feed["x"]).all()


def test_blur_keeps_the_mean_of_an_even_image_and_mixes_no_channels() -> None:
    values = np.zeros((1, 2 + 1, 16, 16), np.float32)
    values[0, 1] = 1
    assert np.allclose(perturbed({"x": values}, "blur", 0.1, np.random.default_rng(0))["x"], values, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "noise", "blur"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), True, True),
        (np.zeros((1, 3, 8, 7), np.float32), True, False),
        (np.zeros((1, 5, 8, 8), np.float32), True, False),
        (np.zeros((1, 80), np.float32), True, False),
        (np.zeros((1, 3, 8, 8), np.int64), False, False),
        (np.zeros((0, 3, 8, 8), np.float32), False, False),
    ],
)
def test_what_fits(value: np.ndarray, noise: bool, blur: bool) -> None:
    assert (can_perturb(value), can_perturb(value, "blur")) == (noise, blur)
    assert ("blur" in fitting({"x": value})) == blur


def test_images_of_one_shape_are_mixed_and_nothing_else_is() -> None:
    rng = np.random.default_rng(0)
    feeds = [
        {
            "bytes": rng.integers(0, 256, (1, 3, 8, 8)).astype(np.uint8),
            "image": rng.random((1, 8, 8, 1), dtype=np.float32),
            "ids": rng.integers(0, 9, (1, 5)),
            "wide": rng.random((1, 3, 8, 8 + run), dtype=np.float32),
        }
        for run in range(2)
    ]
    ways = set()
    for seed in range(20):
        found = mixed(*feeds, 0.25, np.random.default_rng(seed))
        for name in ("bytes", "image"):
            blend = 0.75 * feeds[0][name] + 0.25 * feeds[1][name]
            changed = (found[name] != feeds[0][name]).any(axis=(0, 1 if name == "bytes" else 3))
            pasted = np.isin(found[name], feeds[1][name]) | (found[name] == feeds[0][name])
            ways.add("blended" if np.allclose(found[name], blend, atol=0.51) and changed.mean() > 0.5 else "pasted")
            assert found[name].dtype == feeds[0][name].dtype
            assert np.allclose(found[name], blend, atol=0.51) or (pasted.all() and changed.sum() == 16)
        for name in ("ids", "wide"):
            assert found[name] is feeds[0][name]
    assert ways == {"blended", "pasted"}
