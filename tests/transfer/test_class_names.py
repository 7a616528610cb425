"""Splits and files of one source name the numbers of the label column alike."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from softlabels.errors import OtherLabels
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set

NAMES = ["cat", "dog", "owl"]
OTHER = ["cat", "owl", "dog"]  # two of three moved: no agreement with a teacher shows it for sure


def table(names: list[str] | None, first: int = 0) -> Dataset:
    """Six rows, two of each class in the order cat, dog, owl, numbered as `names` are."""
    labels = [(names or NAMES).index(name) for name in NAMES * 2]
    kind = Value("int64") if names is None else ClassLabel(names=names)
    data = {"x": [float(row + first) for row in range(6)], "label": labels}
    return Dataset.from_dict(data, features=Features({"x": Value("float32"), "label": kind}))


def load(source: Path, split: str = "test", **settings: object) -> TransferRows:
    config = TransferSetConfig(source=str(source), inputs=("x",), **settings)
    return load_transfer_set(config, split, cache=source.parent / "cache")


def write(folder: Path, form: str, parts: dict[str, list[str] | None]) -> Path:
    folder.mkdir()
    tables = {name: table(names, 6 * number) for number, (name, names) in enumerate(parts.items())}
    if form == "saved":
        DatasetDict(tables).save_to_disk(folder)
    for name, data in tables.items() if form != "saved" else ():
        if form == "parquet":
            data.to_parquet(folder / f"{name}.parquet")
        else:
            whole = data.with_format("arrow")[:]
            new = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
            with new(str(folder / f"{name}.arrow"), whole.schema) as writer:
                writer.write_table(whole)
    return folder


@pytest.mark.parametrize("form", ["parquet", "arrow", "stream", "saved"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_another_order_in_one_split_is_refused_at_each_split(tmp_path: Path, form: str, split: str) -> None:
    source = write(tmp_path / "data", form, {"train": NAMES, "test": OTHER})
    with pytest.raises(
        OtherLabels, match=r"class 'dog' of label column 'label' is number 1 in .* and 2 in .*2 of 3 classes"
    ):
        load(source, split)


def test_two_files_of_one_split(tmp_path: Path) -> None:
    source = write(tmp_path / "data", "parquet", {"train-0": NAMES, "train-1": OTHER, "test-0": NAMES})
    with pytest.raises(OtherLabels, match=r"number 1 in split train and 2 in train-1\.parquet"):
        load(source)


def test_other_splits_and_files_of_other_columns_do_not_count(tmp_path: Path) -> None:
    source = write(tmp_path / "data", "saved", {"train": NAMES, "test": NAMES, "extra": OTHER})
    assert load(source).class_names == tuple(NAMES)
    assert load(source, label=None).class_names is None


def test_names_in_some_splits_only_are_listed_by_the_recipe(tmp_path: Path) -> None:
    source = write(tmp_path / "data", "saved", {"train": NAMES, "test": None})
    with pytest.raises(OtherLabels, match=r"names in split train and numbers alone in split test; .*\[cat, dog, owl\]"):
        load(source)
    rows = load(source, classes=tuple(NAMES))
    assert (rows.class_names, rows.labels.tolist()) == (tuple(NAMES), [0, 1, 2] * 2)


def test_names_in_another_language_are_listed_by_the_recipe(tmp_path: Path) -> None:
    source = write(tmp_path / "data", "parquet", {"train": NAMES, "test": NAMES})
    assert load(source, classes=("Katze", "Hund", "Eule")).class_names == ("Katze", "Hund", "Eule")
    with pytest.raises(OtherLabels, match=r"class 'owl' .* is number 0 in transfer_set\.classes and 2 in split train"):
        load(source, classes=("owl", "dog", "cat"))


def test_what_a_factory_returns(tmp_path: Path, functions: Path) -> None:
    functions.write_text(
        "from datasets import ClassLabel, Dataset, Features, Value\n"
        "def rows(split):\n"
        "    features = Features({'x': Value('float32'), 'label': ClassLabel(names=['cat', 'dog'])})\n"
        "    return Dataset.from_dict({'x': [1.0, 2.0], 'label': [0, 1]}, features=features)\n"
    )
    factory = ObjectSpec(f"{functions.stem}.rows")
    config = TransferSetConfig(factory=factory, inputs=("x",), classes=("dog", "cat"), splits={"train": "a[:1]"})
    with pytest.raises(OtherLabels, match=r"class 'dog' .* is number 0 in transfer_set\.classes"):
        load_transfer_set(config, "train", cache=tmp_path / "cache")


def test_the_files_of_a_folder_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [[1.0], [2.0]], "label": [0, 1]}), tmp_path / "train.parquet")
    found: list[str] = []
    find = datasets.load.dataset_module_factory

    def count(path: str, **more: object) -> object:
        found.append(path)
        return find(path, **more)

    monkeypatch.setattr(datasets.load, "dataset_module_factory", count)
    load_transfer_set(TransferSetConfig(source=str(tmp_path)), "train", cache=tmp_path / "cache")
    assert found == [str(tmp_path)]
