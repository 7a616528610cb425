"""All hard labels of a split, block by block, as the arrays that the cache keeps: one a target, and the mask of positions.

`labels` holds those of a target without a name, `labels.NAME` those of others: a class int64 (R,), flags int8 (R, C), values
float32 (R, D); with positions (R, P), (R, P, C), (R, P, D), and `mask` (R, P) uint8 where rows differ in their positions.
Neighbours: `hard_labels` and `wide_labels` read values, `row_positions` counts positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import DTYPES, NONE
from softlabels.labels.targets import Target
from softlabels.transfer.class_names import Names
from softlabels.transfer.columns import column_at, path_of, type_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array, Places, is_list, plain
from softlabels.transfer.hard_labels import hard_labels
from softlabels.transfer.label_config import As, LabelColumn, RowPositions
from softlabels.transfer.lists import items_of
from softlabels.transfer.row_positions import count_positions, into_rows, position_mask
from softlabels.transfer.source import Source
from softlabels.transfer.wide_labels import are_flags, flags, real_values, set_flags

RowKind = tuple[np.dtype[np.generic], tuple[int, ...]]  # of an array (R, ...)
MASK = "mask"
_SCANNED = 4096  # rows of a label column that are looked at together
_TARGETS: dict[As, Target] = {"class": "softmax", "set": "sigmoid", "flags": "sigmoid", "values": "values"}


@dataclass(frozen=True)
class LabelReader:
    """How the label columns of a split are read.

    Attributes:
        columns: one a target; none where there are no hard labels.
        positions: of its rows; None where rows have no positions.
        class_names: by target.
        widths: C or D of the targets whose labels are several numbers.
    """

    columns: tuple[LabelColumn, ...]
    positions: RowPositions | None
    class_names: Mapping[str, Names | None]
    widths: Mapping[str, int]

    @property
    def arrays(self) -> dict[str, RowKind]:
        """Name, and dtype and shape of a row, of each array that `read` gives."""
        lead = () if self.positions is None else (self.positions.most,)
        found = {array_name(each.target): (_dtype(each), (*lead, *self._width(each.target))) for each in self.columns}
        if self.positions is None:
            return found or {array_name(""): (np.dtype(np.int64), ())}
        return found if self.positions.fixed else {**found, MASK: (np.dtype(np.uint8), lead)}

    def _width(self, target: str) -> tuple[int, ...]:
        return (self.widths[target],) if target in self.widths else ()

    @property
    def row_bytes(self) -> int:
        """Of the arrays of a row of positions; 0 of other rows, whose labels are small beside their inputs."""
        if self.positions is None:
            return 0
        return sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values())

    def read(self, table: pa.Table, *, start: int) -> dict[str, Array]:
        """The arrays (B, ...) of a block; `start` is the number of its first row.

        Raises:
            TransferSetError: a column of another type; a row of no positions or too many, or with another number of labels.
            LabelError: a value that is no label.
        """
        rows = range(start, start + len(table))
        columns = {each.target: plain(column_at(table, each.column)) for each in self.columns}
        if self.positions is None:
            found = {array_name(each.target): self._read(each, columns[each.target], rows) for each in self.columns}
            return found or {array_name(""): np.full(len(table), NO_LABEL, np.int64)}
        items = {
            each: items_of(
                columns[each.target], name=each.column, rows=rows, unit="position", wanted="lists, a label a position"
            )
            for each in self.columns
        }
        lengths = {each.column: lengths for each, (lengths, _, _) in items.items()}
        counts, most = count_positions(self.positions, table, lengths, start=start), self.positions.most
        found = {} if self.positions.fixed else {MASK: position_mask(counts, most).astype(np.uint8)}
        for each, (own, values, places) in items.items():
            labels = self._read(each, values, places)
            fill = NONE[_TARGETS[each.kind]]
            found[array_name(each.target)] = into_rows(labels, counts, own >= 0, most=most, fill=fill)
        return found

    def of_rows(self, arrays: Mapping[str, Array], rows: int) -> dict[str, Any]:
        """`labels`, `named`, `positions`, `ragged` and `mask` of `TransferRows`, of the arrays (R, ...) that `read` gave."""
        named = {each.target: arrays[array_name(each.target)] for each in self.columns if each.target}
        lead = (rows,) if self.positions is None else (rows, self.positions.most)
        nothing = np.broadcast_to(np.int64(NO_LABEL), lead[:1] if named else lead)
        found: dict[str, Any] = {"labels": arrays.get(array_name(""), nothing), "named": named}
        if self.positions is not None:
            every = np.broadcast_to(np.uint8(1), lead)
            found |= {
                "positions": self.positions.most,
                "ragged": not self.positions.fixed,
                "mask": arrays.get(MASK, every),
            }
        return found

    def _read(self, column: LabelColumn, array: pa.Array, rows: Places) -> Array:
        """Labels (B, ...), one a row of `array`."""
        name, names = column.column, self.class_names.get(column.target)
        if column.kind == "class":
            return hard_labels(array, name=name, class_names=names, rows=rows, listed=column.listed)
        if column.kind == "set":
            return set_flags(array, name=name, class_names=names or (), rows=rows, listed=column.listed)
        read = flags if column.kind == "flags" else real_values
        return read(array, name=name, width=self.widths[column.target], rows=rows)


def array_name(target: str) -> str:
    """Of the array that holds a target's hard labels."""
    return f"labels.{target}" if target else "labels"


def _dtype(column: LabelColumn) -> np.dtype[np.generic]:
    return np.dtype(DTYPES[_TARGETS[column.kind]])


def label_reader(config: TransferSetConfig, source: Source) -> LabelReader:
    """The reader of a split.

    Raises:
        TransferSetError: nothing says how many numbers a label is, or flags are called a set.
    """
    in_lists = config.row_positions is not None
    wide = [each for each in config.targets if each.kind != "class"]
    widths = {each.target: _width_of(each, source, in_lists=in_lists) for each in wide}
    for each in wide:
        if each.kind == "set" and are_flags(_lists(each.column, source, in_lists=in_lists), widths[each.target]):
            raise TransferSetError(
                f"label column {each.column!r} is read as a set of class ids, and each of its lists holds "
                f"{widths[each.target]} times 0 or 1, one for every class",
                remedy="of flags say as: flags (label_as: flags where targets have no names); of class ids list each once",
            )
    return LabelReader(config.targets, config.row_positions, source.class_names, widths)


def _width_of(column: LabelColumn, source: Source, *, in_lists: bool) -> int:
    """C or D: of the names, else of the first label that is there; `in_lists`: a row is a list of labels."""
    if names := source.class_names.get(column.target):
        return len(names)
    if column.kind == "set":
        raise TransferSetError(
            f"label column {column.column!r} lists classes, and the source does not name all classes",
            remedy=f"list all of them, in order, in {column.listed}",
        )
    kind = type_at(source.data.features.arrow_schema, column.column)
    if in_lists and is_list(kind):
        kind = kind.value_type
    if not is_list(kind) and not pa.types.is_null(kind):
        return 1
    lists = _lists(column.column, source, in_lists=in_lists)
    lengths = (length for array in lists for length in pc.list_value_length(array).to_pylist())
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else next(filter(None, lengths), 0)
    if width < 1:
        raise TransferSetError(
            f"label column {column.column!r} holds no number in any row, so the size of a label is not known",
            remedy=f"name them in {column.listed}, or drop the column from transfer_set.label",
        )
    return int(width)


def _lists(name: str, source: Source, *, in_lists: bool) -> Iterator[pa.Array]:
    """The lists of one label each, those that are there, block by block."""
    data = source.data.select_columns(path_of(name, source.data.column_names)[:1])
    for start in range(0, source.rows, _SCANNED):
        array = plain(column_at(data[start : start + _SCANNED], name))
        if in_lists and is_list(array.type):
            array = array.flatten()
        if is_list(array.type):
            yield array.drop_null()
