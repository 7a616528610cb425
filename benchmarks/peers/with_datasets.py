"""Hugging Face `datasets`: Arrow files of fixed-size lists, map-style and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.peers.columns import Columns, blocks
from benchmarks.peers.reader import BUFFER, Batch, Indexed, Way
from benchmarks.peers.tables import schema_of, table_of, tensors_of

PACKAGES = ("datasets", "pyarrow")
SHARDS = 8  # a stream shuffles their order, and the rows in its buffer


def write(folder: Path, columns: Columns) -> None:
    """`ArrowWriter`, as `from_generator` uses it, by tables of 512 rows; the files as `save_to_disk` lays them out."""
    schema = schema_of(columns)
    for number, part in enumerate(np.array_split(np.arange(len(columns["row"])), SHARDS)):
        features = datasets.Features.from_arrow_schema(schema)
        with datasets.arrow_writer.ArrowWriter(path=str(folder / f"{number}.arrow"), features=features) as out:
            for rows in blocks({"row": part}):
                out.write_table(table_of(columns, slice(int(part[rows][0]), int(part[rows][-1]) + 1), schema))
            out.finalize()


def opened(folder: Path) -> Any:
    """The data set of all files."""
    files = sorted(folder.glob("*.arrow"))
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def map_style(folder: Path, batch: int, workers: int) -> Indexed:
    """A batch of random rows as an Arrow table."""
    data = opened(folder).with_format("arrow")

    def take(rows: NDArray[np.int64]) -> Batch:
        return tensors_of(data[rows])

    return Indexed(take, len(data), batch)


class Streamed:
    """An iterable data set with a shuffle buffer, and its own state."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        self._data = opened(folder).to_iterable_dataset(num_shards=SHARDS)
        self._batch, self._now = batch, self._data

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        self._now = self._data.shuffle(seed=number, buffer_size=BUFFER).with_format("arrow").batch(self._batch)
        if state is not None:
            self._now.load_state_dict(state)
        for table in self._now.iter(1):
            yield self._tensors(table)

    def _tensors(self, table: Any) -> Batch:
        """Of a table of one row, whose values are lists of rows."""
        return tensors_of(pa.table({name: table[name].combine_chunks().flatten() for name in table.column_names}))

    def state(self) -> Any:
        """See `Reader`."""
        return self._now.state_dict()


WAYS = {
    "map-style, arrow format": Way(map_style, "all rows"),
    "streaming, shuffle buffer": Way(Streamed, f"shards, and a buffer of {BUFFER:,} rows"),
}
