"""Foreign files, a little of them at a time: the record batches of Parquet files, and the records of JSON files. Nothing that
could run code is read; sizes have limits before memory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import StorageError, UserError
from softlabels.foreign.rows import Ints, Unfit, misaligned

BATCH_ROWS = 16
LONGEST = 1 << 28  # bytes of a line of JSON, or of a file that is not in lines
_BROKEN = (pa.ArrowException, ValueError, EOFError, MemoryError, OverflowError)
T = TypeVar("T")


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """The file, or those in the folder that end so, by name. Raises `UserError` where there is none."""
    ends = " or ".join(suffixes)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix in suffixes and each.is_file())
        if found:
            return found
    elif path.suffix in suffixes and path.is_file():
        return [path]
    what = f"holds no {ends} file" if path.is_dir() else f"is no {ends} file" if path.exists() else "does not exist"
    raise UserError(f"{path} {what}", remedy=f"give a file that ends in {ends}, or a folder of such (no pickles)")


def columns_of(path: Path) -> set[str]:
    """The names of the columns of a Parquet file, of a folder those of the first. Raises as `batches` does."""
    file = files_of(path, ".parquet")[0]
    with _readable(file), pq.ParquetFile(file) as table:
        return {*table.schema_arrow.names}


def batches(path: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet file, or of all in a folder, with those of the columns that it has, all at once the same.

    Raises:
        UserError: no such file, or a broken one. StorageError: the system does not read it.
    """
    for file in files_of(path, ".parquet"):
        with _readable(file), pq.ParquetFile(file) as table:
            names = [name for name in columns if name in table.schema_arrow.names]
            yield from table.iter_batches(BATCH_ROWS, columns=names or None)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise UserError(f"{file} cannot be read: {error}", remedy="give the file as it was written") from error
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error}", remedy="check the path and permissions") from error


def numbers_of(batch: pa.RecordBatch, name: str, row: int) -> Ints:
    """A list of integers (n,). Raises `Unfit`."""
    if name not in batch.schema.names:
        raise UserError(f"there is no column {name}", remedy="give a file with it")
    values = _list(batch.column(name)[row].values if batch.column(name)[row].is_valid else None, name)
    if not pa.types.is_integer(values.type) or values.null_count:
        raise misaligned(f"{name} holds {values.type}, or nulls, and no whole numbers")
    found = values.to_numpy(zero_copy_only=False)
    if found.size and found.max() > np.iinfo(np.int64).max:
        raise misaligned(f"{name} holds {found.max()}")
    return np.asarray(found.astype(np.int64))


def lists_of(batch: pa.RecordBatch, name: str, row: int) -> np.ndarray[Any, Any]:
    """A list of lists of numbers (n, m), all of one length. Raises `Unfit`."""
    outer = _list(batch.column(name)[row].values if batch.column(name)[row].is_valid else None, name)
    if not (
        pa.types.is_list(outer.type) or pa.types.is_large_list(outer.type) or pa.types.is_fixed_size_list(outer.type)
    ):
        raise misaligned(f"{name} holds {outer.type}, and no lists")
    lengths = outer.value_lengths()
    first = lengths[0].as_py() if len(lengths) else 0
    inner = outer.flatten()
    if outer.null_count or inner.null_count or len(lengths.unique()) > 1:
        raise misaligned(f"the lists of {name} have nulls, or different lengths")
    if not (pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)):
        raise misaligned(f"{name} holds {inner.type}, and no numbers")
    found = inner.to_numpy(zero_copy_only=False)
    if found.dtype == np.uint64 and found.size and found.max() > np.iinfo(np.int64).max:
        raise misaligned(f"{name} holds {found.max()}")
    return np.asarray(found.reshape(len(outer), first))


def _list(values: pa.Array | None, name: str) -> pa.Array:
    if values is None:
        raise misaligned(f"{name} is null")
    return values


def json_records(path: Path, kind: type[T]) -> Iterator[T | Unfit]:
    """The records of JSON files: one a line (`.jsonl`), or one, or a list of them, in a file (`.json`); in the place of one
    that is none what is wrong with it.

    Raises:
        UserError: no such file, or a line or file that is longer than 256 MiB.
    """
    for file in files_of(path, ".jsonl", ".json"):
        try:
            with file.open("rb") as lines:
                if file.suffix == ".json":
                    yield from _several(_limited(lines.read(LONGEST + 1), file), kind)
                    continue
                while line := _limited(lines.readline(LONGEST + 1), file):
                    if line.strip():
                        yield _record(line, kind)
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error}", remedy="check the path and permissions") from error


def _several(data: bytes, kind: type[T]) -> Iterator[T | Unfit]:
    several: Any = list[kind] if data.lstrip()[:1] == b"[" else kind  # type: ignore[valid-type]  # at run time
    found: Any = _record(data, several)
    if isinstance(found, list):
        yield from found
    else:
        yield found


def _record(data: bytes, kind: type[T]) -> T | Unfit:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        remedy = "write each response as the server gave it, a line each (.jsonl)"
        return Unfit(UserError, "records that are none", f"a record cannot be read: {error}", remedy)


def _limited(data: bytes, file: Path) -> bytes:
    if len(data) > LONGEST:
        raise UserError(f"{file} has a line of more than {LONGEST} bytes", remedy="write a response a line (.jsonl)")
    return data
