"""Inputs of rows on a page: pictures and sound as they are, texts as data."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels import write_store
from softlabels.pages.media import EDGE, looks_like_picture, picture, wav
from softlabels.pages.row_inputs import TEXT, inputs_of, shown_value, tokens
from softlabels.transfer import TransferSetConfig, array_keys, load_transfer_set
from softlabels.transfer.keys import id_keys
from softlabels_stages.schema import typed


def decoded(source: str) -> bytes:
    return base64.b64decode(source.partition(",")[2])


def pixels(source: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(decoded(source))))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 2), (9, 7, 3), (9, 7, 4), (3, 9, 7), (1, 9, 7), (9, 7, 1)])
def test_a_small_picture_is_kept(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    values = rng.integers(0, 256, shape, np.uint8)
    assert looks_like_picture(values)
    channels_last = np.moveaxis(values, 0, -1) if shape[0] in (1, 3) else values
    assert np.array_equal(pixels(picture(values)), channels_last.squeeze())


def test_a_photograph_is_a_jpeg_that_looks_the_same(rng: np.random.Generator) -> None:
    shades = np.add.outer(np.sin(np.arange(80) / 9), np.cos(np.arange(90) / 7))[..., None] * [50, 30, 40] + 128
    values = (shades + rng.normal(size=(80, 90, 3)) * 2).astype(np.uint8)
    found = picture(values)
    assert found.startswith("data:image/jpeg;base64,")
    assert np.abs(pixels(found) - values.astype(float)).mean() < 3
    assert picture(values // 128 * 255).startswith("data:image/png;base64,")  # sharp edges stay as they are


def test_a_large_picture_is_made_smaller_and_a_dark_one_lighter(rng: np.random.Generator) -> None:
    assert max(pixels(picture(rng.integers(0, 256, (400, 200), np.uint8))).shape) == EDGE
    dark = rng.integers(0, 17, (8, 8), np.uint8)
    dark[0, 0] = 16
    assert np.array_equal(pixels(picture(dark)), np.round(dark.astype(float) * 255 / 16))
    fractions = np.where(rng.random((8, 8)) < 0.1, np.nan, rng.random((8, 8)))
    assert pixels(picture(fractions)).max() == 255


@pytest.mark.parametrize("far", [np.inf, -np.inf, 1.7e308, -1.7e308])
def test_a_pixel_that_is_far_off_stays_a_pixel(far: float) -> None:
    values = np.array([[far, 0, -1e308, 1e308]] * 4)
    shades = pixels(picture(values))[0]
    assert {shades.min(), shades.max()} == {0, 255}


def test_a_token_that_is_no_class_is_its_number() -> None:
    assert tokens(np.array([[0, -7, 2], [1, 1, 1]]), ["a", "b"])["tokens"] == ["a", "-7", "2"]


@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 500), (4, 4, 4, 3), (), (10, 3, 10), (8, 1, 9)])
def test_numbers_that_are_no_picture(shape: tuple[int, ...]) -> None:
    assert not looks_like_picture(np.zeros(shape, np.uint8))


def test_sound(rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, 800)
    with wave.open(io.BytesIO(decoded(wav(samples, 8000)))) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (8000, 800, 1)
        found = np.frombuffer(file.readframes(800), "<i2") / 32767
    assert np.allclose(found, samples, atol=1e-4)
    pytest.importorskip("soundfile")
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.tile(samples, 250)[:, None].repeat(2, 1), 48000, format="WAV")  # more than 2 s, stereo
    shown = shown_value("clip", out.getvalue())
    assert shown["kind"] == "sound"
    with wave.open(io.BytesIO(decoded(shown["source"]))) as file:
        assert (file.getframerate(), file.getnframes()) == (12_000, 24_000)
    empty = io.BytesIO()
    soundfile.write(empty, np.zeros(0), 8000, format="WAV")
    assert shown_value("clip", empty.getvalue())["text"] == "(a sound without samples)"
    assert shown_value("clip", b"no audio") == {"name": "clip", "kind": "text", "text": "a file of 8 bytes"}


def test_texts_and_cells() -> None:
    assert shown_value("x", "a" * (TEXT + 1))["text"] == "a" * TEXT + " …"
    assert shown_value("x", None)["text"] == "(missing)"
    many = shown_value("x", np.arange(100) / 8)
    assert (len(many["cells"]), many["more"], many["cells"][3]) == (32, 68, [3, "0.375"])
    assert shown_value("x", ["a", "b"])["cells"] == [[0, "a"], [1, "b"]]
    assert shown_value("x", np.int64(7))["text"] == "7"


def test_tokens() -> None:
    ids = np.array([[3, 1, 2, 0, 0], [1, 1, 2, 0, 0]])
    assert tokens(ids, ("a", "b", "c"))["tokens"] == ["3", "b", "c"]
    assert tokens(ids, None)["tokens"] == ["3", "1", "2"]


def test_raw_columns_are_found_by_content_key(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of rows in another order than the store's; a row that the transfer set lacks has no input."""
    (tmp_path / "data").mkdir()
    texts = [f"text {number}" for number in range(20)]
    pq.write_table(pa.table({"text": texts, "x": rng.normal(size=20)}), tmp_path / "data" / "test.parquet")
    recipe = {
        "name": "t", "source": str(tmp_path / "data"), "inputs": ["text", "x"], "label": None, "splits": {"test": "test"},
        "prepare": {"class_path": f"{__name__}.lengths"},
    }  # fmt: skip
    config = typed(TransferSetConfig, recipe, where="t")
    keys = np.array(load_transfer_set(config, "test").keys)
    order = np.append(rng.permutation(20), 20)
    other = rng.integers(0, 256, (1, 16), np.uint8)
    store = write_store(
        tmp_path / "store" / "test", rng.normal(size=(21, 4)), keys=np.concatenate([keys, other])[order]
    )
    found = inputs_of(store, config, "test")
    assert "1 of 21 rows of the store are not in it" in found.said
    shown = found.of(np.arange(21))
    assert [row and row[0]["text"] for row in shown] == [texts[number] if number < 20 else None for number in order]
    assert [each["name"] for each in shown[0] or []] == ["text", "x"]
    assert found.called(np.arange(21)) == [texts[number] if number < 20 else "" for number in order]


def png(width: int = 5, height: int = 4, seed: int = 0) -> bytes:
    """A small picture, whose header may promise another size."""
    out = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 5), np.uint8)).save(out, "PNG")
    head = b"IHDR" + struct.pack(">II", width, height) + out.getvalue()[24:29]
    return out.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + out.getvalue()[33:]


PICTURES = [png(seed=0), b"no picture", png(40_000, 40_000), png(seed=1)[:50], None, png(seed=2)]
TEXTS = ["one", "two", "", None, "five", "x"]
BROKEN = {1: "it is none of PNG", 2: "could be decompression bomb", 3: "image file is truncated"}


def pictures(folder: Path, key: str) -> TransferSetConfig:
    """Six rows, of which three have a picture that cannot be read, and others an empty text and nulls."""
    file = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    paths = [None] * 5 + ["a/five.png"]
    images = pa.array(
        [data and {"bytes": data, "path": path} for data, path in zip(PICTURES, paths, strict=True)], file
    )
    table = pa.table({"id": range(6), "image": images, "text": TEXTS})
    features = datasets.Features(
        id=datasets.Value("int64"), image=datasets.Image(), text=datasets.Value("string")
    ).arrow_schema.metadata
    folder.mkdir()
    pq.write_table(table.replace_schema_metadata(features), folder / "test.parquet")
    recipe = {
        "name": "t", "source": str(folder), "inputs": ["image", "text"], "label": None, "splits": {"test": "test"},
        "prepare": {"class_path": f"{__name__}.lengths"}, "missing": "pass", "key": key,
    }  # fmt: skip
    return typed(TransferSetConfig, recipe, where="t")


def test_a_picture_that_cannot_be_read_says_so_and_others_are_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    config = pictures(tmp_path / "data", "id")
    store = write_store(
        tmp_path / "test", rng.normal(size=(6, 4)), keys=id_keys(pa.chunked_array([range(6)]), name="id", start=0)
    )
    found = inputs_of(store, config, "test")
    assert found.called(np.arange(6)) == ["one", "two", "(empty)", "(missing)", "five", "a/five.png"]
    shown = found.of(np.arange(6))
    for row, each in enumerate(shown):
        assert each is not None
        if row in BROKEN:
            assert each[0]["kind"] == "text"
            assert each[0]["text"].startswith(
                f"(cannot be read: input column 'image', row {row}: this image does not decode"
            )
            assert BROKEN[row] in each[0]["text"]
        else:
            assert each[0]["kind"] == ("picture" if row != 4 else "text")
        assert each[1]["text"] == {"": "(empty)", None: "(missing)"}.get(TEXTS[row], TEXTS[row])


def test_rows_of_one_content_are_found_beside_one_that_cannot_be_read(tmp_path: Path, rng: np.random.Generator) -> None:
    config = pictures(tmp_path / "data", "content")
    both = [(0, 5)[at] for at in (1, 0)]
    decoded_pictures = [pixels(f"data:,{base64.b64encode(PICTURES[at] or b'').decode()}") for at in both]
    keys = array_keys(np.stack(decoded_pictures), [TEXTS[at] for at in both])
    store = write_store(tmp_path / "test", rng.normal(size=(2, 4)), keys=keys)
    found = inputs_of(store, config, "test")
    assert "3 of its 6 rows cannot be read: input column 'image', row 1: this image does not decode" in found.said
    assert "are not in it" not in found.said
    assert [each and each[1]["text"] for each in found.of(np.arange(2))] == ["x", "one"]


def lengths(rows: list[tuple[str, float]]) -> np.ndarray:
    return np.array([[len(text), x] for text, x in rows], np.float32)


def test_inputs_that_cannot_be_opened_are_said(tmp_path: Path, rng: np.random.Generator) -> None:
    store = write_store(tmp_path / "test", rng.normal(size=(20, 4)), keys=rng.integers(0, 256, (20, 16), np.uint8))
    recipe = {"name": "t", "source": f"{tmp_path}/gone", "inputs": ["text"], "label": None, "splits": {"test": "test"}}
    recipe["prepare"] = {"class_path": f"{__name__}.lengths"}
    found = inputs_of(store, typed(TransferSetConfig, recipe, where="t"), "test")
    assert "could not be opened" in found.said
    assert found.of(np.arange(2)) == [None, None]
