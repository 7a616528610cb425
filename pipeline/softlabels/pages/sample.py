"""Which rows of a store a page looks at: all up to a number; of more so many, evenly by content key. A key is a hash, so the
sample depends neither on the order of rows nor on their content; it is stated on the page.

R rows, P positions of a row, M members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.decoder import Columns
from softlabels.store import Store
from softlabels.store.gather import gather

_BLOCK_BYTES = 1 << 25  # of columns that are read together
_MOST_READ = 1 << 32  # bytes of labels; of a larger store whole chunks are left out
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of a store.

    Attributes:
        rows: (n,) their numbers, ascending, which is the order of chunks.
        of: R.
    """

    rows: Ints
    of: int

    @property
    def is_all(self) -> bool:
        """Whether no row is left out."""
        return len(self.rows) == self.of

    @property
    def words(self) -> str:
        """Which rows they are, as a page says it."""
        if self.is_all:
            return f"all {self.of:,} rows"
        return f"{len(self.rows):,} of {self.of:,} rows, taken evenly by content key"


def sample(store: Store, most: int) -> Sample:
    """`most` rows, or all where there are no more; chance may leave a few fewer, never more. In a store whose labels are very
    large they come from some of its chunks, which are evenly spread. Memory holds a chunk of keys and the rows that are taken.
    """
    chunks = np.arange(store.chunks)
    if store.rows <= most:
        return Sample(np.arange(store.rows), store.rows)
    size = store.manifest.bytes
    if size > _MOST_READ:
        chunks = chunks[:: -(-size // _MOST_READ)]
    within = min(store.rows, len(chunks) * store.rows_per_chunk)
    limit = np.uint64(min(1.0, (most + 6 * most**0.5) / within) * (2**64 - 2**12))  # six standard deviations more
    taken, places = [], []
    for chunk in chunks.tolist():
        keys = np.ascontiguousarray(store.read_chunk("content_key", chunk), np.uint8)
        first = keys.view(">u8").reshape(-1, 2)[:, 0]
        below = np.flatnonzero(first < limit)
        taken.append(chunk * store.rows_per_chunk + below)
        places.append(first[below])
    least = np.argsort(np.concatenate(places), kind="stable")[:most]
    return Sample(np.sort(np.concatenate(taken)[least]), store.rows)


def by_key(keys: NDArray[np.generic]) -> Ints:
    """The places of content keys (n, 16) in their order, of which every beginning is an even sample."""
    return np.lexsort(keys.T[::-1])


def positions(store: Store, found: Sample, most: int) -> Iterator[tuple[Ints, Ints, Columns]]:
    """The positions that count of the rows of a sample, of a store of one target: blocks of row numbers (n,), places in the row
    (n,) and the soft columns (n, M, ...). Of more than `most` positions in all every k-th is taken. A row without positions
    is one.
    """
    ragged, names = "position_mask" in store.columns, [*store.soft_columns]
    row_bytes = sum(store.columns[name].numpy_dtype.itemsize * np.prod(store.columns[name].shape) for name in names)
    step = max(1, int(_BLOCK_BYTES // max(row_bytes, 1)))
    every = 1 if store.positions is None else max(1, -(-len(found.rows) * store.positions // most))
    seen = 0
    for start in range(0, len(found.rows), step):
        rows = found.rows[start : start + step]
        block = gather(store, [*names, *(["position_mask"] if ragged else [])], rows)
        if store.positions is None:
            yield rows, np.zeros_like(rows), block
            continue
        counts = (
            np.asarray(block.pop("position_mask") != 0) if ragged else np.ones((len(rows), store.positions), np.bool_)
        )
        at = np.flatnonzero(counts.reshape(-1))
        kept = at[(-seen) % every :: every]
        seen += len(at)
        flat = {name: values.reshape(-1, *values.shape[2:])[kept] for name, values in block.items()}
        yield rows[kept // store.positions], kept % store.positions, flat
