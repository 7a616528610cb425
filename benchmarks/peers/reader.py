"""What a peer's module gives, so that one program (`run.py`) measures all alike, and the loop that many of them share.

A module has `write(folder, columns)`, which writes the rows in the peer's format, `WAYS`, the ways of reading them in shuffled
batches by name, and `PACKAGES`, whose versions the pages print. A batch is a dictionary of tensors, with `row` among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = Mapping[str, Tensor]
BUFFER = 8192  # rows that shuffle buffers hold, and windows of chunks: 16 MB of dense labels
CACHE_BYTES = (
    1 << 23
)  # of readers that keep chunks: a quarter of the rows of `make bench`, as data sets are larger than caches
BATCH = CHUNK = 512  # rows of a batch, and of a chunk in formats that have such


class Reader(Protocol):
    """An opened data set."""

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """One pass over all rows; from a place on that `state` gave in another process."""
        ...

    def state(self) -> Any:
        """The place after the batches so far, for pickle; None where the peer keeps none."""
        ...


@dataclass(frozen=True)
class Way:
    """One way of reading what a module wrote.

    Attributes:
        open: gives the reader of a folder, for batches of so many rows and that number of worker processes.
        shuffle: what its order is made of, as the tables say it.
        in_dataloader: whether it is a `DataLoader` of torch, which takes worker processes.
    """

    open: Callable[[Path, int, int], Reader]
    shuffle: str
    in_dataloader: bool = False


def chunks_among(rows: NDArray[np.int64]) -> list[slice]:
    """The chunks whose rows these are, ascending and all: formats of chunks give slices in half the time of row numbers."""
    starts = rows[np.flatnonzero(np.diff(rows // CHUNK, prepend=-1))]
    return [slice(start, min(start + CHUNK, int(rows[-1]) + 1)) for start in starts.tolist()]


class Indexed:
    """A loop by hand: `take` gives the rows of an order that NumPy makes of the epoch's number; its place is a number.

    All rows are shuffled, and `take` is asked for a batch at a time; or, with a `window`, so many rows in chunks of `CHUNK`,
    for which it is asked at once, in ascending order.
    """

    def __init__(
        self, take: Callable[[NDArray[np.int64]], Batch], rows: int, batch: int, window: int | None = None
    ) -> None:
        self._take, self._rows, self._batch, self._window, self._done = take, rows, batch, window, 0

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        self._done, before = state or 0, 0
        for part in self._parts(np.random.default_rng(number)):
            starts = range(0, len(part), self._batch)
            left = starts[max(0, self._done - before) :]
            before += len(starts)
            whole, place = self._whole(part) if len(left) else ({}, part)
            for start in left:
                chosen = slice(start, start + self._batch)
                self._done += 1
                if self._window is None:
                    yield self._take(part[chosen])
                else:
                    yield {name: values[place[chosen]] for name, values in whole.items()}

    def _parts(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        if self._window is None:
            yield rng.permutation(self._rows)
            return
        chunks, at_once = rng.permutation(-(-self._rows // CHUNK)), self._window // CHUNK
        for first in range(0, len(chunks), at_once):
            starts = CHUNK * chunks[first : first + at_once]
            rows = (starts[:, None] + np.arange(CHUNK)).ravel()
            yield rng.permutation(rows[rows < self._rows])

    def _whole(self, part: NDArray[np.int64]) -> tuple[Batch, Any]:
        if self._window is None:
            return {}, part
        order = np.argsort(part)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return self._take(part[order]), torch.from_numpy(place)

    def state(self) -> Any:
        """See `Reader`."""
        return self._done
