"""Bit depth, colour mode and value range belong to the recipe: rows of two kinds are refused, wherever they stand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, fill, load_transfer_set

FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
LAST = "import numpy as np\ndef prepare(rows): return np.array([np.asarray(r).flat[-1] for r in rows], np.float32)\n"


def picture(rng: np.random.Generator, kind: str, size: int = 8) -> bytes:
    """A PNG: grey of 8 bits, of 16 bits, of 1 bit, RGB or RGBA; its last pixel is white."""
    shape, dtype = {
        "8": ((size, size), "u1"),
        "16": ((size, size), "u2"),
        "1": ((size, size), "?"),
        "RGB": ((size, size, 3), "u1"),
        "RGBA": ((size, size, 4), "u1"),
    }[kind]
    pixels = rng.integers(0, 2 if kind == "1" else 256 ** np.dtype(dtype).itemsize, shape).astype(dtype)
    pixels[-1, -1] = pixels.max() if kind == "1" else np.iinfo(dtype).max
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Case:
    """A folder of Parquet splits, and a prepare function that hides shapes and dtypes: it takes the last value of a row."""

    def __init__(self, folder: Path, functions: Path, rng: np.random.Generator) -> None:
        self.data, self.cache, self.rng = folder / "data", folder / "cache", rng
        self.data.mkdir()
        functions.write_text(LAST)
        self.function = f"{functions.stem}.prepare"

    def images(self, split: str, *kinds: str) -> None:
        rows = [{"bytes": picture(self.rng, kind), "path": None} for kind in kinds]
        self.write(split, pa.array(rows, FILE))

    def write(self, split: str, column: pa.Array) -> None:
        pq.write_table(pa.table({"image": column}), self.data / f"{split}.parquet")

    def load(self, split: str = "train", prepare: str = "", **settings: object) -> TransferRows:
        config = TransferSetConfig(
            source=str(self.data), label=None, prepare=ObjectSpec(prepare or self.function), **settings
        )
        return load_transfer_set(config, split, cache=self.cache)


@pytest.fixture
def case(tmp_path: Path, functions: Path, rng: np.random.Generator) -> Case:
    return Case(tmp_path, functions, rng)


@pytest.mark.parametrize("block", [1, 1 << 26])
def test_pictures_of_two_depths_are_refused_wherever_blocks_end(
    case: Case, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's white is 255 and 65,535: divided by 255, it is 1.0 and 257.0."""
    monkeypatch.setattr(fill, "BLOCK_BYTES", block)
    case.images("train", *["8"] * 16, *["16"] * 16)
    with pytest.raises(
        TransferSetError, match=r"more than one bit depth.*: row 0 of train has 8 bits, row 16 of train has 16 bits"
    ):
        case.load()
    white = case.load(mixed_images=True).inputs / 255
    np.testing.assert_allclose(white, [1.0] * 16 + [257.0] * 16)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("RGB", "8"), r"more than one colour mode.*row 0 of train has RGB, row 1 of train has grey"),
        (("RGB", "RGB", "RGBA"), r"row 0 of train has RGB, row 2 of train has RGBA"),
        (("8", "1"), r"more than one bit depth.*row 0 of train has 8 bits, row 1 of train has 1 bit"),
    ],
)
def test_other_mixes_are_refused(case: Case, kinds: tuple[str, ...], words: str) -> None:
    case.images("train", *kinds)
    with pytest.raises(TransferSetError, match=words):
        case.load()


@pytest.mark.parametrize("first", ["train", "test"])
def test_splits_are_compared_in_whatever_order_they_are_opened(case: Case, first: str) -> None:
    case.images("train", *["8"] * 3)
    case.images("test", *["16"] * 3)
    second = "test" if first == "train" else "train"
    case.load(first)
    for split in (second, first):
        with pytest.raises(TransferSetError, match=r"row 0 of test has 16 bits, row 0 of train has 8 bits"):
            case.load(split)


def test_a_split_that_was_mended_meanwhile_is_no_reason(case: Case) -> None:
    case.images("train", "8", "8")
    case.images("test", "8")
    case.load("train")
    case.load("test")
    case.images("train", "16", "16")
    case.images("test", "16")
    assert (case.load("train").inputs == 65535).all()
    assert (case.load("test").inputs == 65535).all()


def test_what_the_cache_says_is_asked_again_where_the_setting_changes(case: Case) -> None:
    case.images("train", "8", "16")
    case.load(mixed_images=True)
    with pytest.raises(TransferSetError, match="bit depth"):
        case.load()


def test_sizes_may_differ(case: Case) -> None:
    rows = [{"bytes": picture(case.rng, "8", size), "path": None} for size in (5, 9, 31)]
    case.write("train", pa.array(rows, FILE))
    assert (case.load().inputs == 255).all()


def test_an_image_processor_sees_to_grey_pictures_itself(case: Case, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTImageProcessor(size={"height": 4, "width": 4}, do_normalize=False).save_pretrained(tmp_path / "vit")
    case.images("train", "8", "RGB", "RGBA")
    config = TransferSetConfig(
        source=str(case.data),
        label=None,
        prepare=ObjectSpec("softlabels.transfer.vision.process", {"processor": str(tmp_path / "vit")}),
    )
    assert load_transfer_set(config, "train", cache=case.cache).inputs.shape == (3, 3, 4, 4)


def arrays(values: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.list_(pa.list_(pa.from_numpy_dtype(values.dtype))))


def test_a_test_split_that_nobody_divided_by_255_is_refused(case: Case) -> None:
    pixels = case.rng.integers(0, 256, (4, 9, 9))
    case.write("train", arrays(pixels[:2] / 255))
    case.write("test", arrays(pixels[2:].astype(np.float64)))
    case.load("train")
    with pytest.raises(TransferSetError, match=r"row 0 of test has whole numbers from 0 up, .*train has fractions"):
        case.load("test")


def depths(split: str) -> dict[str, np.ndarray]:
    """A factory: arrays of 8 bits to train on, of 16 bits to test on."""
    rng, dtype = np.random.default_rng(0), np.dtype("u1" if split == "train" else "u2")
    return {"image": rng.integers(0, np.iinfo(dtype).max, (3, 4, 4), dtype, endpoint=True)}


def test_an_array_of_16_bits_beside_one_of_8_is_refused(tmp_path: Path) -> None:
    config = TransferSetConfig(factory=ObjectSpec(f"{__name__}.depths"), label=None)
    load_transfer_set(config, "train", cache=tmp_path)
    with pytest.raises(TransferSetError, match="row 0 of test has 16 bits, row 0 of train has 8 bits"):
        load_transfer_set(config, "test", cache=tmp_path)


def test_features_of_any_range_are_left_alone(case: Case) -> None:
    """Standardised rows beside large ones, black pictures beside white ones, integers beside floats."""
    rows = case.rng.normal(0, [[1.0], [30.0], [0.01], [1e4]], (4, 81)).reshape(4, 9, 9)
    rows[3] = np.round(rows[3])
    case.write("train", arrays(rows))
    black = np.zeros((2, 9, 9))
    black[1] = 255
    case.write("test", arrays(black))
    assert len(case.load("train").inputs) == 4
    assert len(case.load("test", splits={"test": "test"}).inputs) == 2
