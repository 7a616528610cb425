"""One split's rows written to a folder of the cache: decoded, hashed, prepared, labelled, block by block.

What is seen on the way and belongs to the whole recipe is handed on as `Facts`. Neighbours: `rows` says when this is done,
`anew` prepares some rows a second time. B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec, build
from softlabels.transfer.cache import FileRecord, NpyFile
from softlabels.transfer.columns import column_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array, Decoded, decode
from softlabels.transfer.keys import content_keys, id_keys, missing_rows
from softlabels.transfer.kinds import Seen, require_one_kind
from softlabels.transfer.label_columns import LabelReader
from softlabels.transfer.source import Source

Keys = npt.NDArray[np.uint8]
BLOCK_BYTES = 1 << 26  # decoded inputs held at a time
FIRST_ROWS, MOST_ROWS = 16, 8192


def write_rows(
    config: TransferSetConfig, source: Source, reader: LabelReader, folder: Path, *, split: str
) -> tuple[list[FileRecord], dict[str, Any]]:
    """Write inputs.npy, keys.npy and the arrays of labels; memory holds one block, and the keys. Their records, and of the
    split: `kinds` of each input column, and `missing`, the number of rows that miss an input.

    Raises:
        TransferSetError, LabelError: a row that cannot be read as `config` says, or rows of several kinds.
    """
    content: list[Keys] = []
    ids: list[Keys] = []
    seen, missing = [Seen() for _ in config.inputs], 0
    with (
        ExitStack() as stack,
        tqdm(total=source.rows, desc=f"prepare {split}", unit="row", delay=2, disable=None) as bar,
    ):
        files = {
            name: stack.enter_context(NpyFile(folder / f"{name}.npy", rows=source.rows))
            for name in ("inputs", "keys", *reader.arrays)
        }
        for start, table, columns in blocks(config, source, beside=reader.row_bytes):
            for one, column in zip(seen, columns, strict=True):
                one.add(column, start=start)
            if not config.mixed_images:
                kinds = [one.kinds for one in seen]
                require_one_kind({split: kinds}, config.inputs, prepare=config.prepare.class_path)
            found = prepared(config.prepare, columns, rows=range(start, start + len(table)))
            content.append(content_keys(columns))
            missing += int(missing_rows(columns).sum())
            if config.key != "content":
                ids.append(id_keys(column_at(table, config.key), name=config.key, start=start))
            block = {"inputs": _finite(config, found, columns, start=start), "keys": ids[-1] if ids else content[-1]}
            for name, values in (block | reader.read(table, start=start)).items():
                files[name].append(values)
            bar.update(len(table))
        if ids:
            _check_ids(config.key, np.concatenate(ids), np.concatenate(content))
        facts = {"kinds": [one.kinds for one in seen], "missing": missing}
        return [file.finish() for file in files.values()], facts


def blocks(
    config: TransferSetConfig, source: Source, *, beside: int = 0
) -> Iterator[tuple[int, pa.Table, list[Decoded]]]:
    """First row, Arrow table and decoded input columns of one block after the other, each of about `BLOCK_BYTES` with the
    `beside` bytes of each row that the caller holds beside them.
    """
    start, rows = 0, FIRST_ROWS
    while start < source.rows:
        table = source.data[start : start + rows]
        columns = decoded(config, source, table, start=start)
        yield start, table, columns
        start += len(table)
        row_bytes = beside + sum(column.nbytes() for column in columns) / len(table)
        rows = max(1, min(MOST_ROWS, int(BLOCK_BYTES / max(row_bytes, 1))))


def decoded(config: TransferSetConfig, source: Source, table: pa.Table, *, start: int) -> list[Decoded]:
    """The input columns of a block."""
    missing = config.missing == "pass"
    return [
        decode(column_at(table, name), name=name, start=start, images=name in source.images, missing=missing)
        for name in config.inputs
    ]


def prepared(spec: ObjectSpec, columns: Sequence[Decoded], *, rows: Sequence[int]) -> Array:
    """The prepare function's array (B, ...) for one block, of the rows of these numbers.

    Raises:
        TransferSetError: it returned something else, or refuses a row, which the error names.
    """
    values = columns[0].rows() if len(columns) == 1 else list(zip(*(column.rows() for column in columns), strict=True))
    try:
        found = build(spec, values)
    except TransferSetError:
        for row, value in zip(rows, values, strict=True):
            _ask_alone(spec, value, row)
        raise
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        what = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise TransferSetError(
            f"{spec.class_path} returned {what}", remedy="return one numpy array of numbers (B, ...)"
        )
    if not found.dtype.isnative or found.dtype.itemsize > 8:
        raise TransferSetError(
            f"{spec.class_path} returned an array of {found.dtype.str}, which torch cannot hold",
            remedy="return numbers of at most 64 bits in this machine's byte order, as with .astype(np.float32)",
        )
    if found.ndim == 0 or len(found) != len(rows):
        raise TransferSetError(
            f"{spec.class_path} returned an array {list(found.shape)} for {len(rows)} rows from row {rows[0]} on",
            remedy="return one row for each row it is given",
        )
    return found


def _ask_alone(spec: ObjectSpec, value: object, row: int) -> None:
    """Prepare one row. Raises `TransferSetError` with its number where it is refused."""
    try:
        build(spec, [value])
    except TransferSetError as error:
        raise TransferSetError(f"row {row}: {error.what}", remedy=error.remedy) from error


def _finite(config: TransferSetConfig, values: Array, columns: Sequence[Decoded], *, start: int) -> Array:
    """`values` (B, ...), unless one is NaN or infinite and the recipe does not let it pass: the error says where it arises."""
    if config.missing == "pass" or values.dtype.kind != "f":
        return values
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        what = "NaN" if np.isnan(values[row]).any() else "an infinite value"
        inputs = [name for name, column in zip(config.inputs, columns, strict=True) if _not_finite(column, row)]
        where = f"the input {inputs[0]!r} of that row holds it" if inputs else "the inputs of that row are finite"
        raise TransferSetError(
            f"{config.prepare.class_path} gives {what} in {wrong.size} of {len(values)} rows, first in row {start + row}, "
            f"and {where}",
            remedy="correct or filter such rows, or the prepare function; where the teacher takes such values, set "
            "transfer_set.missing: pass",
        )
    return values


def _not_finite(column: Decoded, row: int) -> bool:
    value = np.asarray(column.values[row])
    return value.dtype.kind == "f" and not np.isfinite(value).all()


def _check_ids(name: str, ids: Keys, content: Keys) -> None:
    """Refuse an id column that gives one id to different inputs: labels would go to the wrong rows."""
    _, first, back = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    wrong = np.flatnonzero((content[first[back.reshape(-1)]] != content).any(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise TransferSetError(
            f"id column {name!r} gives rows {int(first[back.reshape(-1)[row]])} and {row} the same id, and their inputs differ",
            remedy="name a column that tells rows apart, or use key: content",
        )
