"""A source that is one table, and a column of it that says which split a row belongs to.

The rows of a split are in the order in which the source has them. Neighbour: `files` opens the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from softlabels.errors import TransferSetError, some
from softlabels.transfer.columns import column_at, feature_at, path_of, shown_columns, type_at
from softlabels.transfer.decode import first_null, is_text, plain, texts


class ColumnSplits(Mapping[str, Dataset]):
    """The rows of `data` by the value of a column, as text: `0`, `true`; of a column that has class names, the name.

    Raises:
        TransferSetError: no such column, of a type that names no splits, or with nulls.
    """

    def __init__(self, data: Dataset, column: str, *, source: str) -> None:
        if type_at(data.features.arrow_schema, column) is None:
            raise TransferSetError(
                f"{source} has no column {column!r} that says which split a row belongs to",
                remedy=f"its columns are {shown_columns(data.features.arrow_schema)}; correct transfer_set.split_column",
            )
        self._data, self._column = data, column
        self._values = self._texts()
        self._names: list[str] = pc.unique(self._values).to_pylist()

    def _texts(self) -> pa.Array:
        column = self._column
        every = self._data.select_columns(path_of(column, self._data.column_names)[:1])
        array = plain(column_at(every.with_format("arrow")[:], column))
        feature = feature_at(self._data.features, column)
        if array.null_count or (isinstance(feature, ClassLabel) and pc.any(pc.less(array, 0)).as_py()):
            row = first_null(array) if array.null_count else int(np.argmin(array.to_numpy()))
            raise TransferSetError(
                f"split_column {column!r} is null in row {row}",
                remedy="give every row a split, or filter such rows",
            )
        if isinstance(feature, ClassLabel):
            return pa.array(feature.names).take(array)
        if is_text(array.type):
            return pa.array(texts(array, what=f"split_column {column!r}", rows=range(len(array))), pa.string())
        if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
            return array.cast(pa.string())
        raise TransferSetError(
            f"split_column {column!r} has type {array.type}", remedy="name a column of text, whole numbers or booleans"
        )

    def __getitem__(self, name: str) -> Dataset:
        if name not in self._names:
            raise KeyError(name)
        return self._data.select(np.flatnonzero(pc.equal(self._values, name).to_numpy(zero_copy_only=False)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def note(self, wanted: Iterable[str]) -> str | None:
        """A line on the rows that none of the recipe's splits takes; None where there are none."""
        named = set(self._names)
        taken = {
            each for split in wanted for each in ([split] if split in named else re.split(r"\[[^\]]*\]|\+", split))
        }
        left = [name for name in self._names if name not in {each.strip() for each in taken}]
        if not left:
            return None
        count = pc.sum(pc.is_in(self._values, pa.array(left, pa.string()))).as_py()
        return (
            f"{count:,} of {len(self._data):,} rows are in none of transfer_set.splits: {some(map(repr, left))} "
            f"(split_column: {self._column})"
        )
