"""`export_labels`: a store's labels as others read them. `parquet` and `npz` hold every store, with names that import knows;
`axolotl` and `distillkit-raw` hold the k largest log-probabilities of tokens at one temperature. What a format cannot hold is
refused, or said. The file gets its name once it is whole, so that a killed export leaves none.
"""

from __future__ import annotations

import os
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from softlabels.errors import ConfigError, StorageError
from softlabels.jobs.exported_rows import AllRows, Rows, TokenRows
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.store import open_store
from softlabels.system.durable import system_errors
from softlabels.system.paths import local_path
from softlabels.system.places import Place

ToFormat = Literal["axolotl", "distillkit-raw", "parquet", "npz"]
TO_FORMATS: tuple[ToFormat, ...] = get_args(ToFormat)


def export_labels(
    store: Place,
    to: str | Path,
    *,
    to_format: ToFormat,
    split: str | None = None,
    temperature: float | None = None,
    k: int | None = None,
    mean: str = "arithmetic",
    watch: Watch = LOGGED,
) -> list[str]:
    """Write a store's labels to a file.

    Args:
        store: one split, or a folder of them and `split`. to: a new file, .npz for npz, else .parquet.
        temperature: of the log-probabilities; by default 1, or the only one at which they are known.
        k: entries per position; by default as many as the store keeps; required for dense labels.
        mean: the mean of an ensemble. watch: gets messages on what the file does not hold.

    Returns:
        What the file does not hold, one line each.

    Raises:
        ConfigError: a store that the format cannot hold, or a temperature at which its labels are not known.
        StorageError, DiskFull: the file already exists, or the system refuses it. DamagedStore.

    Example:
        >>> export_labels("stores/noise", "noise.parquet", to_format="parquet", split="train")
        []
    """
    target = Path(local_path(to))
    opened = open_store(store, split=split)
    if to_format not in TO_FORMATS:
        raise ConfigError(f"there is no format {to_format!r}", remedy=f"choose one of {', '.join(TO_FORMATS)}")
    ending = ".npz" if to_format == "npz" else ".parquet"
    if target.suffix != ending:
        raise ConfigError(f"{target} does not end in {ending}", remedy=f"give such a name for {to_format}")
    if target.exists():
        raise StorageError(f"{target} is there already", remedy="give another name, or delete it")
    of_tokens = to_format in ("axolotl", "distillkit-raw")
    made = TokenRows(opened, to_format, temperature, k, mean) if of_tokens else AllRows(opened, temperature, k, mean)
    partial = target.with_name(f"{target.name}.partial")
    try:
        with system_errors("write", target), partial.open("wb") as file:
            (_write_npz if to_format == "npz" else _write_parquet)(file, made)
            file.flush()
            os.fsync(file.fileno())
        with system_errors("write", target):
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    for line in made.said:
        watch.say(line)
    return made.said


def _nested(values: NDArray[Any]) -> pa.DataType:
    """The type of a column of Parquet: lists for each axis behind the first."""
    first = values if values.dtype != object else values[0]
    kind = pa.from_numpy_dtype(first.dtype)
    for _ in range(first.ndim - (values.dtype != object)):
        kind = pa.list_(kind)
    return kind


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if values.dtype == object:
        return pa.concat_arrays([_column(each[None], kind) for each in values])
    found = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        found = pa.ListArray.from_arrays(np.arange(0, len(found) + 1, size, dtype=np.int32), found)
    return found.cast(kind)


def _write_parquet(file: IO[bytes], made: Rows) -> None:
    writer: pq.ParquetWriter | None = None
    with ExitStack() as opened:  # closed before its file is, also after an error
        for arrays in made.blocks():
            schema = pa.schema([(name, _nested(values)) for name, values in arrays.items()])
            writer = writer or opened.enter_context(pq.ParquetWriter(file, schema))
            columns = [_column(values, schema.field(name).type) for name, values in arrays.items()]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _write_npz(file: IO[bytes], made: Rows) -> None:
    """An array after the other, so that memory holds a chunk of one."""
    names = made.columns(np.arange(1))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, sample in names.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                shape = (made.store.rows, *sample.shape[1:])
                npy.write_array_header_2_0(
                    out, {"descr": npy.dtype_to_descr(sample.dtype), "fortran_order": False, "shape": shape}
                )
                for arrays in made.blocks():
                    out.write(np.ascontiguousarray(arrays[name]).tobytes())
