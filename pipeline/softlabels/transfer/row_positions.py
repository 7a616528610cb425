"""How many positions each row of a block has, and labels of positions one after the other put into their rows.

B rows of a block, P positions that the arrays have, N positions that the rows have.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from softlabels.errors import TransferSetError
from softlabels.transfer.columns import column_at
from softlabels.transfer.decode import Array, first_null, plain
from softlabels.transfer.label_config import RowPositions
from softlabels.transfer.lists import Ints

_RULE = "transfer_set.positions"


def count_positions(rule: RowPositions, table: pa.Table, labels: Mapping[str, Ints], *, start: int) -> Ints:
    """The positions (B,) that each row of a block has.

    Args:
        rule: what the recipe says.
        table: the block.
        labels: by label column how many labels each row has, -1 for a null.
        start: number of its first row.

    Raises:
        TransferSetError: a row of no positions or too many, or with another number of labels.
    """
    if rule.fixed:
        counts, said = np.full(len(table), rule.most), f"{_RULE}: {rule.most}"
    elif rule.length is not None:
        counts, said = _lengths(table, rule.length, start=start), f"length column {rule.length!r}"
    else:
        name = next(iter(labels))
        counts, said = labels[name], f"label column {name!r}"
        if (counts < 0).any():
            raise TransferSetError(
                f"row {start + int(np.argmin(counts))} has no list in {said}, which says how many positions it has",
                remedy=f"fill or filter such rows, or give {_RULE}.length",
            )
    wrong = np.flatnonzero((counts < 1) | (counts > rule.most))
    if wrong.size:
        raise TransferSetError(
            f"row {start + wrong[0]} has {counts[wrong[0]]} positions ({said}), and {_RULE} allows 1 to {rule.most}",
            remedy="filter such rows" if counts[wrong[0]] < 1 else "raise most, or cut or filter such rows",
        )
    counts = counts.astype(np.int64)
    for name, lengths in labels.items():
        wrong = np.flatnonzero((lengths >= 0) & (lengths != counts))
        if wrong.size:
            row = int(wrong[0])
            raise TransferSetError(
                f"row {start + row} has {lengths[row]} labels in column {name!r} and {counts[row]} positions ({said})",
                remedy="give a label for each position of the row, null or -1 where it has none"
                + f"; where rows have as many positions as labels, say positions: {{most: {rule.most}}}" * rule.fixed,
            )
    return counts


def _lengths(table: pa.Table, name: str, *, start: int) -> Array:
    array = plain(column_at(table, name))
    if not pa.types.is_integer(array.type):
        raise TransferSetError(
            f"length column {name!r} has type {array.type}",
            remedy="name a column of whole numbers, the positions of each row, in transfer_set.positions.length",
        )
    if array.null_count:
        raise TransferSetError(
            f"length column {name!r} is null in row {start + first_null(array)}", remedy="fill or filter such rows"
        )
    return np.asarray(array.to_numpy(zero_copy_only=False))


def position_mask(counts: Ints, most: int) -> npt.NDArray[np.bool_]:
    """(B, P): which positions each row has."""
    return np.arange(most) < counts[:, None]


def into_rows(values: Array, counts: Ints, known: npt.NDArray[np.bool_], *, most: int, fill: float) -> Array:
    """The labels (N, ...) of the rows' positions as (B, P, ...), `fill` beyond them and in rows that are not `known` (B,)."""
    found = np.full((len(counts), most, *values.shape[1:]), fill, values.dtype)
    found[position_mask(counts, most) & known[:, None]] = values
    return found
