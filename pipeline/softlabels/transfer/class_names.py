"""What the numbers of a label column mean: all splits and files of a source must say the same.

A Parquet or Arrow file keeps the names of its classes, and so does each split that `save_to_disk` wrote. `datasets` gives all
files of a folder the names of the first one, whatever the others say: the numbers of a file with another order get wrong names.
Neighbours: `files` opens them, `hard_labels` reads the column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetBuilder, Features

from softlabels.errors import OtherLabels
from softlabels.transfer.columns import feature_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.label_config import LabelColumn

Names = tuple[str, ...]


def require_one_naming(config: TransferSetConfig, data: Mapping[str, Dataset], files: Iterable[Path] = ()) -> None:
    """Check that recipe, splits and the files that they come from name the numbers of the label column alike.

    Raises:
        OtherLabels: a name has one number here and another there; or, where the recipe lists no classes, names differ, or some
            splits have names and others numbers alone.
    """
    wanted = {name for split in config.splits.values() for name in re.split(r"\[[^\]]*\]|[+\s]", split)}
    chosen = {name: each for name, each in data.items() if name in wanted or config.split_column is not None}
    for label in config.targets:
        if label.is_of_classes:
            _require_of_column(label, chosen, files)


def _require_of_column(label: LabelColumn, data: Mapping[str, Dataset], files: Iterable[Path]) -> None:
    column, listed = label.column, label.listed
    columns = {f"split {name}": feature_at(each.features, column) for name, each in data.items()}
    named = {where: tuple(each.names) for where, each in columns.items() if isinstance(each, ClassLabel)}
    known = {} if label.classes is None else {listed: label.classes}
    found = list((known | named | dict(_in_files(files, column))).items())
    for (where, names), (other, others) in combinations(found, 2):
        _require_alike(column, (where, names), (other, others), listed=listed, strict=not known)
    numbers = [
        where
        for where, each in columns.items()
        if where not in named and getattr(each, "dtype", "")[:3] in ("int", "uin")
    ]
    if named and numbers and not known:
        where, names = next(iter(named.items()))
        raise OtherLabels(
            f"label column {column!r} has class names in {where} and numbers alone in {numbers[0]}",
            remedy=f"if the numbers mean the same, list the names in {listed}: [{', '.join(names)}]",
        )


def _require_alike(column: str, one: tuple[str, Names], other: tuple[str, Names], *, listed: str, strict: bool) -> None:
    (where, names), (there, others) = one, other
    moved = [name for number, name in enumerate(names) if name in others and others.index(name) != number]
    if moved:
        numbers = f"{names.index(moved[0])} in {where} and {others.index(moved[0])} in {there}"
        raise OtherLabels(
            f"class {moved[0]!r} of label column {column!r} is number {numbers} ({len(moved)} of {len(names)} classes moved)",
            remedy="number the classes alike and write the file again"
            if listed not in (where, there)
            else f"give {listed} in the order of the numbers, or leave it out",
        )
    if strict and names != others:
        number, (here, beside) = next(
            (i, each) for i, each in enumerate(zip_longest(names, others)) if each[0] != each[1]
        )
        raise OtherLabels(
            f"class {number} of label column {column!r} is {here!r} in {where} and {beside!r} in {there}",
            remedy=f"if the numbers mean the same, list the names in {listed}; else number the classes alike",
        )


def files_of(path: str, builder: DatasetBuilder) -> list[Path]:
    """The local Parquet or Arrow files that a builder of `datasets` reads; none of builders of other kinds."""
    if builder.name not in ("parquet", "arrow") or not Path(path).is_absolute():
        return []
    chosen = builder.config.data_files or {}
    return [file for each in chosen.values() for file in map(Path, each) if file.suffix in (".parquet", ".arrow")]


def _in_files(files: Iterable[Path], column: str) -> Iterator[tuple[str, Names]]:
    """The files that name the classes of a column."""
    for file in files:
        feature = feature_at(Features.from_arrow_schema(_schema(file)), column)
        if isinstance(feature, ClassLabel):
            yield file.name, tuple(feature.names)


def _schema(file: Path) -> pa.Schema:
    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_file(source).schema
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).schema
