"""A source that is one table, and a column that says which split a row belongs to."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import ConfigError, OtherLabels, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set

SPLITS = ["train", "test", "train", "other", "test", "train"]


def load(source: Path, split: str = "train", **settings: object) -> TransferRows:
    given = {"inputs": ("x",), "label": "y", "split_column": "split", **settings}
    prepare = ObjectSpec("softlabels.transfer.vector")
    return load_transfer_set(TransferSetConfig(source=str(source), prepare=prepare, **given), split)


def write(path: Path, column: object = SPLITS, **columns: object) -> Path:
    rows = np.arange(6)
    pq.write_table(pa.table({"x": rows * 10.0, "y": rows, "split": column, **columns}), path)
    return path


def test_each_split_has_its_rows_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "all.parquet")
    train, test = load(source), load(source, "test")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 2, 5], [1, 4])
    assert train.inputs.tolist() == [[0], [20], [50]]
    assert train.notes == ("1 of 6 rows are in none of transfer_set.splits: 'other' (split_column: split)",)
    assert load(source, splits={"train": "train+other", "test": "test"}).notes == ()
    whole = load(source, split_column=None)
    np.testing.assert_array_equal(whole.keys[[0, 2, 5]], train.keys)


def test_splits_may_be_several_values_or_slices(tmp_path: Path) -> None:
    source = write(tmp_path / "all.parquet", ["a+b", "b", "a b", "b", "c", "a+b"])
    for split, rows in {"b+c": [1, 3, 4], "a+b": [0, 5], "b[1:]+a b[:5]": [3, 2], "a b": [2]}.items():
        assert load(source, splits={"train": split}).labels.tolist() == rows
    assert load(source, splits={"train": "a+b", "test": "b[1:] + a b+c"}).notes == ()


@pytest.mark.parametrize(
    ("column", "split"),
    [
        ([0, 1, 0, 1, 1, 1], "0"),
        ([True, False, True, False, False, False], "true"),
        (pa.array(["a", "b", "a", "b", "b", "b"]).dictionary_encode(), "a"),
    ],
    ids=["whole numbers", "booleans", "a dictionary"],
)
def test_values_that_are_no_text(tmp_path: Path, column: object, split: str) -> None:
    assert load(write(tmp_path / "all.parquet", column), splits={"train": split}).labels.tolist() == [0, 2]


def test_a_column_of_classes_goes_by_their_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "x": datasets.Value("int64"),
            "y": datasets.Value("int64"),
            "split": datasets.ClassLabel(names=["dev", "train"]),
        }
    )
    data = datasets.Dataset.from_dict({"x": [5, 6, 7], "y": [0, 1, 2], "split": [1, 0, 1]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").labels.tolist() == [0, 2]
    gap = datasets.Dataset.from_dict({"x": [5, 6], "y": [0, 1], "split": [1, -1]}, features=features)
    gap.save_to_disk(tmp_path / "gap")
    with pytest.raises(TransferSetError, match="split_column 'split' is null in row 1"):
        load(tmp_path / "gap")


def test_all_files_of_a_source_are_one_table(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["ann", "bob", "ann", "bob", "ann", "bob"])
    write(tmp_path / "test.parquet", ["bob", "cid", "cid", "cid", "cid", "ann"], y=np.arange(6, 12))
    rows = load(tmp_path, split_column="split", splits={"train": "ann", "test": "bob+cid"})
    assert rows.labels.tolist() == [0, 2, 4, 11]


def test_splits_of_other_columns_are_no_table(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"x": [x], "split": ["a"]}) for name, x in (("train", 1), ("test", [2]))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        TransferSetError, match=r"the splits train, test of .* are not one table: .*; drop transfer_set\.split_c"
    ):
        load(tmp_path / "saved", label=None, splits={"train": "a"})


def test_all_files_name_the_classes_alike(tmp_path: Path) -> None:
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = datasets.Features(
            {"x": datasets.Value("int64"), "y": datasets.ClassLabel(names=names), "split": datasets.Value("string")}
        )
        data = datasets.Dataset.from_dict({"x": [1], "y": [0], "split": ["a"]}, features=features)
        data.to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(OtherLabels, match="class 'cat' of label column 'y' is number 0 in split train and 1 in"):
        load(tmp_path, splits={"train": "a"})


def test_another_column_of_the_same_rows_is_another_entry(tmp_path: Path) -> None:
    source = write(tmp_path / "all.parquet", fold=["train", "train", "other", "other", "train", "train"])
    assert load(source).labels.tolist() == [0, 2, 5]
    assert load(source, split_column="fold").labels.tolist() == [0, 1, 4, 5]
    assert load(source).labels.tolist() == [0, 2, 5]
    write(source, ["test", *SPLITS[1:]])
    assert load(source).labels.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("column", "settings", "words"),
    [
        (SPLITS, {"splits": {"train": "dev"}}, r"no split 'dev'; its splits are train, test, other \(the values of"),
        (SPLITS, {"split_column": "fold"}, "no column 'fold' that says which split .*its columns are x, y, split; correct"),
        ([*SPLITS[:4], None, "a"], {}, "split_column 'split' is null in row 4; give every row a split"),
        ([0.5] * 6, {}, "split_column 'split' has type double; name a column of text"),
    ],
)  # fmt: skip
def test_what_names_no_split(tmp_path: Path, column: object, settings: dict[str, object], words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        load(write(tmp_path / "all.parquet", column), **settings)


def test_a_factory_has_splits_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"split_column is given, and a factory makes the rows; let factory\(split"):
        TransferSetConfig(factory=ObjectSpec("a.b"), split_column="split")
