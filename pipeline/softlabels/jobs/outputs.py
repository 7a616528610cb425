"""Outputs that something else produced, as arrays: npy, npz, Parquet and CSV files, logits or probabilities. Nothing that could
run code is read. `softlabels_stages.import` makes a store of them. R rows, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.axes import by_member
from softlabels.checks.floor import floor_of, lifted, zeros_line
from softlabels.checks.probabilities import are_probabilities, require_logits
from softlabels.errors import LogitsError, UserError
from softlabels.jobs.output_files import BY_CLASS, LABELS, Arrays, read_arrays
from softlabels.jobs.reading import AS_IT_IS, Reading
from softlabels.labels import NO_LABEL

SUM_TOLERANCE = 1e-3
LOGITS = ("logits", "logit")
PROBABILITIES = ("probabilities", "probability", "probs", "prob", "proba", "p")


@dataclass(frozen=True)
class Outputs:
    """`logits` (R, M, C) float; `values` (R, M, C): the file's own, of which they were made; `labels` (R,) int64, `inputs`
    (R, ...), `keys` (R, 16) uint8, `ids` (R,) where the file has them. `floor`: what probabilities were lifted to. `said`: what
    there is to say of the values.
    """

    logits: NDArray[np.floating]
    values: NDArray[np.generic]
    labels: NDArray[np.int64] | None
    inputs: NDArray[np.generic] | None
    keys: NDArray[np.uint8] | None
    ids: NDArray[np.generic] | None = None
    floor: float | None = None
    said: tuple[str, ...] = ()


def read_outputs(path: str | Path, how: Reading = AS_IT_IS) -> Outputs:
    """Read a file of teacher outputs.

    Args:
        path: `.npy` holding one array; `.npz` with arrays `logits` or `probabilities`, and optionally `inputs`, `labels`,
            `keys`; or `.parquet` with columns of these names (lists of numbers), or `.csv`; in both, outputs may stand in one
            column a class (`output_files`).
        how: what the file does not say.

    Raises:
        UserError: another kind of file, names or shapes. ConfigError: three axes of which nobody says which is which.
        LogitsError: probabilities that are none, or logits that seem to be probabilities.
    """
    path, column, key, classes = Path(path), how.column, how.key, how.classes
    wanted = tuple(each for each in (column, key) if each is not None)
    arrays = read_arrays(path, words=(*LOGITS, *PROBABILITIES, *wanted), classes=classes or ())
    name = column or _name_of_outputs(arrays, key)
    if name is None or name not in arrays:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'no outputs'}, no {column or 'logits or probabilities'}",
            remedy="leave out --column: the array of a npy file has no name, and --kind says what it holds"
            if path.suffix == ".npy"
            else "name the array or column of outputs with --column (of columns p0, p1, ... the word: --column=p), or the "
            "classes with --classes=a,b,... where columns have these names",
        )
    values = arrays[name]
    if values.dtype.kind != "f" or values.ndim not in (2, 3) or not len(values):
        raise UserError(
            f"{name} in {path} is {values.dtype} of shape {values.shape}",
            remedy="give an array of shape (rows, classes) or (rows, members, classes), of floats",
        )
    values = by_member(values, how.members, name=f"{name} in {path}")
    rows = len(values)
    if key is not None and key not in arrays:
        raise UserError(
            f"{path} has no {key}", remedy=f"give ids of the rows under this name; it has {', '.join(arrays)}"
        )
    logits, said, least = _made(values, how, name, path)
    return Outputs(
        logits=logits,
        values=values,
        labels=hard_labels(next((arrays[each] for each in LABELS if each in arrays), None), rows, path, classes),
        inputs=of_length(arrays.get("inputs"), rows, path, "inputs"),
        keys=checked_keys(arrays.get("keys"), rows, path),
        ids=None if key is None else of_length(arrays[key], rows, path, key),
        floor=least,
        said=said,
    )


def _name_of_outputs(arrays: Arrays, key: str | None) -> str | None:
    """The array of outputs by its name; else the columns that the classes name, or the only array that there is."""
    named = next((name for name in (*LOGITS[:1], *PROBABILITIES[:1], *LOGITS, *PROBABILITIES) if name in arrays), None)
    if named is None and BY_CLASS in arrays:
        return BY_CLASS
    others = [name for name in arrays if name not in ("inputs", "keys", *LABELS, key)]
    return named or (others[0] if len(others) == 1 else None)


def _made(
    values: NDArray[Any], how: Reading, name: str, path: Path
) -> tuple[NDArray[np.floating], tuple[str, ...], float | None]:
    """The logits, what there is to say of them, and the floor."""
    kind, floor = how.kind, how.floor
    if kind == "probabilities" or (kind == "auto" and name in PROBABILITIES):
        least = None if floor is None else floor_of(floor, values.shape[-1])
        checked = _checked(values)
        with np.errstate(divide="ignore"):  # of 0 it is -inf: a class that this member holds for impossible
            logits = np.log(checked if least is None else lifted(checked, least))
        line = zeros_line(values) if least is None else f"every probability is at least {least:.3g} (--floor={floor})"
        return logits, () if line is None else (line,), least
    if floor is not None:
        raise UserError(
            f"--floor={floor}, and {name} in {path} are logits", remedy="leave it out, or say --kind=probabilities"
        )
    if kind == "auto":
        remedy = "say which they are: --kind=probabilities or --kind=logits"
        require_logits(are_probabilities(values), total=len(values), who=f"{name} in {path}", remedy=remedy)
    return values, (), None


def _checked(probabilities: NDArray[np.generic]) -> NDArray[np.float64]:
    """The same as float64. Raises `LogitsError` where a row is no distribution."""
    values = probabilities.astype(np.float64)
    bad = ~((values >= 0).all(axis=-1) & (np.abs(values.sum(axis=-1) - 1) <= SUM_TOLERANCE))
    if bad.any():
        row, member = np.argwhere(bad)[0]
        raise LogitsError(
            f"row {row}, member {member} is no distribution: its values lie between {values[row, member].min():.3g} and "
            f"{values[row, member].max():.3g} and sum to {values[row, member].sum():.6g}",
            remedy="give probabilities >= 0 that sum to 1, or logits",
        )
    return values


def hard_labels(
    labels: NDArray[np.generic] | None, rows: int, path: Path | str, classes: Sequence[str] | None
) -> NDArray[np.int64] | None:
    """Labels (R,) as numbers: whole ones, or names of classes; NaN and an empty text are none. `path` is for messages."""
    found = of_length(labels, rows, path, "labels")
    if found is None:
        return None
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
