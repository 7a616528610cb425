"""Hard labels, keys and the like of rows, as plain arrays that stand beside outputs. R rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import UserError
from softlabels.labels import NO_LABEL


def hard_labels(
    labels: NDArray[np.generic] | None, rows: int, path: Path | str, classes: Sequence[str] | None
) -> NDArray[np.int64] | None:
    """Labels (R,) as numbers: whole ones, or names of classes; None, NaN and an empty text are none. `path` is for messages."""
    found = of_length(labels, rows, path, "labels")
    if found is None:
        return None
    if found.dtype.kind == "O" and found.ndim == 1:
        found = _without_gaps(found)
    if found.dtype.kind in "OU" and found.ndim == 1:
        return _numbers(found, path, classes)
    if found.dtype.kind not in "biuf" or found.ndim != 1:
        raise UserError(
            f"labels in {path} are {found.dtype} {found.shape}", remedy="give one whole number a row, -1 for none"
        )
    if found.max(initial=0) > np.iinfo(np.int64).max:  # unsigned ones, which would come out as -1
        raise UserError(f"label {found.max()} in {path} is the number of no class", remedy="give -1 for no label")
    if found.dtype.kind == "f":  # as integers with gaps come from pandas
        found = np.where(np.isnan(found), NO_LABEL, found)
        wrong = np.flatnonzero((found != np.trunc(found)) | (np.abs(found) > 1 << 53))
        if wrong.size:
            raise UserError(
                f"label {found[wrong[0]]} in row {wrong[0]} of {path} is no whole number",
                remedy="give the numbers of classes, -1 or NaN for none",
            )
    return found.astype(np.int64)


def _without_gaps(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Numbers beside None as floats with NaN, names with empty texts."""
    is_gap = np.array([label is None or _is_nan(label) or str(label) == "" for label in labels.tolist()], np.bool_)
    given = np.array(labels[~is_gap].tolist())
    if given.dtype.kind not in "biuf":
        return np.where(is_gap, "", labels)
    found = np.full(len(labels), np.nan)
    found[~is_gap] = given
    return found


def _is_nan(label: object) -> bool:
    return isinstance(label, float | np.floating) and bool(np.isnan(label))


def _numbers(names: NDArray[np.generic], path: Path | str, classes: Sequence[str] | None) -> NDArray[np.int64]:
    """Labels that are class names as numbers; an empty text is none."""
    known = {name: number for number, name in enumerate(classes or ())} | {"": NO_LABEL}
    strangers = sorted({str(name) for name in names.tolist()} - known.keys())
    if strangers:
        raise UserError(
            f"labels in {path} are texts, and {strangers[0]!r} is the name of no class",
            remedy="name the classes in the order of the outputs' columns: --classes=a,b,...",
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
