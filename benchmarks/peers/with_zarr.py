"""zarr-python: an array a column in one group, chunks of 512 rows without compression, which noise does not repay."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from benchmarks.peers.columns import Columns, blocks
from benchmarks.peers.reader import BUFFER, CHUNK, Batch, Indexed, Way, chunks_among

PACKAGES = ("zarr",)


def write(folder: Path, columns: Columns) -> None:
    """Filled block by block."""
    group = zarr.open_group(folder, mode="w")
    for name, values in columns.items():
        chunks = (CHUNK, *values.shape[1:]) if values.ndim > 1 else values.shape
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=None)
        for rows in blocks(columns) if values.ndim > 1 else [slice(None)]:
            array[rows] = values[rows]


def take(arrays: dict[str, Any], rows: NDArray[np.int64]) -> Batch:
    """Those rows: numbers of a row from memory, the rest as zarr reads it."""
    found = {name: each[rows] if each.ndim == 1 else each.oindex[rows] for name, each in arrays.items()}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def take_chunks(arrays: dict[str, Any], rows: NDArray[np.int64]) -> Batch:
    """Rows that are all those of some chunks, by slices."""
    chunks = chunks_among(rows)
    found = {
        name: each[rows] if each.ndim == 1 else np.concatenate([each[chunk] for chunk in chunks])
        for name, each in arrays.items()
    }
    return {name: torch.from_numpy(values) for name, values in found.items()}


def opened(folder: Path, batch: int, workers: int, window: int | None) -> Indexed:
    """All columns."""
    group: Any = zarr.open_group(folder, mode="r")
    arrays = {name: array if array.ndim > 1 else array[:] for name, array in group.arrays()}
    return Indexed(partial(take if window is None else take_chunks, arrays), len(arrays["row"]), batch, window)


WAYS = {
    "windows of chunks": Way(partial(opened, window=BUFFER), f"chunks, mixed in windows of {BUFFER:,} rows"),
    "oindex of random rows": Way(partial(opened, window=None), "all rows"),
}
