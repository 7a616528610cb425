"""Lance: fixed-size lists in its own format."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.sampler import ShardedBatchSampler
from numpy.typing import NDArray

from benchmarks.peers.columns import Columns, blocks
from benchmarks.peers.reader import Batch, Indexed, Way
from benchmarks.peers.tables import schema_of, table_of, tensors_of

PACKAGES = ("pylance",)


def write(folder: Path, columns: Columns) -> None:
    """Block by block into one data set."""
    schema = schema_of(columns)
    parts = (table_of(columns, rows, schema).to_batches()[0] for rows in blocks(columns))
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, parts), folder / "rows.lance")


def take(data: Any, rows: NDArray[np.int64]) -> Batch:
    """`take` gives rows in the order of their numbers."""
    return tensors_of(data.take(rows.tolist()))


def random_rows(folder: Path, batch: int, workers: int) -> Indexed:
    """`take` of a batch at a time."""
    data = lance.dataset(folder / "rows.lance")
    return Indexed(partial(take, data), data.count_rows(), batch)


class Blocks:
    """`LanceDataset`'s own sampler of random batches of rows that lie together; it keeps no place."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        self._data, self._batch = lance.dataset(folder / "rows.lance"), batch

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        sampler: Any = ShardedBatchSampler(0, 1, randomize=True, seed=number)
        for batch in sampler(self._data, batch_size=self._batch, batch_readahead=8):
            yield tensors_of(pa.Table.from_batches([batch]))

    def state(self) -> Any:
        """See `Reader`."""
        return None


WAYS = {
    "take of random rows": Way(random_rows, "all rows"),
    "ShardedBatchSampler": Way(Blocks, "batches of rows that lie together; none within"),
}
