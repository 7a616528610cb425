"""NumPy: the columns as plain .npy files, mapped. No store, no check: what the machine gives at most."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.columns import Columns, blocks, read
from benchmarks.peers.loops import InDataLoader
from benchmarks.peers.reader import Batch, Indexed, Way

PACKAGES = ("numpy",)


def write(folder: Path, columns: Columns) -> None:
    """A mapped file a column, filled block by block."""
    for name, values in columns.items():
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, values.shape)
        for rows in blocks(columns):
            out[rows] = values[rows]
        out.flush()


def take(columns: Columns, rows: NDArray[np.int64]) -> Batch:
    """Those rows of all columns."""
    return {name: torch.from_numpy(values[rows]) for name, values in columns.items()}


def mapped(folder: Path, batch: int, workers: int) -> Indexed:
    """Rows of a mapped file, a batch at a time."""
    columns = read(folder)
    return Indexed(partial(take, columns), len(columns["row"]), batch)


class Rows(Dataset[dict[str, Tensor]]):
    """The data set that one writes first: a row at a time."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["row"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(values[index])) for name, values in self._columns.items()}


def in_dataloader(folder: Path, batch: int, workers: int) -> InDataLoader:
    """A mapped file behind torch's shuffled `DataLoader`."""
    data = Rows({name: np.array(values) if values.ndim == 1 else values for name, values in read(folder).items()})
    return InDataLoader(lambda: DataLoader(data, batch, shuffle=True, num_workers=workers))


WAYS = {
    "memmap, random rows": Way(mapped, "all rows"),
    "memmap, a Dataset in DataLoader": Way(in_dataloader, "all rows", in_dataloader=True),
}
