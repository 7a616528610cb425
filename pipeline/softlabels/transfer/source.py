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
from datasets import ClassLabel, Dataset, Image

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec, build
from softlabels.transfer.class_names import require_one_naming
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import file_bytes, is_file
from softlabels.transfer.files import COMMAS, from_files, pick
from softlabels.transfer.images import decode_image
from softlabels.transfer.pretrained import one_line

_DIGEST_ROWS = 256


@dataclass(frozen=True)
class Source:
    """One open split.

    Attributes:
        data: the rows, columns as the recipe names them, in Arrow format.
        class_names: ordered class names of the label column, where recipe or source give them.
        identity: changes whenever what was opened changes; part of the cache's name.
        images: the columns of files that hold images; other files, such as audio, reach the prepare function as bytes.
        text_by: of text files what a row is: line, paragraph or document.
    """

    data: Dataset
    class_names: tuple[str, ...] | None
    identity: str
    images: frozenset[str] = frozenset()
    text_by: str | None = None

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
    if config.factory is not None:
        factory = config.factory
        data = pick(config.splits[split], lambda name: _from_factory(config, factory, name))
    else:
        data = from_files(config, config.splits[split])
    keys = [] if config.key == "content" else [config.key]
    labels = [] if config.label_column is None else [config.label_column]
    wanted = list(dict.fromkeys([*config.inputs, *labels, *keys]))  # each once
    for column in wanted:
        if column not in data.column_names:
            raise TransferSetError(
                f"{config.origin} has no column {column!r}",
                remedy=f"its columns are {', '.join(data.column_names)}{_cut(data)}",
            )
    if len(data) == 0:
        raise TransferSetError(
            f"split {config.splits[split]!r} of {config.origin} has no rows", remedy="name another split"
        )
    class_names, feature = config.classes, data.features.get(config.label_column)
    if class_names is None and isinstance(feature, ClassLabel):
        class_names = tuple(feature.names)
    data = data.select_columns(wanted).with_format("arrow")
    identity = _content_identity(data) if config.factory is not None else _file_identity(config, data)
    return Source(
        data=data,
        class_names=class_names,
        identity=identity,
        images=frozenset(name for name in config.inputs if _holds_images(data, name)),
        text_by=(config.sample_by or "line") if data.info.builder_name == "text" else None,
    )


def _cut(data: Dataset) -> str:
    """What to say of a CSV that was cut at the commas and has none."""
    if data.info.builder_name == "csv" and len(data.column_names) == 1 and re.search("[;|\t]", data.column_names[0]):
        return f"; {COMMAS}"
    return ""


def _holds_images(data: Dataset, name: str) -> bool:
    """Whether a column of files holds images: as its feature says; where it says nothing, as the first file does."""
    if not is_file(data.features.arrow_schema.field(name).type):
        return False
    if not isinstance(data.features[name], dict):
        return isinstance(data.features[name], Image)
    files = (data[row : row + 1].column(name)[0].as_py() for row in range(len(data)))
    try:
        return any(decode_image(file_bytes(file)) for file in files if file is not None)
    except (OSError, ValueError):
        return False


def _from_factory(config: TransferSetConfig, factory: ObjectSpec, split: str) -> Dataset:
    data = build(factory, split=split)
    if isinstance(data, Dataset):
        require_one_naming(config, {split: data})
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
            f"{factory.class_path} returned columns that make no table: {one_line(error)}",
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
            files = table.column(name).to_pylist() if is_file(table.column(name).type) else []
            for file in files:
                if file is not None and file["bytes"] is None and file["path"] is not None:
                    hasher.update(file_bytes(file))  # of a file that is named by path
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        hasher.update(memoryview(sink.getvalue()))
    return hasher.hexdigest()
