"""Text files, slices of splits, audio and other files, text that is not UTF-8."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xxhash import xxh3_128_digest

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set

LENGTHS = "import numpy as np\ndef lengths(rows): return np.array([len(row) for row in rows])\n"
FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
BAD = [b"fine", b"caf\xe9", b"two"]


@pytest.fixture
def load(tmp_path: Path, functions: Path) -> object:
    """A loader of tmp_path/data with a prepare function that gives the length of each value."""
    functions.write_text(LENGTHS)
    (tmp_path / "data").mkdir()

    def run(split: str = "train", **settings: object) -> TransferRows:
        given = {"source": str(tmp_path / "data"), "inputs": ("text",), "label": None, "splits": {"train": split}}
        given["prepare"] = ObjectSpec(f"{functions.stem}.lengths")
        return load_transfer_set(TransferSetConfig(**given | settings), "train", cache=tmp_path / "cache")

    return run


@pytest.mark.parametrize(
    ("way", "texts"),
    [
        (None, ["one", "", "two", "", "three", "four"]),
        ("line", ["one", "", "two", "", "three", "four"]),
        ("paragraph", ["one", "two", "three\nfour\n"]),
        ("document", ["one\n\ntwo\n\nthree\nfour\n"]),
    ],
)
def test_what_a_row_of_text_files_is_can_be_said(
    load: object, tmp_path: Path, way: str | None, texts: list[str]
) -> None:
    (tmp_path / "data" / "train.txt").write_text("one\n\ntwo\n\nthree\nfour\n")
    rows = load(sample_by=way)
    assert rows.inputs.tolist() == [len(text) for text in texts]
    assert [key.tobytes() for key in rows.keys] == [xxh3_128_digest(text.encode()) for text in texts]
    assert rows.notes[0].startswith(
        f"text files, {len(texts)} texts: each {way or 'line'} is one row (transfer_set.sample_by"
    )


def test_sample_by_is_for_text_files(load: object, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "data" / "train.parquet")
    with pytest.raises(
        TransferSetError, match=r"holds no text files, and sample_by says .*; drop transfer_set.sample_by"
    ):
        load(sample_by="document")
    assert load().notes == ()


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:7]", range(7)), ("train[90:]", range(90, 100)), ("train[-5:]", range(95, 100)), ("train[:10%]", range(10)),
        ("train[3:5]+test[:2]", [3, 4, 0, 1]), ("train[-10%:]+test", [*range(90, 100), *range(20)]), ("train", range(100)),
        ("train[:200]", range(100)), ("train[25%:26%]", [25]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("saved", [False, True])
def test_a_split_may_be_a_slice(load: object, tmp_path: Path, split: str, expected: range, saved: bool) -> None:
    tables = {name: ["x" * n for n in range(rows)] for name, rows in (("train", 100), ("test", 20))}
    if saved:
        datasets.DatasetDict(
            {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in tables.items()}
        ).save_to_disk(tmp_path / "data")
    else:
        for name, texts in tables.items():
            pq.write_table(pa.table({"text": texts}), tmp_path / "data" / f"{name}.parquet")
    assert load(split).inputs.tolist() == list(expected)


def numbers(split: str) -> dict[str, np.ndarray]:
    """A factory that knows whole splits only."""
    return {"text": np.array([str(n) * (n + 1) for n in {"train": range(9)}[split]])}


def test_a_factory_is_asked_for_the_whole_split(load: object) -> None:
    factory = ObjectSpec(f"{__name__}.numbers")
    assert load("train[2:4]", source=None, factory=factory).inputs.tolist() == [3, 4]


@pytest.mark.parametrize("split", ["train[", "train[a:b]", "train[:3]+", "train[:3](pct1)", "valid[:3]"])
def test_no_slice_of_a_split(load: object, tmp_path: Path, split: str) -> None:
    pq.write_table(pa.table({"text": ["a"] * 100}), tmp_path / "data" / "train.parquet")
    words = (
        "has no split 'valid'" if split.startswith("valid") else r"is no slice of a split; write it as train\[:12000\]"
    )
    with pytest.raises(TransferSetError, match=words):
        load(split)


def wave() -> bytes:
    return b"RIFF\x24\0\0\0WAVEfmt " + bytes(range(20))


def png(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, (4, 5)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_files(folder: Path, feature: object, *files: bytes | str) -> None:
    rows = [{"bytes": None, "path": f} if isinstance(f, str) else {"bytes": f, "path": None} for f in files]
    table = pa.table({"text": pa.array(rows, FILE)})
    if feature is not None:
        table = table.replace_schema_metadata(datasets.Features({"text": feature}).arrow_schema.metadata)
    pq.write_table(table, folder / "train.parquet")


@pytest.mark.parametrize("feature", [datasets.Audio(), None])
def test_audio_reaches_the_prepare_function_as_bytes(load: object, tmp_path: Path, feature: object) -> None:
    (tmp_path / "one.wav").write_bytes(wave() + b"12345")
    write_files(tmp_path / "data", feature, wave(), str(tmp_path / "one.wav"))
    rows = load()
    assert rows.inputs.tolist() == [len(wave()), len(wave()) + 5]
    assert rows.keys[0].tobytes() == xxh3_128_digest(wave())


def test_a_picture_in_a_column_of_audio_stays_bytes(load: object, tmp_path: Path, rng: np.random.Generator) -> None:
    data = png(rng)
    write_files(tmp_path / "data", datasets.Audio(), data)
    assert load().inputs.tolist() == [len(data)]


@pytest.mark.parametrize("feature", [datasets.Image(), None])
def test_images_are_images_with_or_without_a_feature(
    load: object, tmp_path: Path, rng: np.random.Generator, feature: object
) -> None:
    write_files(tmp_path / "data", feature, png(rng), png(rng))
    assert load().inputs.tolist() == [4, 4]  # rows of pixels


def test_bytes_that_are_no_image_in_a_column_of_images(load: object, tmp_path: Path) -> None:
    write_files(tmp_path / "data", datasets.Image(), wave())
    with pytest.raises(TransferSetError, match="row 0: this image does not decode"):
        load()


def test_a_broken_picture_of_a_folder_is_named(load: object, tmp_path: Path, rng: np.random.Generator) -> None:
    for name, data in {"a.png": png(rng), "b.png": b"none"}.items():
        (tmp_path / "data" / name).write_bytes(data)
    with pytest.raises(TransferSetError, match=r"row 1 \(.*data/b\.png\): this image does not decode"):
        load(inputs=("image",))


def latin1() -> pa.Array:
    """Texts one of which is not UTF-8, as a careless writer leaves them."""
    ends = np.cumsum([0, *map(len, BAD)]).astype(np.int32)
    return pa.StringArray.from_buffers(3, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(BAD)))


@pytest.mark.parametrize(
    ("columns", "settings", "words"),
    [
        ({"text": latin1()}, {}, "input column 'text', row 1: this text is not UTF-8"),
        ({"text": [1, 2, 3], "y": latin1()}, {"label": "y", "classes": ("fine", "two")}, "label column 'y', row 1"),
        ({"text": ["a", "b", "c"], "id": latin1()}, {"key": "id"}, "id column 'id', row 1: this text is not UTF-8"),
    ],
)
def test_text_that_is_not_utf_8_is_an_error_of_its_row(
    load: object, tmp_path: Path, columns: dict[str, object], settings: dict[str, object], words: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "data" / "train.parquet")
    if "label" in settings:
        settings = {**settings, "prepare": ObjectSpec("softlabels.transfer.stack")}
    with pytest.raises(TransferSetError, match=words):
        load(**settings)


def test_texts_of_other_arrow_types_are_texts(load: object, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", "bc"], pa.large_string())}), tmp_path / "data" / "train.parquet")
    assert load().inputs.tolist() == [1, 2]


@pytest.mark.parametrize("text", ['text,label\n"open,1\nmore,2\n', "text,label\na,b,c,d\n"])
def test_a_broken_csv_is_one_line(load: object, tmp_path: Path, text: str) -> None:
    (tmp_path / "data" / "train.csv").write_text("text,label\nfine,1\n" * 3 + text)
    with pytest.raises(TransferSetError) as caught:
        load()
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_not_utf_8_is_one_line(load: object, tmp_path: Path) -> None:
    (tmp_path / "data" / "train.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    with pytest.raises(
        TransferSetError, match=r"cannot open .*; its texts are not UTF-8: write the file again in UTF-8, or as Parquet"
    ):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text;label\na;0\nb;1\n", "has no column 'text'; its columns are text;label; a CSV has commas"),
        ("text;label\na;0\nb, c, d;1\n", "Error tokenizing data.*; a CSV has commas"),
        ("text|label\na|0\n", r"its columns are text\|label; a CSV has commas"),
        ("text\tlabel\na\t0\n", "a CSV has commas"),
        ("other\na\n", "its columns are other$"),
    ],
)
def test_a_csv_with_other_separators_is_told(load: object, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data" / "train.csv").write_text(text)
    with pytest.raises(TransferSetError, match=message):
        load()
