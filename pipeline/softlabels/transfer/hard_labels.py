"""Hard labels that are one class: int64, -1 where there is none. Soft labels are `softlabels.labels`.

Neighbour: `wide_labels` has those that are several numbers. B labels of a block, one a row or one a position.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from softlabels.errors import LabelError, TransferSetError, some
from softlabels.labels import NO_LABEL
from softlabels.transfer.decode import Places, is_text, texts
from softlabels.transfer.label_config import LISTED

_ASKED, _MOST = 1000, 10  # rows whose names a message looks at, and names that it shows


def hard_labels(
    array: pa.Array, *, name: str, class_names: tuple[str, ...] | None, rows: Places, listed: str = LISTED
) -> npt.NDArray[np.int64]:
    """Labels (B,) int64 of a block; null is -1.

    Args:
        array: integers, floats that are whole (as integers with gaps come from a CSV), false and true (0 and 1), or text that
            names classes.
        name: the column's name, for messages.
        class_names: ordered names of the classes; None: any label from 0 up is legal.
        rows: where each stands, for messages.
        listed: where a recipe lists names, for messages.

    Raises:
        TransferSetError: a column of another type, or text without class names.
        LabelError: a label outside [-1, classes), a float that is not whole, or a name that is no class.
    """
    if is_text(array.type):
        return _from_names(array, name=name, class_names=class_names, rows=rows, listed=listed)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_floating(array.type):
        array = _whole(array, name=name, rows=rows)
    if not pa.types.is_integer(array.type) and not pa.types.is_null(array.type):
        raise TransferSetError(
            f"label column {name!r} has type {array.type}",
            remedy="labels are integers or class names; say what lists are with positions or label_as; set label to null where "
            "there are none",
        )
    present = array.is_valid().to_numpy(zero_copy_only=False)
    values = array.fill_null(0).to_numpy(zero_copy_only=False) if len(array) and present.any() else np.zeros(len(array))
    limit = len(class_names) if class_names is not None else np.iinfo(np.int64).max
    wrong = np.flatnonzero(present & ((values < NO_LABEL) | (values >= limit)))
    if wrong.size:
        space = f"[-1, {len(class_names)})" if class_names is not None else "[-1, 2^63)"
        raise LabelError(
            f"label {values[wrong[0]]} in row {rows[wrong[0]]} is outside {space}",
            remedy=f"correct column {name!r}, or name every class in {listed}",
        )
    return np.where(present, values.astype(np.int64), NO_LABEL)


def _whole(array: pa.Array, *, name: str, rows: Places) -> pa.Array:
    """Floats as integers; NaN is null."""
    values = array.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
    missing = np.isnan(values)
    wrong = np.flatnonzero(~missing & ((values != np.trunc(values)) | (np.abs(values) > 1 << 53)))
    if wrong.size:
        raise LabelError(
            f"label {values[wrong[0]]} of column {name!r} in row {rows[wrong[0]]} is no whole number",
            remedy="labels are numbers of classes: name another column, or make classes of its values",
        )
    return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)


def _shown(array: pa.Array, what: str, rows: Places) -> str:
    """The first names of a column of text."""
    first = sorted(set(filter(None, texts(array[:_ASKED], what=what, rows=rows))))
    return ", ".join(map(repr, first[:_MOST])) + (", ..." if len(first) > _MOST else "")


def _from_names(
    array: pa.Array, *, name: str, class_names: tuple[str, ...] | None, rows: Places, listed: str
) -> npt.NDArray[np.int64]:
    what = f"label column {name!r}"
    if class_names is None:
        raise TransferSetError(
            f"label column {name!r} holds text and the source gives no class names",
            remedy=f"list them, in order, in {listed}; the first rows have {_shown(array, what, rows)}",
        )
    number: dict[str | None, int] = {name: index for index, name in enumerate(class_names)} | {None: NO_LABEL}
    values = texts(array, what=what, rows=rows)
    unknown = [*dict.fromkeys(value for value in values if value not in number)]
    if unknown:
        value, *others = unknown
        raise LabelError(
            f"label {value!r} in row {rows[values.index(value)]} is none of the classes, {some(class_names, 20)}"
            + (f"; nor are {some(map(repr, others), 20)}" if others else ""),
            remedy=f"list {'them' if others else 'it'} in {listed}, or correct column {name!r}",
        )
    return np.array([number[value] for value in values], np.int64)
