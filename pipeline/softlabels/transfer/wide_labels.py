"""Hard labels that are several numbers: a flag for each class of a sigmoid target, a vector of real values.

A flag is int8: 1 where the class holds, 0 where it does not, -1 where nobody knows. A vector is float32, NaN where there is
none. Neighbour: `hard_labels` has those that are one class. B labels of a block, one a row or one a position; C classes, D
values, W either.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import LabelError, TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.transfer.decode import Places, is_list, is_text, storage
from softlabels.transfer.hard_labels import hard_labels
from softlabels.transfer.label_config import LISTED
from softlabels.transfer.lists import IN_TEXT, items_of

Flags = npt.NDArray[np.int8]
_MOST = float(np.finfo(np.float32).max)


def set_flags(array: pa.Array, *, name: str, class_names: tuple[str, ...], rows: Places, listed: str = LISTED) -> Flags:
    """Flags (B, C) of lists of the classes that hold, as numbers or names; of a null all are -1. Arguments as of `hard_labels`.

    Raises:
        TransferSetError: a column of another type. LabelError: an item that is no class.
    """
    lengths, items, places = items_of(array, name=name, rows=rows, unit="item", wanted="lists of classes")
    if pa.types.is_boolean(items.type):
        raise TransferSetError(
            f"label column {name!r} lists false and true, and a set lists the classes that apply",
            remedy="say as: flags (label_as: flags where targets have no names)",
        )
    classes = hard_labels(items, name=name, class_names=class_names, rows=places, listed=listed)
    wrong = np.flatnonzero(classes < 0)
    if wrong.size:
        raise LabelError(
            f"column {name!r} lists no class in row {places[int(wrong[0])]}",
            remedy="a set lists the classes that apply: drop null and -1; an empty list says that none applies, "
            "null in its place that it is unknown",
        )
    flags = np.zeros((len(array), len(class_names)), np.int8)
    flags[np.repeat(np.arange(len(array)), np.maximum(lengths, 0)), classes] = 1
    flags[lengths < 0] = NO_LABEL
    return flags


def are_flags(blocks: Iterable[pa.Array], classes: int) -> bool:
    """Whether lists that are to be sets of `classes` are flags: each has a 0 or 1 (or null, -1) for every class, and as sets
    some would hold a class twice, or one that there is not.
    """
    impossible = False
    for lists in blocks:
        items = storage(lists.flatten())
        if pa.types.is_null(items.type) or not len(items):
            continue
        if not (pa.types.is_integer(items.type) or pa.types.is_floating(items.type)):
            return False
        numbers = np.nan_to_num(items.fill_null(NO_LABEL).to_numpy(zero_copy_only=False), nan=NO_LABEL)
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        if (lengths != classes).any() or not np.isin(numbers, (NO_LABEL, 0, 1)).all():
            return False
        rows = np.sort(numbers.reshape(-1, classes), axis=1)
        impossible |= bool((rows >= classes).any() or (rows[:, 1:] == rows[:, :-1]).any())
    return impossible


def flags(array: pa.Array, *, name: str, width: int, rows: Places) -> Flags:
    """Flags (B, C) of lists of `width` = C flags, or of a flag a row: 0, 1, false, true; null and NaN are -1.

    Raises:
        TransferSetError: a column of another type. LabelError: lists of another length, or what is no flag.
    """
    values, known = _numbers(array, name=name, width=width, rows=rows)
    known &= ~np.isnan(values)
    wrong = np.argwhere(known & (values != 0) & (values != 1))
    if wrong.size:
        row, place = wrong[0].tolist()
        raise LabelError(
            f"flag {values[row, place]:g} of class {place} in row {rows[row]} of column {name!r} is neither 0 nor 1",
            remedy="write 0, 1, or null where it is unknown; of lists of classes say as: set",
        )
    return np.where(known, values, NO_LABEL).astype(np.int8)


def real_values(array: pa.Array, *, name: str, width: int, rows: Places) -> npt.NDArray[np.float32]:
    """Vectors (B, D) of lists of `width` = D numbers, or of a number a row; of a null all are NaN.

    Raises:
        TransferSetError: a column of another type. LabelError: lists of another length, a null among numbers, NaN, or what
            float32 cannot hold.
    """
    values, known = _numbers(array, name=name, width=width, rows=rows)
    some = known.any(axis=1, keepdims=True)
    wrong = np.argwhere((some & ~known) | (known & ~(np.abs(values) <= _MOST)))
    if wrong.size:
        row, place = wrong[0].tolist()
        found = f"{values[row, place]:g}" if known[row, place] else "null"
        raise LabelError(
            f"value {place} in row {rows[row]} of column {name!r} is {found}, and values are finite numbers of float32",
            remedy="correct or filter such rows; a null in place of the whole vector says that there is none",
        )
    return np.where(some, values, np.nan).astype(np.float32)


def _numbers(
    array: pa.Array, *, name: str, width: int, rows: Places
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The numbers (B, W) of lists of W, or of a number a row, and which of them are there."""
    lengths, items = np.ones(len(array), np.int64), array
    if is_list(array.type) or pa.types.is_null(array.type):
        lengths, items, _ = items_of(array, name=name, rows=rows, unit="value", wanted="lists of numbers")
    kind = items.type
    if pa.types.is_boolean(kind):
        items = items.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise TransferSetError(
            f"label column {name!r} holds {kind}, and these labels are numbers",
            remedy="name a column of numbers or of lists of numbers, or say as: class or set"
            + IN_TEXT * is_text(kind)
            + "; where a row has a label for each of its positions, say transfer_set.positions" * is_list(kind),
        )
    wrong = np.flatnonzero((lengths >= 0) & (lengths != width))
    if wrong.size:
        row = int(wrong[0])
        raise LabelError(
            f"row {rows[row]} of column {name!r} holds {lengths[row]} numbers, and a label is {width}",
            remedy="give every row as many, or null where it has none; lists of classes are as: set, and lists of a label a "
            "position need transfer_set.positions",
        )
    is_there = items.is_valid().to_numpy(zero_copy_only=False)
    found = np.zeros(len(items))
    if is_there.any():
        found = items.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    values, known = np.zeros((len(array), width)), np.zeros((len(array), width), bool)
    values[lengths >= 0], known[lengths >= 0] = found.reshape(-1, width), is_there.reshape(-1, width)
    return values, known
