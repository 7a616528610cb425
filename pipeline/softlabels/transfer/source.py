"""Open one split of a transfer set as Arrow blocks: a local folder or file, a hub id, or what a user's factory returns.

Not here: how files are read (`files`), what the values of a column are (`decode`, `hard_labels`).
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
from datasets import Dataset, Image

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec, build
from softlabels.transfer.class_names import Names, require_one_naming
from softlabels.transfer.columns import class_names_at, column_at, feature_at, path_of, shown_columns, type_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import file_bytes, is_file
from softlabels.transfer.files import COMMAS, from_files, pick, split_of
from softlabels.transfer.images import decode_image
from softlabels.transfer.pretrained import one_line
from softlabels.transfer.split_column import ColumnSplits

_DIGEST_ROWS = 256


@dataclass(frozen=True)
class Source:
    """One open split.

    Attributes:
        data: the rows, columns as the recipe names them, in Arrow format.
        class_names: ordered names of the classes, or values, of each target, where recipe or source give them; "" is the
            target without a name.
        identity: changes whenever what was opened changes; part of the cache's name.
        images: the columns of files that hold images; other files, such as audio, reach the prepare function as bytes.
        text_by: of text files what a row is: line, paragraph or document.
        notes: what is worth a line: rows that are in no split, rows that were made.
        pseudo: which rows were made, and how; "" where all are the source's.
    """

    data: Dataset
    class_names: Mapping[str, Names | None]
    identity: str
    images: frozenset[str] = frozenset()
    text_by: str | None = None
    notes: tuple[str, ...] = ()
    pseudo: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.data)


def open_split(config: TransferSetConfig, split: str) -> Source:
    """Open `split` (its name in the store).

    Raises:
        TransferSetError: unknown or empty split, missing column, or a source that cannot be opened.
        OtherLabels: splits or files of the source name the classes otherwise.
    """
    if split not in config.splits:
        raise TransferSetError(
            f"there is no split {split!r}", remedy=f"the recipe's splits are {', '.join(config.splits) or 'empty'}"
        )
    data, note = _rows_of(config, config.splits[split])
    schema = data.features.arrow_schema
    for column in _columns(config):
        if type_at(schema, column) is None:
            raise TransferSetError(
                f"{config.origin} has no column {column!r}",
                remedy=f"its columns are {shown_columns(schema)}{_cut(data)}",
            )
    if len(data) == 0:
        raise TransferSetError(
            f"split {config.splits[split]!r} of {config.origin} has no rows", remedy="name another split"
        )
    class_names = _class_names(config, data)
    wanted = list(dict.fromkeys(path_of(column, data.column_names)[0] for column in _columns(config)))
    data = data.select_columns(wanted).with_format("arrow")
    identity = content_identity(data) if config.factory is not None else _file_identity(config, data)
    return Source(
        data=data,
        class_names=class_names,
        identity=identity,
        images=frozenset(name for name in config.inputs if _holds_images(data, name)),
        text_by=(config.sample_by or "line") if data.info.builder_name == "text" else None,
        notes=() if note is None else (note,),
    )


def _rows_of(config: TransferSetConfig, split: str) -> tuple[Dataset, str | None]:
    """The rows of a split, by its name in the source, and a line about those that are in none."""
    if config.factory is not None:
        factory = config.factory
        if "[" not in split:
            return _from_factory(config, factory, split), None
        return pick(split, lambda name: _from_factory(config, factory, name)), None
    splits = from_files(config)
    note = splits.note(config.splits.values()) if isinstance(splits, ColumnSplits) else None
    return split_of(splits, split, config=config), note


def _columns(config: TransferSetConfig) -> list[str]:
    """The columns that are read, each once."""
    length = None if config.row_positions is None else config.row_positions.length
    labels = [each.column for each in config.targets]
    keys = [] if config.key == "content" else [config.key]
    return list(dict.fromkeys([*config.inputs, *labels, *keys, *([] if length is None else [length])]))


def _class_names(config: TransferSetConfig, data: Dataset) -> dict[str, Names | None]:
    """Of each target, "" for the one without a name, which has those of the recipe where there are no labels."""
    found: dict[str, Names | None] = {} if config.targets else {"": config.classes}
    for each in config.targets:
        found[each.target] = each.classes
        if each.classes is None and each.is_of_classes:
            found[each.target] = class_names_at(data.features, each.column)
    return found


def _cut(data: Dataset) -> str:
    """What to say of a CSV that was cut at the commas and has none."""
    if data.info.builder_name == "csv" and len(data.column_names) == 1 and re.search("[;|\t]", data.column_names[0]):
        return f"; {COMMAS}"
    return ""


def _holds_images(data: Dataset, name: str) -> bool:
    """Whether a column of files holds images: as its feature says; where it says nothing, as the first file does."""
    if not is_file(type_at(data.features.arrow_schema, name)):
        return False
    feature = feature_at(data.features, name)
    if not isinstance(feature, dict):
        return isinstance(feature, Image)
    files = (column_at(data[row : row + 1], name)[0].as_py() for row in range(len(data)))
    try:
        return any(decode_image(file_bytes(file)) for file in files if file is not None)
    except (OSError, ValueError):
        return False


def _from_factory(config: TransferSetConfig, factory: ObjectSpec, split: str) -> Dataset:
    found = build(factory, split=split)
    data = dataset_of(found, factory.class_path)
    if data is found:
        require_one_naming(config, {split: data})
    return data


def dataset_of(data: object, who: str) -> Dataset:
    """What the function `who` of a recipe returned: a dataset, or columns by name. Raises `TransferSetError` for others."""
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Mapping):
        raise TransferSetError(
            f"{who} returned a {type(data).__name__}",
            remedy="return a datasets.Dataset or a dict of numpy arrays",
        )
    try:
        table = pa.table({str(name): arrow_column(values) for name, values in data.items()})
        return Dataset(table, fingerprint="factory")
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TransferSetError(
            f"{who} returned columns that make no table: {one_line(error)}",
            remedy="return numpy arrays of numbers or text with the same first axis",
        ) from error


def arrow_column(values: Sequence[object] | np.ndarray[Any, np.dtype[Any]]) -> pa.Array:
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


def content_identity(data: Dataset) -> str:
    """Digest of every value: what a factory returns may change while its name and arguments stay."""
    hasher = blake3()
    for start in range(0, len(data), _DIGEST_ROWS):
        table = data[start : start + _DIGEST_ROWS]
        for name in table.column_names:
            files = table.column(name).to_pylist() if is_file(table.column(name).type) else []
            for file in files:
                if file is not None and file["bytes"] is None and file["path"] is not None:
                    hasher.update(file_bytes(file))  # of a file that is named by path
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        hasher.update(memoryview(sink.getvalue()))
    return hasher.hexdigest()
