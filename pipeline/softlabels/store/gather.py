"""Rows of a store's columns in any order, by reading whole chunks, each once: of a sealed store, of committed shards, of
whatever reads chunks.

What is read lies in memory once: every chunk's rows are put straight to their places in the answer, in which the caller may
keep rows of an earlier call in front (`lead`).

Shape letters: B rows asked for, L rows of the lead, R rows of the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softlabels.store.chunks import ChunkReader
from softlabels.store.columns import Column
from softlabels.store.spec import Payload, Spec
from softlabels.system.files import Files

Array = NDArray[Any]
Ints = NDArray[np.int64]
Block = dict[str, Array]  # arrays of one length, by name


class ChunkSource(Protocol):
    """What is read of a store: whole chunks of a column. May be asked by several threads.

    Attributes:
        columns: dtype and shape of every column.
        rows_per_chunk: chunk c holds rows c * rows_per_chunk and on.
    """

    columns: dict[str, Column]
    rows_per_chunk: int

    def read_chunk(self, column: str, chunk: int) -> Array:
        """All rows of one chunk, checked."""
        ...


class RecordedChunks(ChunkReader):
    """A `ChunkSource` of the committed shards of a store that need not be sealed, by their payloads."""

    def __init__(self, store: Files, spec: Spec, payloads: Mapping[int, Payload]) -> None:
        super().__init__(store, spec)
        self._payloads = payloads

    def read_chunk(self, column: str, chunk: int) -> Array:
        """See `ChunkSource`. Raises `MissingShard`, `DamagedShard`."""
        shard, number = divmod(chunk, self.spec.cut.rows_per_shard // self.rows_per_chunk)
        return self.read(self._payloads[shard], self.columns[column], number)


def read_rows(source: ChunkSource, name: str, start: int, stop: int) -> Array:
    """Rows `start` to `stop` of a column; each is the first of a chunk, or the end of the store."""
    size = source.rows_per_chunk
    return np.concatenate([source.read_chunk(name, chunk) for chunk in range(start // size, -(-stop // size))])


def gather(
    source: ChunkSource, columns: Sequence[str], rows: Ints, *, lead: Block | None = None, pool: Executor | None = None
) -> Block:
    """The given rows of some columns, in the order given, behind the rows of `lead`: arrays (L + B, ...).

    `pool` reads chunks side by side; the answer does not depend on it.
    """
    first = 0 if lead is None else len(lead[columns[0]])
    kinds = {name: source.columns[name] for name in columns}
    block: Block = {name: np.empty((first + len(rows), *c.shape), c.numpy_dtype) for name, c in kinds.items()}
    order = np.argsort(rows)
    ascending = rows[order]
    distinct = bool((np.diff(ascending) > 0).all())
    chunks = ascending // source.rows_per_chunk
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))

    def put(start: int, end: int) -> None:
        chunk = int(chunks[start])
        inside = ascending[start:end] - chunk * source.rows_per_chunk
        for name in columns:
            values = source.read_chunk(name, chunk)
            whole = distinct and len(values) == len(inside)  # then `inside` counts up and need not be followed
            block[name][first + order[start:end]] = values if whole else values[inside]

    run = map if pool is None else pool.map
    deque(run(put, starts.tolist(), [*starts[1:].tolist(), len(rows)][: len(starts)]), maxlen=0)
    if lead is not None:
        for name in columns:
            block[name][:first] = lead[name]
    return block
