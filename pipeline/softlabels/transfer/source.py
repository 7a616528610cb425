"""Open one split of a transfer set as Arrow blocks: a local folder or file, a hub id, or what a user's factory returns.

Everything is read through `datasets`, which runs no code that it finds in a data folder or on the hub.
Not here: what the columns mean (`decode`, `hard_labels`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from datasets import ClassLabel, Dataset, DatasetDict, get_dataset_config_names, load_dataset, load_from_disk

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec, build
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import image_bytes, is_image

# Owner and name: `datasets` takes a lone name like "csv" for a file format and reads what lies in the working directory.
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DIGEST_ROWS = 256


@dataclass(frozen=True)
class Source:
    """One open split.

    Attributes:
        data: the rows, columns as the recipe names them, in Arrow format.
        class_names: ordered class names of the label column, where recipe or source give them.
        identity: changes whenever what was opened changes; part of the cache's name.
    """

    data: Dataset
    class_names: tuple[str, ...] | None
    identity: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.data)

    def block(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of every column."""
        table: pa.Table = self.data[start:stop]
        return table


def open_split(config: TransferSetConfig, split: str) -> Source:
    """Open `split` (its name in the store).

    Raises:
        TransferSetError: unknown or empty split, missing column, or a source that cannot be opened.
    """
    if split not in config.splits:
        raise TransferSetError(
            f"there is no split {split!r}", remedy=f"the recipe's splits are {', '.join(config.splits) or 'empty'}"
        )
    if config.factory is not None:
        data = _from_factory(config.factory, config.splits[split])
    else:
        data = _from_source(config, config.splits[split])
    wanted = _wanted_columns(config)
    for column in wanted:
        if column not in data.column_names:
            raise TransferSetError(
                f"{config.origin} has no column {column!r}", remedy=f"its columns are {', '.join(data.column_names)}"
            )
    if len(data) == 0:
        raise TransferSetError(
            f"split {config.splits[split]!r} of {config.origin} has no rows", remedy="name another split"
        )
    class_names = config.classes
    if (
        class_names is None
        and config.label_column is not None
        and isinstance(data.features[config.label_column], ClassLabel)
    ):
        class_names = tuple(data.features[config.label_column].names)
    data = data.select_columns(wanted).with_format("arrow")
    identity = _content_identity(data) if config.factory is not None else _file_identity(config, data)
    return Source(data=data, class_names=class_names, identity=identity)


def _wanted_columns(config: TransferSetConfig) -> list[str]:
    """The columns that the recipe names, each once."""
    label = [] if config.label_column is None else [config.label_column]
    key = [] if config.key == "content" else [config.key]
    return list(dict.fromkeys([*config.inputs, *label, *key]))


def _from_source(config: TransferSetConfig, split: str) -> Dataset:
    """A local path if there is one of that name, else a hub id."""
    source = str(config.source)
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _saved(path, split)
        return _load(config, split, str(path.resolve()))
    if path.is_file():
        whole = path.resolve()
        return _load(config, split, str(whole.parent), data_files={"train": whole.name})
    if not _HUB_ID.fullmatch(source):
        raise TransferSetError(
            f"there is no file or folder {source}", remedy="correct source, or name a hub id as owner/name"
        )
    return _load(config, split, source)


def _load(config: TransferSetConfig, split: str, path: str, **options: Any) -> Dataset:
    """One split through `load_dataset`, whose many errors become one line."""
    remedy = (
        "give a folder or file of Parquet, Arrow, CSV, JSON or images, or what save_to_disk wrote; scripts are not run"
    )
    if not Path(path).is_absolute():
        remedy = "there is no local path of that name; for the hub check id, subset, revision and the network"
    try:
        subset = config.subset
        if subset is not None and Path(path).is_absolute() and subset not in get_dataset_config_names(path):
            subset = None  # a local copy of the subset alone
        data = load_dataset(path, name=subset, revision=config.revision, **options)
    except Exception as error:  # `datasets` and the parsers under it promise no class of errors
        raise TransferSetError(f"cannot open {config.source}: {_one_line(error)}", remedy=remedy) from error
    return _pick(data, split, str(config.source))


def _saved(path: Path, split: str) -> Dataset:
    """One split of what `save_to_disk` wrote; a single dataset is the split that it says it is, or "train"."""
    try:
        data = load_from_disk(str(path))
    except Exception as error:  # as in _load
        raise TransferSetError(
            f"cannot open {path}: {_one_line(error)}", remedy="save the dataset again, or correct source"
        ) from error
    if isinstance(data, Dataset):
        data = DatasetDict({str(data.split or "train"): data})
    return _pick(data, split, str(path))


def _pick(data: Mapping[str, Dataset], split: str, source: str) -> Dataset:
    if split not in data:
        raise TransferSetError(f"{source} has no split {split!r}", remedy=f"its splits are {', '.join(map(str, data))}")
    return data[split]


def _from_factory(factory: ObjectSpec, split: str) -> Dataset:
    data = build(factory, split=split)
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Mapping):
        raise TransferSetError(
            f"{factory.class_path} returned a {type(data).__name__}",
            remedy="return a datasets.Dataset or a dict of numpy arrays",
        )
    try:
        table = pa.table({str(name): _arrow(values) for name, values in data.items()})
        return Dataset(table, fingerprint="factory")
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TransferSetError(
            f"{factory.class_path} returned columns that make no table: {_one_line(error)}",
            remedy="return numpy arrays of numbers or text with the same first axis",
        ) from error


def _arrow(values: Sequence[object] | np.ndarray[Any, np.dtype[Any]]) -> pa.Array:
    """A column of an Arrow table; a numeric array is not copied."""
    if not isinstance(values, np.ndarray) or values.ndim < 2:
        return pa.array(values)
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _file_identity(config: TransferSetConfig, data: Dataset) -> str:
    """The fingerprint that `datasets` keeps, and of local files name, size and time of change."""
    hasher = blake3(data._fingerprint.encode())
    root = Path(str(config.source)).expanduser()
    if root.exists():
        folders = os.walk(root)
        files = [root] if root.is_file() else [Path(folder, name) for folder, _, names in folders for name in names]
        for file in sorted(files):
            status = file.stat()
            hasher.update(f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return hasher.hexdigest()


def _content_identity(data: Dataset) -> str:
    """Digest of every value: what a factory returns may change while its name and arguments stay."""
    hasher = blake3()
    for start in range(0, len(data), _DIGEST_ROWS):
        table = data[start : start + _DIGEST_ROWS]
        for name in table.column_names:
            column = table.column(name)
            if is_image(column.type):
                _hash_files(hasher, column)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        hasher.update(memoryview(sink.getvalue()))
    return hasher.hexdigest()


def _hash_files(hasher: blake3, column: pa.ChunkedArray) -> None:
    """The files that a block of images names by path."""
    for file in column.to_pylist():
        if file is not None and file["bytes"] is None and file["path"] is not None:
            hasher.update(image_bytes(file))


def _one_line(error: Exception) -> str:
    """Class and message of an error, the cause that was wrapped last, on one line."""
    cause = error.__cause__ if error.__cause__ is not None else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:400]
