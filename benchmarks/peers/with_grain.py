"""grain: rows as ArrayRecord, the format that its pages advise for random access, read by `MapDataset`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import numpy as np
import torch
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.peers.columns import Columns
from benchmarks.peers.reader import Batch, Way

PACKAGES = ("grain", "array-record")
OPTIONS = grain.ReadOptions(
    num_threads=2, prefetch_buffer_size=4
)  # batches: its best on two cores, of 0, 1, 2 and 16 threads


def write(folder: Path, columns: Columns) -> None:
    """A record a row: the bytes of its columns one after the other; groups of one row, as grain advises."""
    record = np.dtype([(name, each.dtype, each.shape[1:]) for name, each in columns.items()])
    out = ArrayRecordWriter(str(folder / "rows.array_record"), "group_size:1,uncompressed")
    for row in range(len(columns["row"])):
        out.write(np.array([tuple(each[row] for each in columns.values())], record).tobytes())
    out.close()
    (folder / "columns.json").write_text(
        json.dumps([(name, str(each.dtype), each.shape[1:]) for name, each in columns.items()])
    )


class Reader:
    """Shuffled, decoded and batched by grain; its iterator's state is the place."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        source = grain.sources.ArrayRecordDataSource(str(folder / "rows.array_record"))
        fields = json.loads((folder / "columns.json").read_text())
        record = np.dtype([(name, dtype, tuple(shape)) for name, dtype, shape in fields])

        def decoded(rows: list[bytes]) -> np.ndarray[Any, Any]:
            return np.frombuffer(b"".join(rows), record)

        self._data = grain.MapDataset.source(source).seed(0)
        self._batch, self._decoded = batch, decoded
        self._iterator: Any = None

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        data: Any = self._data.shuffle(seed=number).batch(self._batch, batch_fn=self._decoded)
        if self._iterator is not None:
            self._iterator.close()  # or its threads go on reading the epoch before
        self._iterator = iter(data.to_iter_dataset(OPTIONS))
        if state is not None:
            self._iterator.set_state(state)
        for rows in self._iterator:
            yield {name: torch.from_numpy(np.ascontiguousarray(rows[name])) for name in rows.dtype.names}

    def state(self) -> Any:
        """See `Reader`."""
        assert self._iterator is not None
        return self._iterator.get_state()


WAYS = {"MapDataset of ArrayRecord": Way(Reader, "all rows")}
