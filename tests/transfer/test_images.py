from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pyarrow as pa
import pytest
import xxhash

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import decode
from softlabels.transfer.images import decode_image
from softlabels.transfer.keys import content_keys

FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def coded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def column(*files: bytes | str) -> pa.ChunkedArray:
    rows = [{"bytes": None, "path": file} if isinstance(file, str) else {"bytes": file, "path": None} for file in files]
    return pa.chunked_array([pa.array(rows, FILE)])


def keys(*files: bytes | str) -> list[bytes]:
    return [key.tobytes() for key in content_keys([decode(column(*files), name="image", start=0)])]


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (9, 7, 4)])
def test_pixels_come_back_exactly(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    found, hashed = decode_image(coded(PIL.Image.fromarray(pixels), "PNG"))
    assert hashed is found
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_deep_grey_pixels_keep_16_bits(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 2**16, (5, 6)).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found, _ = decode_image(coded(PIL.Image.fromarray(pixels), kind))
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == np.uint16


def test_lossless_files_of_the_same_pixels_share_a_key(rng: np.random.Generator) -> None:
    image = PIL.Image.fromarray(rng.integers(0, 256, (16, 12, 3)).astype(np.uint8))
    files = [coded(image, "PNG", compress_level=level) for level in (0, 9)]
    files += [
        coded(image, "BMP"),
        coded(image, "PPM"),
        coded(image, "TIFF"),
        coded(image, "TIFF", compression="tiff_lzw"),
    ]
    assert len(set(files)) == len(files)
    assert len(set(keys(*files))) == 1


def test_another_pixel_is_another_key(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (8, 8)).astype(np.uint8)
    other = pixels.copy()
    other[3, 5] += 1
    assert len(set(keys(coded(PIL.Image.fromarray(pixels), "PNG"), coded(PIL.Image.fromarray(other), "PNG")))) == 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "jpeg"}), ("JPEG2000", {})],
)
def test_lossy_files_count_as_their_bytes(rng: np.random.Generator, kind: str, options: dict[str, object]) -> None:
    image = PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
    file = coded(image, kind, **options)
    assert keys(file) == [xxhash.xxh3_128_digest(file)]


def test_a_palette_is_resolved() -> None:
    colours = PIL.Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    paletted = colours.quantize(16)
    assert paletted.mode == "P"
    assert keys(coded(paletted, "PNG")) == keys(coded(paletted.convert("RGB"), "PNG")) == keys(coded(paletted, "GIF"))
    seen, _ = decode_image(coded(paletted, "PNG", transparency=0))
    assert seen.shape == (4, 4, 4)


def test_an_image_is_turned_as_its_exif_says(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    image = PIL.Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned a quarter, clockwise
    found, _ = decode_image(coded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))


def test_a_file_named_by_path_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    file = coded(PIL.Image.fromarray(rng.integers(0, 256, (4, 6)).astype(np.uint8)), "PNG")
    (tmp_path / "a.png").write_bytes(file)
    assert keys(str(tmp_path / "a.png")) == keys(file)


def bad_files() -> dict[str, tuple[bytes | str, str]]:
    image = PIL.Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64))
    whole, other = coded(image, "PNG"), image.rotate(90)
    return {
        "text": (b"no image", "none of PNG"),
        "empty": (b"", "none of PNG"),
        "truncated": (whole[: len(whole) // 2], "does not decode"),
        "frames": (coded(image, "GIF", save_all=True, append_images=[other]), "more than one frame"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
        "missing": ("nowhere.png", "No such file"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_with_its_row(name: str) -> None:
    good = coded(PIL.Image.new("L", (2, 2)), "PNG")
    file, words = bad_files()[name]
    with pytest.raises(TransferSetError, match=f"row 8[ :].*{words}"):
        decode(column(good, file), name="image", start=7)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="decompression bomb"):
        decode_image(coded(PIL.Image.new("L", (5, 5)), "PNG"))


def test_bytes_or_a_path_there_must_be() -> None:
    with pytest.raises(TransferSetError, match="neither bytes nor a path"):
        decode(pa.chunked_array([pa.array([{"bytes": None, "path": None}], FILE)]), name="image", start=0)


RGB = np.zeros((6, 8, 3), np.uint8)
RGB[:, :4], RGB[:, 4:] = (230, 30, 30), (250, 250, 250)


def other_colours(mode: str) -> tuple[bytes, np.ndarray]:
    """A file of a colour space of its own, and what Pillow's own conversion to RGB gives."""
    image = PIL.Image.fromarray(RGB)
    if mode == "LAB":
        profiles = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
        return coded(PIL.ImageCms.profileToProfile(image, *profiles, outputMode="LAB"), "TIFF"), RGB
    if mode == "RGBX":
        return coded(image.convert("RGBX"), "TIFF"), RGB
    kind, _, space = mode.partition(" ")
    data = coded(image.convert(space), kind, **({"quality": 95} if kind == "JPEG" else {}))
    return data, np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["JPEG CMYK", "TIFF CMYK", "TIFF YCbCr", "LAB", "RGBX"])
def test_colours_are_those_of_the_file(mode: str) -> None:
    data, expected = other_colours(mode)
    found, _ = decode_image(data)
    assert found.shape == RGB.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= (2 if mode == "LAB" else 0)
    assert np.abs(found.astype(int) - RGB).max() <= 4


@pytest.mark.parametrize("mode", ["TIFF CMYK", "TIFF YCbCr", "LAB"])
def test_keys_are_made_from_the_values_in_the_file(mode: str) -> None:
    """As key rule 1 always did, so that stores made before know these rows."""
    data, _ = other_colours(mode)
    values = np.asarray(PIL.Image.open(io.BytesIO(data)))
    assert values.shape[2] == (4 if "CMYK" in mode else 3)
    header = f"uint8[{','.join(map(str, values.shape))}]\0".encode()
    assert keys(data) == [xxhash.xxh3_128_digest(header + values.tobytes())]
    lossy, _ = other_colours("JPEG CMYK")
    assert keys(lossy) == [xxhash.xxh3_128_digest(lossy)]
