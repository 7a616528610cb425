"""Hard labels, keys and the like of rows, as arrays or lists that stand beside outputs.

R rows, P positions of a row, M members, C classes or numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import LabelError, UserError
from softlabels.jobs.at_hand import Positions, array_of, lengths_of, padded, require_same_lengths
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import DTYPES, NONE
from softlabels.labels.targets import Target

MEMORY = "memory"  # in messages, where an import names its file


def labels_of(
    name: str, given: Any, shape: tuple[int, ...], where: Positions | None, kind: Target, classes: Sequence[str] | None,
    *, source: str | Path = MEMORY,
) -> NDArray[Any] | None:  # fmt: skip
    """Hard labels of a target's outputs of this `shape` (R, [P,] M, C), as `softlabels.labels.hard` says; None where a
    kind that needs none has none.

    Raises:
        UserError, LabelError: another shape or length, no whole number, neither 0 nor 1, a name that no class has.
    """
    lead, one = shape[:-2], f"{name}: " if name else ""
    if given is None:
        return np.full(lead, NO_LABEL) if kind == "softmax" else None
    named = None if where is None else lengths_of(given, where.most)
    if where is not None and named is not None:
        own = np.full(len(named), where.most) if where.lengths is None else where.lengths
        require_same_lengths(own, named, name, "labels")
    none = DTYPES[kind](NONE[kind])
    found = array_of(given, f"{one}labels") if named is None or where is None else padded(given, where.most, none)
    expected = lead if kind == "softmax" else (*lead, shape[-1])
    if found.shape == lead and shape[-1] == 1 and kind != "softmax":  # one number a row needs no axis
        found = found.reshape(expected)
    if found.shape != expected:
        each = {"softmax": "one", "sigmoid": "0 or 1 for each class, -1 where it is unknown,", "values": "a vector"}
        raise UserError(
            f"{one}labels have the shape {found.shape}, not {expected}",
            remedy=f"give {each[kind]} a row (and position)",
        )
    if kind == "values":
        return _vectors(one, found)
    if kind == "softmax" and found.dtype.kind in "OU":
        found = _numbers(found.reshape(-1), source, classes).reshape(lead)
    axes = (*("row", "position")[: len(lead)], "class")
    return _whole(one, found, np.dtype(DTYPES[kind]), source, axes)


def _vectors(one: str, labels: NDArray[Any]) -> NDArray[np.float32]:
    """Real numbers. Raises `LabelError`."""
    if labels.dtype.kind not in "biuf":
        raise LabelError(f"{one}labels are {labels.dtype}", remedy="give real numbers, NaN throughout for none")
    with np.errstate(over="ignore"):  # infinite, which is refused with its row
        return labels.astype(np.float32)


def _whole(
    one: str, labels: NDArray[Any], dtype: np.dtype[Any], source: str | Path, axes: tuple[str, ...]
) -> NDArray[Any]:
    """Whole numbers; NaN is none. Raises `LabelError`."""
    numbers = np.where(np.isnan(labels), NO_LABEL, labels) if labels.dtype.kind == "f" else labels
    limits = np.iinfo(dtype)
    if labels.dtype.kind not in "biuf":
        raise LabelError(f"{one}labels are {labels.dtype}", remedy="give whole numbers, -1 for none")
    wrong = np.argwhere((numbers != np.trunc(numbers)) | (numbers < limits.min) | (numbers > limits.max))
    if wrong.size:
        at = tuple(wrong[0].tolist())
        place = ", ".join(f"{axis} {number}" for axis, number in zip(axes, at, strict=False))
        raise LabelError(
            f"{one}label {labels[at]} in {place} of {source} is no whole number of a class",
            remedy="give whole numbers, -1 or NaN for none",
        )
    return numbers.astype(dtype)


def _without_gaps(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Numbers (N,) beside None as floats with NaN, names with empty texts."""
    is_gap = np.array([label is None or _is_nan(label) or str(label) == "" for label in labels.tolist()], np.bool_)
    given = np.array(labels[~is_gap].tolist())
    if given.dtype.kind not in "biuf":
        return np.where(is_gap, "", labels)
    found = np.full(len(labels), np.nan)
    found[~is_gap] = given
    return found


def _is_nan(label: object) -> bool:
    return isinstance(label, float | np.floating) and bool(np.isnan(label))


def _numbers(names: NDArray[np.generic], path: Path | str, classes: Sequence[str] | None) -> NDArray[Any]:
    """Labels (N,) that are class names, or numbers beside None, as numbers; an empty text is none."""
    names = _without_gaps(names) if names.dtype.kind == "O" else names
    if names.dtype.kind not in "OU":
        return names
    known = {name: number for number, name in enumerate(classes or ())} | {"": NO_LABEL}
    strangers = sorted({str(name) for name in names.tolist()} - known.keys())
    if strangers:
        raise UserError(
            f"labels in {path} are texts, and {strangers[0]!r} is the name of no class",
            remedy="name the classes in the order of the outputs' columns: classes=[...]; of import --classes=a,b,...",
        )
    return np.array([known[str(name)] for name in names.tolist()], np.int64)


def checked_keys(keys: NDArray[np.generic] | None, rows: int, path: Path | str) -> NDArray[np.uint8] | None:
    """Content keys (R, 16), or `UserError`; `path` is for messages."""
    found = of_length(keys, rows, path, "keys")
    if found is None:
        return None
    if found.dtype != np.uint8 or found.shape != (rows, 16):
        raise UserError(f"keys in {path} are {found.dtype} {found.shape}", remedy="give content keys: uint8 (rows, 16)")
    return found.astype(np.uint8)


def of_length(values: NDArray[np.generic] | None, rows: int, path: Path | str, name: str) -> NDArray[np.generic] | None:
    """The same, or `UserError` where it is not one value a row; `path` and `name` are for messages."""
    if values is not None and (values.ndim == 0 or len(values) != rows):
        raise UserError(f"{name} in {path} has {values.shape} for {rows} rows of outputs", remedy="give one a row")
    return values
