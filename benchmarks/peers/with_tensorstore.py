"""tensorstore: the Zarr arrays that zarr-python's peer writes too, behind a cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import torch
from numpy.typing import NDArray

from benchmarks.peers.columns import Columns, blocks
from benchmarks.peers.reader import BUFFER, CACHE_BYTES, CHUNK, Batch, Indexed, Way, chunks_among

PACKAGES = ("tensorstore",)


def array(folder: Path, name: str, context: Any, **create: Any) -> Any:
    """A column, opened or made."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / name}/"}, "recheck_cached_data": False}
    return ts.open(spec, context=context, **create).result()


def write(folder: Path, columns: Columns) -> None:
    """Filled block by block."""
    for name, values in columns.items():
        chunks = [CHUNK if values.ndim > 1 else len(values), *values.shape[1:]]
        layout = ts.ChunkLayout(chunk_shape=chunks)
        out = array(
            folder, name, ts.Context(), create=True, dtype=values.dtype, shape=values.shape, chunk_layout=layout
        )
        for rows in blocks(columns) if values.ndim > 1 else [slice(0, len(values))]:
            out[rows].write(values[rows]).result()


def take(arrays: dict[str, Any], rows: NDArray[np.int64]) -> Batch:
    """Those rows: all columns are read at once."""
    wanted = {name: each[rows] if each.ndim == 1 else each[rows].read() for name, each in arrays.items()}
    found = {name: each if arrays[name].ndim == 1 else each.result() for name, each in wanted.items()}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def take_chunks(arrays: dict[str, Any], rows: NDArray[np.int64]) -> Batch:
    """Rows that are all those of some chunks, by slices: all are asked for at once."""
    chunks = chunks_among(rows)
    asked = {name: [each[at].read() for at in chunks] for name, each in arrays.items() if each.ndim > 1}
    found = {name: each[rows] for name, each in arrays.items() if name not in asked}
    found |= {name: np.concatenate([part.result() for part in parts]) for name, parts in asked.items()}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def opened(folder: Path, batch: int, workers: int, window: int | None) -> Indexed:
    """All columns, those of one number a row in memory."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    columns = {path.name: array(folder, path.name, context, open=True) for path in folder.iterdir()}
    arrays = {name: each if each.ndim > 1 else np.array(each) for name, each in columns.items()}
    return Indexed(partial(take if window is None else take_chunks, arrays), len(arrays["row"]), batch, window)


WAYS = {
    "windows of chunks": Way(partial(opened, window=BUFFER), f"chunks, mixed in windows of {BUFFER:,} rows"),
    "random rows": Way(partial(opened, window=None), "all rows"),
}
