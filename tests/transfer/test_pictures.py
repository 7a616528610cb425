"""Pictures of any size and colours as arrays of one shape."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer import resize


def smaller(pixels: NDArray[np.float64], size: int, axis: int, side: int) -> NDArray[np.float64]:
    """The middle `side` pixels of an axis as fewer: each the mean of those under a triangle as wide as two of them."""
    scale, start = side / size, (pixels.shape[axis] - side) / 2
    centres, places = start + (np.arange(size) + 0.5) * scale, np.arange(pixels.shape[axis]) + 0.5
    weights = (1 - np.abs(places - centres[:, None]) / scale).clip(0)
    return np.moveaxis(np.tensordot(weights / weights.sum(axis=1, keepdims=True), pixels, (1, axis)), 0, axis)


@pytest.mark.parametrize("shape", [(24, 24, 3), (24, 40, 3), (50, 24, 3)])
def test_the_middle_square_is_scaled(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    narrow = smaller(pixels.astype(np.float64), 8, 0, min(shape[:2]))
    expected = smaller(narrow, 8, 1, min(shape[:2])).transpose(2, 0, 1) / 255
    found = resize([pixels], size=8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=1.5 / 255)  # Pillow rounds to whole numbers, along each axis


def test_height_and_width_may_differ_and_rows_are_alone(rng: np.random.Generator) -> None:
    rows = [
        rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 7, 3), (30, 60), (5, 5, 4), (6, 8, 2), (4, 4, 1))
    ]
    found = resize(rows, size=(6, 10))
    assert found.shape == (5, 3, 6, 10)
    for row, array in zip(rows, found, strict=True):
        np.testing.assert_array_equal(resize([row], size=(6, 10))[0], array)


def test_colours_become_what_channels_says(rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    for channels in (1, 3):
        same = resize([grey, grey[..., None], np.stack([grey] * 3, axis=2)], size=8, channels=channels)
        np.testing.assert_allclose(same, np.broadcast_to(grey / 255, (3, channels, 8, 8)), atol=1e-6)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert resize([red], size=4, channels=1)[0] == pytest.approx(0.299, abs=0.002)  # luma of ITU-R 601


def test_what_is_transparent_is_white() -> None:
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[:2, :, 3] = 255
    found = resize([picture, picture[..., [0, 3]]], size=4)
    np.testing.assert_array_equal(found[:, :, :2], 0)
    np.testing.assert_array_equal(found[:, :, 2:], 1)


@pytest.mark.parametrize("row", ["text", None, np.zeros((4, 4), np.uint16), np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_picture_of_8_bits_is_refused(row: object) -> None:
    with pytest.raises(TransferSetError, match="resize takes one column of images of 8 bits, not "):
        resize([row], size=4)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "settings",
    [{"size": size} for size in (0, [4], [4, 2.5], 1 << 20, 2.5, "64", None, {"height": 4, "width": 4})]
    + [{"size": 4, "channels": channels} for channels in (2, True, [3])],
)
def test_sizes_and_channels_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.init_args\.\w+ of resize is"):
        resize([np.zeros((4, 4), np.uint8)], **settings)  # type: ignore[arg-type]
