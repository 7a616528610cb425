"""The splits of a local folder or file, or of a hub id, through `datasets`, which runs no code that it finds there.

Two things are said to its readers. Of a CSV: a class that the recipe lists is a class, also where it is called None or NA,
words that pandas reads as missing values. Of text files: what one row is, a line, a paragraph or a whole file.
Neighbour: `source` says what the columns mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    DownloadConfig,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset_builder,
    load_from_disk,
)

from softlabels.errors import OtherLabels, TransferSetError, some
from softlabels.transfer.class_names import files_of, require_one_naming
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.pretrained import one_line
from softlabels.transfer.split_column import ColumnSplits

# Owner and name: `datasets` takes a lone name like "csv" for a file format and reads what lies in the working directory.
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SLICE = re.compile(r"(?P<name>[^\[\]]+?)\s*(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")
COMMAS = (
    "a CSV has commas between its fields and points in its numbers; write another one as Parquet: "
    "pandas.read_csv(FILE, sep=';', decimal=',').to_parquet('table.parquet')"
)
UTF8 = (
    "its texts are not UTF-8: write the file again in UTF-8, or as Parquet: "
    "pandas.read_csv(FILE, encoding='cp1252').to_parquet('table.parquet')"
)
# What pandas reads as a missing value of a CSV.
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


def from_files(config: TransferSetConfig) -> Mapping[str, Dataset]:
    """The splits of a source by name: its own, or those that a column of it tells apart (`split_column`).

    Raises:
        TransferSetError: there is no such source or column, or it cannot be opened.
        OtherLabels: its splits or files name the classes otherwise, see `class_names`.
    """
    data = _open(config)
    if config.split_column is None:
        return data
    try:
        whole = concatenate_datasets(list(data.values()))
    except ValueError as error:
        raise TransferSetError(
            f"the splits {', '.join(data)} of {config.source} are not one table: {one_line(error)}",
            remedy="drop transfer_set.split_column, or give one of its files as source",
        ) from error
    return ColumnSplits(whole, config.split_column, source=str(config.source))


def _open(config: TransferSetConfig) -> Mapping[str, Dataset]:
    source = str(config.source)
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _saved(config, path)
        return _load(config, str(path.resolve()))
    if path.is_file():
        whole = path.resolve()
        return _load(config, str(whole.parent), data_files={"train": whole.name})
    if not _HUB_ID.fullmatch(source):
        raise TransferSetError(
            f"there is no file or folder {source}", remedy="correct source, or name a hub id as owner/name"
        )
    return _load(config, source)


def pick(split: str, open_one: Callable[[str], Dataset]) -> Dataset:
    """The rows of a split, or of a slice: `train[:12000]`, `train[-5:]`, `train[:10%]`, several with `+`. As in Python, a slice
    that reaches beyond the split ends with it.

    Args:
        split: as the recipe names it.
        open_one: gives whole splits by name.

    Raises:
        TransferSetError: a slice that cannot be read.
    """
    parts = [_SLICE.fullmatch(part.strip()) for part in split.split("+")]
    if None in parts:
        raise TransferSetError(
            f"{split!r} is no slice of a split", remedy="write it as train[:12000], train[-500:] or train[:10%]"
        )
    chosen = []
    for part in filter(None, parts):
        data = open_one(part["name"])
        start, stop = (None if part[end] is None else _place(part[end], len(data)) for end in ("start", "stop"))
        chosen.append(data.select(range(*slice(start, stop).indices(len(data)))))
    return chosen[0] if len(chosen) == 1 else concatenate_datasets(chosen)


def _place(end: str, rows: int) -> int:
    """One end of a slice: a number of rows, or a percentage of them, to the closest row."""
    return round(int(end[:-1]) * rows / 100) if end.endswith("%") else int(end)


def _load(config: TransferSetConfig, path: str, **options: Any) -> dict[str, Dataset]:
    """All splits through `datasets`, whose many errors become one line."""
    remedy = "give a folder or file of Parquet, Arrow, CSV, JSON, text or images, or what save_to_disk wrote; no script is run"
    if not Path(path).is_absolute():
        remedy = "there is no local path of that name; for the hub check id, subset, revision and the network"
    if config.sample_by is not None:
        options["sample_by"] = config.sample_by
    # `datasets` says of files that are here that it downloads them
    bars = DownloadConfig(download_desc="Reading files" if Path(path).is_absolute() else None)
    try:
        subset = config.subset
        if subset is not None and Path(path).is_absolute() and subset not in get_dataset_config_names(path):
            subset = None  # a local copy of the subset alone
        options |= {"name": subset, "revision": config.revision, "download_config": bars}
        data, builder = _read(path, options)
        if words := _words_of_classes(config, data):
            data, builder = _read(path, options | words)
        require_one_naming(config, data, files_of(path, builder))
    except OtherLabels:
        raise
    except Exception as error:  # `datasets` and the parsers under it promise no class of errors
        if "doesn't have a 'sample_by' key" in str(error):
            raise TransferSetError(
                f"{config.source} holds no text files, and sample_by says what a row of such files is",
                remedy="drop transfer_set.sample_by",
            ) from None
        if isinstance(error.__cause__ or error, UnicodeDecodeError):
            remedy = UTF8
        what = one_line(error.__cause__ or error)
        if "tokenizing data" in what:
            remedy = COMMAS
        raise TransferSetError(f"cannot open {config.source}: {what}", remedy=remedy) from error
    return dict(data)


def _read(path: str, options: dict[str, Any]) -> tuple[DatasetDict, DatasetBuilder]:
    """What `load_dataset` gives, and what knows the files: to find them takes longer than to read a small table."""
    builder = load_dataset_builder(path, **options)
    builder.download_and_prepare(download_config=options["download_config"])
    return builder.as_dataset(), builder


def _words_of_classes(config: TransferSetConfig, data: Mapping[str, Dataset]) -> dict[str, Any]:
    """How to read a CSV again, where a listed class is called by a word that is read as missing; empty for all others."""
    first = next(iter(data.values()))
    listed = {
        each.column: set(each.classes or ()) & set(MISSING_WORDS) for each in config.targets if each.is_of_classes
    }
    if first.info.builder_name != "csv" or not any(listed.get(name) for name in first.column_names):
        return {}
    words = {name: [word for word in MISSING_WORDS if word not in listed.get(name, ())] for name in first.column_names}
    return {"keep_default_na": False, "na_values": words}


def _saved(config: TransferSetConfig, path: Path) -> dict[str, Dataset]:
    """The splits of what `save_to_disk` wrote; a single dataset is the split that it says it is, or "train"."""
    try:
        data = load_from_disk(str(path))
    except Exception as error:  # as in _load
        raise TransferSetError(
            f"cannot open {path}: {one_line(error.__cause__ or error)}",
            remedy="save the dataset again, or correct source",
        ) from error
    if isinstance(data, Dataset):
        data = DatasetDict({str(data.split or "train"): data})
    require_one_naming(config, data)
    return dict(data)


def split_of(data: Mapping[str, Dataset], split: str, *, config: TransferSetConfig) -> Dataset:
    """The rows of a split, or of slices of splits as `pick` reads them. Raises TransferSetError where one is not there."""

    def whole(name: str) -> Dataset:
        if name in data:
            return data[name]
        column = config.split_column
        more = "; slices are splits too: 'train[:80%]' and 'train[80%:]', of rows in random order"
        raise TransferSetError(
            f"{config.source} has no split {name!r}",
            remedy=f"its splits are {some(data, 20)}{more if column is None else f' (the values of split_column {column!r})'}",
        )

    return whole(split) if split in data or not re.search(r"[\[+]", split) else pick(split, whole)
