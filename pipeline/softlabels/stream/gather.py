"""Rows of a store's columns in any order, by reading whole chunks, each once. Knows neither inputs nor labels.

What is read lies in memory once: every chunk's rows are put straight to their places in the answer, in which the caller may
keep rows of an earlier call in front (`lead`).

Shape letters: B rows asked for, L rows of the lead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from softlabels.store.columns import Column

Array = NDArray[Any]
Ints = NDArray[np.int64]
Block = dict[str, Array]  # arrays of one length, by name


class ChunkReader(Protocol):
    """What is read of a store: whole chunks of a column. May be asked by several threads."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """Dtype and shape of every column."""
        ...

    @property
    def rows_per_chunk(self) -> int:
        """Chunk c holds rows c * rows_per_chunk and on."""
        ...

    def read_chunk(self, column: str, chunk: int) -> Array:
        """All rows of one chunk, checked."""
        ...


def gather(
    reader: ChunkReader,
    columns: tuple[str, ...],
    rows: Ints,
    *,
    lead: Block | None = None,
    pool: Executor | None = None,
) -> Block:
    """The given rows of some columns, in the order given, behind the rows of `lead`: arrays (L + B, ...).

    `pool` reads chunks side by side; the answer does not depend on it.
    """
    first = 0 if lead is None else len(lead[columns[0]])
    kinds = {name: reader.columns[name] for name in columns}
    block = {name: np.empty((first + len(rows), *kind.shape), kind.numpy_dtype) for name, kind in kinds.items()}
    order = np.argsort(rows)
    ascending = rows[order]
    distinct = bool((np.diff(ascending) > 0).all())
    chunks = ascending // reader.rows_per_chunk
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))

    def put(start: int, end: int) -> None:
        chunk = int(chunks[start])
        inside = ascending[start:end] - chunk * reader.rows_per_chunk
        for name in columns:
            values = reader.read_chunk(name, chunk)
            whole = distinct and len(values) == len(inside)  # then `inside` counts up and need not be followed
            block[name][first + order[start:end]] = values if whole else values[inside]

    run = map if pool is None else pool.map
    deque(run(put, starts.tolist(), [*starts[1:].tolist(), len(rows)][: len(starts)]), maxlen=0)
    if lead is not None:
        for name in columns:
            block[name][:first] = lead[name]
    return block
