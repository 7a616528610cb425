"""litdata: chunks of 64 MB by `optimize`, read by its streaming data set and loader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
import numpy as np

from benchmarks.peers.columns import Columns
from benchmarks.peers.reader import Batch, Way

PACKAGES = ("litdata",)


def sample(columns: Columns, row: int) -> dict[str, Any]:
    """A row of all columns."""
    return {name: int(each[row]) if each.ndim == 1 else np.array(each[row]) for name, each in columns.items()}


def write(folder: Path, columns: Columns) -> None:
    """By one worker, as the others write."""
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder.parent / "cache")  # else a folder that all writers share
    litdata.optimize(
        fn=partial(sample, columns), inputs=list(range(len(columns["row"]))), output_dir=str(folder), num_workers=1,
        chunk_bytes="64MB", verbose=False,
    )  # fmt: skip


class Reader:
    """`StreamingDataLoader` over a shuffled `StreamingDataset`."""

    def __init__(self, folder: Path, batch: int, workers: int, **window: str) -> None:
        data = litdata.StreamingDataset(str(folder), shuffle=True, seed=0, **window)
        self._loader: Any = litdata.StreamingDataLoader(data, batch_size=batch, num_workers=workers)

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        if state is not None:
            self._loader.load_state_dict(state)
        yield from self._loader

    def state(self) -> Any:
        """See `Reader`."""
        return self._loader.state_dict()


WAYS = {
    "StreamingDataLoader": Way(Reader, "chunks of 64 MB, and windows of 256 rows in each", in_dataloader=True),
    "the same, chunks decoded as a whole": Way(
        partial(Reader, item_shuffle_window="full", batch_decode="all"), "chunks of 64 MB, and the rows in each", True
    ),
}
