"""Missing values: a class that is called None, integers with gaps, and inputs that are null."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xxhash import xxh3_128_digest

from softlabels.errors import LabelError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set
from softlabels.transfer.decode import Decoded, decode
from softlabels.transfer.files import MISSING_WORDS
from softlabels.transfer.hard_labels import hard_labels
from softlabels.transfer.keys import array_keys, content_keys

FILL = "import numpy as np\ndef fill(rows): return np.array([[-9 if v is None else v for v in r] for r in rows], np.float32)\n"


def load(folder: Path, **settings: object) -> TransferRows:
    config = TransferSetConfig(**{"source": str(folder), "inputs": ("a",), **settings})
    return load_transfer_set(config, "train", cache=folder.parent / "cache")


def csv(folder: Path, text: str) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "train.csv").write_text(text)
    return data


def test_the_words_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(MISSING_WORDS) == STR_NA_VALUES


def test_a_listed_class_of_a_csv_is_a_class_by_any_name(tmp_path: Path) -> None:
    labels = ["None", "hate", "NA", "", "null", "hate", "n/a"]
    data = csv(tmp_path, "a,b,label\n" + "".join(f"{i},,{label}\n" for i, label in enumerate(labels)))
    names = ("hate", "None", "null")
    found = load(data, classes=names)
    assert found.labels.tolist() == [names.index(label) if label in names else -1 for label in labels]
    assert found.inputs.tolist() == list(range(7))
    assert found.inputs.dtype == pd.read_csv(data / "train.csv")["a"].dtype


def test_a_class_of_a_csv_may_be_called_like_an_empty_field(tmp_path: Path) -> None:
    found = load(csv(tmp_path, "a,label\n1,\n2,x\n"), classes=("x", ""))
    assert found.labels.tolist() == [1, 0]


def test_other_columns_of_such_a_csv_keep_their_gaps(tmp_path: Path) -> None:
    data = csv(tmp_path, "a,label\n1,None\n,x\n3,None\n")
    with pytest.raises(TransferSetError, match="input column 'a' is null in row 1"):
        load(data, classes=("x", "None"))


def test_integers_with_gaps_are_labels(tmp_path: Path) -> None:
    assert load(csv(tmp_path, "a,label\n1,2\n2,\n3,0\n")).labels.tolist() == [2, -1, 0]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_whole_floats_are_labels_and_others_are_not(kind: pa.DataType) -> None:
    def labels(*values: float | None) -> list[int]:
        array = pa.array(
            [None if value is None else np.dtype(kind.to_pandas_dtype()).type(value) for value in values], kind
        )
        return hard_labels(array, name="label", class_names=None, rows=range(50, 99)).tolist()

    assert labels(3.0, None, 0.0, float("nan"), -1.0) == [3, -1, 0, -1, -1]
    with pytest.raises(LabelError, match=r"label 0.5 of column 'label' in row 51 is no whole number"):
        labels(1.0, 0.5)
    with pytest.raises(LabelError, match="label -2 in row 50"):
        labels(-2.0)
    with pytest.raises(LabelError, match="no whole number"):
        labels(float("inf"))


@pytest.fixture
def gaps(tmp_path: Path, functions: Path) -> tuple[Path, str]:
    """Rows with and without nulls."""
    functions.write_text(FILL)
    (tmp_path / "data").mkdir()
    table = pa.table({"a": [1.0, None, 3.0, None], "b": pa.array([10, 20, None, None], pa.int32())})
    pq.write_table(table, tmp_path / "data" / "train.parquet")
    return tmp_path / "data", f"{functions.stem}.fill"


def test_nulls_reach_the_prepare_function_where_the_recipe_lets_them(gaps: tuple[Path, str]) -> None:
    settings = {"inputs": ("a", "b"), "label": None, "prepare": ObjectSpec(gaps[1])}
    with pytest.raises(
        TransferSetError, match=r"null in row 1; fill or filter such rows, or set transfer_set.missing: pass"
    ):
        load(gaps[0], **settings)
    rows = load(gaps[0], missing="pass", **settings)
    assert rows.inputs.tolist() == [[1, 10], [-9, 20], [3, -9], [-9, -9]]
    assert rows.key_rule == 2
    assert rows.notes == ("3 of 4 rows lack an input (transfer_set.missing: pass)",)


def test_rows_without_nulls_keep_their_keys(gaps: tuple[Path, str]) -> None:
    rows = load(gaps[0], inputs=("a", "b"), label=None, prepare=ObjectSpec(gaps[1]), missing="pass")
    whole = array_keys(np.array([1.0]), np.array([10], np.int32))
    assert rows.keys[0].tobytes() == whole.tobytes()
    # By the rule, with nothing of the library: seed 2, and 2^64 - 1 where nothing is.
    a, b = b"float64[]\0" + np.float64(3).tobytes(), b"int32[]\0" + np.int32(20).tobytes()
    none = b"\xff" * 8
    expected = [none + len(b).to_bytes(8, "little") + b, len(a).to_bytes(8, "little") + a + none, none + none]
    assert [key.tobytes() for key in rows.keys[1:]] == [xxh3_128_digest(message, seed=2) for message in expected]


def test_a_split_without_nulls_has_the_first_key_rule(gaps: tuple[Path, str]) -> None:
    pq.write_table(pa.table({"a": [1.0], "b": pa.array([2], pa.int32())}), gaps[0] / "train.parquet")
    settings = {"inputs": ("a", "b"), "label": None, "prepare": ObjectSpec(gaps[1])}
    one, two = load(gaps[0], **settings), load(gaps[0], missing="pass", **settings)
    assert (one.key_rule, two.key_rule) == (1, 1)
    assert one.keys.tobytes() == two.keys.tobytes()


def test_a_null_is_no_text_and_no_bytes() -> None:
    for value in ("", "None", b"\xff" * 8, b""):
        keys = content_keys([Decoded([value, None])])
        assert keys[0].tobytes() == xxh3_128_digest(value.encode() if isinstance(value, str) else value)
        assert keys[1].tobytes() == xxh3_128_digest(b"\xff" * 8, seed=2) != keys[0].tobytes()


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x", None, "y"]), pa.array([None, b"z"]), pa.array([[1, 2], None, [3, 4]]), pa.array([[1], None, [3, 4]]),
        pa.array([None, None]), pa.array([True, None]),
    ],
)  # fmt: skip
def test_every_kind_of_column_may_have_gaps(array: pa.Array) -> None:
    found = decode(pa.chunked_array([array]), name="x", start=0, missing=True).rows()
    assert [None if value is None else np.asarray(value).tolist() for value in found] == array.to_pylist()


def test_rows_of_a_block_with_gaps_are_named_by_their_own_numbers() -> None:
    rows = [None, {"bytes": b"no image", "path": None}]
    column = pa.chunked_array([pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))])
    with pytest.raises(TransferSetError, match="row 51: this image does not decode"):
        decode(column, name="x", start=50, missing=True)


def test_stack_says_what_to_do_about_gaps(gaps: tuple[Path, str]) -> None:
    with pytest.raises(TransferSetError, match="stack takes no missing values"):
        load(gaps[0], label=None, missing="pass")
