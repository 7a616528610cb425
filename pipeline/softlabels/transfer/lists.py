"""A list column one level down: its items one after the other, how many each row has, and where each stands.

B rows of a block, N items of all of them. Neighbours: `row_positions` puts what was made of the items back into rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import Places, is_list, is_text, storage

IN_TEXT = "; lists in text, as of a CSV, are none: write Parquet or JSON lines"  # of a remedy
Ints = npt.NDArray[np.int64]


class Inside:
    """The places of the items of lists: `7, position 3`."""

    def __init__(self, rows: Places, lengths: Ints, unit: str) -> None:
        self._rows, self._unit = rows, unit
        self._ends = np.cumsum(np.maximum(lengths, 0))

    def __getitem__(self, number: int) -> str:
        row = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[row - 1]) if row else 0
        return f"{self._rows[row]}, {self._unit} {number - first}"


def items_of(array: pa.Array, *, name: str, rows: Places, unit: str, wanted: str) -> tuple[Ints, pa.Array, Inside]:
    """Of a list column: how many items each row has (B,), -1 for a null; the items (N,); and their places.

    Args:
        array: the column.
        name: of the column, for messages.
        rows: the places of its rows.
        unit: what an item is.
        wanted: what a row should hold, for the message where it holds no list.

    Raises:
        TransferSetError: the rows are no lists.
    """
    if pa.types.is_null(array.type):
        return (lengths := np.full(len(array), -1)), array[:0], Inside(rows, lengths, unit)
    if not is_list(array.type):
        raise TransferSetError(
            f"label column {name!r} has type {array.type}, and its rows are to be {wanted}",
            remedy="name a list column" + IN_TEXT * is_text(array.type),
        )
    lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, storage(array.flatten()), Inside(rows, lengths, unit)
