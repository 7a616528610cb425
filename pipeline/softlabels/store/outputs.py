"""Outputs that something else produced, as arrays: npy, npz and Parquet files, logits or probabilities. Nothing that could
run code is read. `softlabels_stages.import` makes a store of them. R rows, M members, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softlabels.errors import LogitsError, StorageError, UserError

Kind = Literal["auto", "logits", "probabilities"]
SUM_TOLERANCE = 1e-3
KNOWN = ("logits", "probabilities", "inputs", "labels", "keys")
_SHAPES = "an array of shape (rows, classes) or (rows, members, classes)"


@dataclass(frozen=True)
class Outputs:
    """`logits` (R, M, C) float; `values` (R, M, C): the file's own, of which they were made; `labels` (R,) int64, `inputs`
    (R, ...), `keys` (R, 16) uint8 where the file has them.
    """

    logits: NDArray[np.floating]
    values: NDArray[np.generic]
    labels: NDArray[np.int64] | None
    inputs: NDArray[np.generic] | None
    keys: NDArray[np.uint8] | None


def read_outputs(path: str | Path, *, column: str | None = None, kind: Kind = "auto") -> Outputs:
    """Read a file of teacher outputs.

    Args:
        path: `.npy` holding one array; `.npz` with arrays `logits` or `probabilities`, and optionally `inputs`, `labels`,
            `keys`; or `.parquet` with columns of these names (lists of numbers).
        column: the array or column that holds the outputs, under another name.
        kind: "logits", "probabilities", or "auto": probabilities where the array is called so, else logits, unless every
            row is a distribution, which is refused as a likely mistake.

    Raises:
        UserError: another kind of file, names or shapes. LogitsError: probabilities that are none, or logits that seem to
            be probabilities.
    """
    path = Path(path)
    arrays = _read(path)
    name = column or next((n for n in ("logits", "probabilities") if n in arrays), None) or _only(arrays)
    if name is None or name not in arrays:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'nothing'}, no {column or 'logits or probabilities'}",
            remedy="name the array or column of outputs with --column",
        )
    values = arrays[name]
    if values.dtype.kind != "f" or values.ndim not in (2, 3) or not len(values):
        raise UserError(
            f"{name} in {path} is {values.dtype} of shape {values.shape}", remedy=f"give {_SHAPES}, of floats"
        )
    if values.ndim == 2:
        values = values[:, None, :]
    rows = len(values)
    return Outputs(
        logits=_logits(values, kind, name, path),
        values=values,
        labels=_labels(arrays.get("labels", arrays.get("label")), rows, path),
        inputs=_of_length(arrays.get("inputs"), rows, path, "inputs"),
        keys=_keys(arrays.get("keys"), rows, path),
    )


def _only(arrays: dict[str, NDArray[np.generic]]) -> str | None:
    return next(iter(arrays)) if len(arrays) == 1 else None


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        if path.suffix == ".npy":
            return {"logits": np.load(path, allow_pickle=False)}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            return {
                name: _column(table.column(name), name)
                for name in table.column_names
                if name in KNOWN or _may_be_outputs(table, name)
            }
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", remedy="give a npy, npz or Parquet file") from None
    except (ValueError, pa.ArrowInvalid, EOFError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", remedy="save plain arrays of numbers, without objects"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}", remedy="check the path and permissions") from error
    raise UserError(f"{path} is no npy, npz or Parquet file", remedy="save the outputs as one of these")


def _may_be_outputs(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    return name == "label" or pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)


def _column(column: pa.ChunkedArray, name: str) -> NDArray[np.generic]:
    """A column of numbers or of equally long (nested) lists as an array."""
    leaf, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_list(leaf.type) or pa.types.is_fixed_size_list(leaf.type):
        inner = leaf.flatten()
        if leaf.null_count or len(inner) % max(len(leaf), 1) or len(leaf) == 0:
            raise ValueError(f"the lists of column {name} are not all equally long")
        lengths = set(np.diff(leaf.offsets.to_numpy())) if pa.types.is_list(leaf.type) else {leaf.type.list_size}
        if len(lengths) != 1:
            raise ValueError(f"the lists of column {name} are not all equally long")
        shape.append(int(lengths.pop()))
        leaf = inner
    if leaf.null_count:
        raise ValueError(f"column {name} has nulls")
    return np.asarray(leaf.to_numpy(zero_copy_only=False)).reshape(shape)


def _logits(values: NDArray[Any], kind: Kind, name: str, path: Path) -> NDArray[np.floating]:
    if kind == "probabilities" or (kind == "auto" and name == "probabilities"):
        return _log(values)
    if kind == "auto" and not _no_distribution(values.astype(np.float64)).any():
        raise LogitsError(
            f"{name} in {path}: every row is >= 0 and sums to 1, as probabilities do and logits hardly ever",
            remedy="say which they are: --kind=probabilities or --kind=logits",
        )
    return values


def _no_distribution(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(R, M) where a row of (R, M, C) is not >= 0 with sum 1."""
    return np.asarray(~((values >= 0).all(axis=-1) & (np.abs(values.sum(axis=-1) - 1) <= SUM_TOLERANCE)))


def _log(probabilities: NDArray[np.generic]) -> NDArray[np.float64]:
    """Log-probabilities, which are logits; 0 becomes -inf, a class that this member holds for impossible."""
    values = probabilities.astype(np.float64)
    bad = _no_distribution(values)
    if bad.any():
        row, member = np.argwhere(bad)[0]
        raise LogitsError(
            f"row {row}, member {member} is no distribution: its values lie between {values[row, member].min():.3g} and "
            f"{values[row, member].max():.3g} and sum to {values[row, member].sum():.6g}",
            remedy="give probabilities >= 0 that sum to 1, or logits",
        )
    with np.errstate(divide="ignore"):
        return np.log(values)


def _labels(labels: NDArray[np.generic] | None, rows: int, path: Path) -> NDArray[np.int64] | None:
    found = _of_length(labels, rows, path, "labels")
    if found is None:
        return None
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise UserError(
            f"labels in {path} are {found.dtype} {found.shape}", remedy="give one whole number a row, -1 for none"
        )
    return found.astype(np.int64)


def _keys(keys: NDArray[np.generic] | None, rows: int, path: Path) -> NDArray[np.uint8] | None:
    found = _of_length(keys, rows, path, "keys")
    if found is None:
        return None
    if found.dtype != np.uint8 or found.shape != (rows, 16):
        raise UserError(f"keys in {path} are {found.dtype} {found.shape}", remedy="give content keys: uint8 (rows, 16)")
    return found.astype(np.uint8)


def _of_length(values: NDArray[np.generic] | None, rows: int, path: Path, name: str) -> NDArray[np.generic] | None:
    if values is not None and (values.ndim == 0 or len(values) != rows):
        raise UserError(f"{name} in {path} has {values.shape} for {rows} rows of outputs", remedy="give one a row")
    return values
