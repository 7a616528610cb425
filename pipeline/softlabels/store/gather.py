"""Rows of a store's columns in any order, by reading whole chunks, each once: of a sealed store, of committed shards, of
whatever reads chunks.

What is read lies in memory once: every chunk's rows are put straight to their places in the answer, in which the caller may
keep rows of an earlier call in front (`lead`).

Shape letters: B rows asked for, L rows of the lead, R rows of the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from copy import copy
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from softlabels.store.chunks import ChunkReader
from softlabels.store.columns import Column, stored_name
from softlabels.store.records import Payload
from softlabels.store.spec import Spec
from softlabels.system.buffers import Buffers
from softlabels.system.files import Files

Array = NDArray[Any]
Ints = NDArray[np.int64]
Block = dict[str, Array]  # arrays of one length, by name
IN_A_ROW = 4  # chunks that a thread reads before it asks for the next ones
AT_ONCE = 512  # chunks of a column that are wanted at once


class ChunkSource(Protocol):
    """What is read of a store: whole chunks of a column. May be asked by several threads.

    Attributes:
        columns: dtype and shape of every column.
        rows_per_chunk: chunk c holds rows c * rows_per_chunk and on.
    """

    columns: dict[str, Column]
    rows_per_chunk: int

    @property
    def near(self) -> bool:
        """Whether `ahead` does nothing, since no place is far away."""
        ...

    def ahead(self, columns: Sequence[str], chunks: Sequence[int]) -> None:
        """Which chunks are read next; a place far away fetches them together."""

    def read_chunk(self, column: str, chunk: int) -> Array:
        """All rows of one chunk, checked."""
        ...


class Stored:
    """A `ChunkSource` of a store in `folder`, of all its targets or, by `only`, of one, whose `name` it then has. `spec` and
    `columns` are those of what is looked at; each column keeps the name under which it is stored.
    """

    name = ""

    folder: Files
    spec: Spec
    columns: dict[str, Column]
    rows_per_chunk: int
    _reader: ChunkReader

    @property
    def where(self) -> str:
        """What messages call it."""
        return str(self.folder)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets; "" is the one of a store that has no names for them."""
        return tuple(target.name for target in self.spec.targets)

    def only(self, name: str) -> Self:
        """The same with one target, whose columns are called as those of a store that has no other: `logits`, not
        `NAME.logits`. What was read and checked is shared. Raises `SeveralTargets` where there is none of this name.
        """
        view = copy(self)
        view.name = name
        view.spec = self.spec.only(name)
        view.columns = {column.name: self.columns[stored_name(name, column.name)] for column in view.spec.columns}
        return view

    @property
    def near(self) -> bool:
        """See `ChunkSource`."""
        return self.folder.near

    def ahead(self, columns: Sequence[str], chunks: Sequence[int]) -> None:
        """See `ChunkSource`."""
        if self.near:
            return
        in_shard = self.spec.cut.rows_per_shard // self.rows_per_chunk
        placed = [divmod(chunk, in_shard) for chunk in chunks]
        payloads = self.payloads({shard for shard, _ in placed})
        kinds = [self.columns[name] for name in columns]
        self._reader.ahead((payloads[shard], kind, number) for kind in kinds for shard, number in placed)

    def payloads(self, shards: Collection[int]) -> Mapping[int, Payload]:
        """What the commit records say of some shards."""
        raise NotImplementedError

    def read_chunk(self, column: str, chunk: int) -> Array:
        """See `ChunkSource`. Raises `MissingShard`, `DamagedShard`."""
        raise NotImplementedError


class RecordedChunks(Stored):
    """The committed shards of a store that need not be sealed, by their payloads. See `Stored`. `beat` is called before each
    chunk that is read.
    """

    def __init__(
        self, store: Files, spec: Spec, payloads: Mapping[int, Payload], *, beat: Callable[[], object] = lambda: None
    ) -> None:
        self.folder, self.spec, self._payloads, self._beat = store, spec, payloads, beat
        self._reader = ChunkReader(store, spec)
        self.columns, self.rows_per_chunk = self._reader.columns, spec.cut.rows_per_chunk

    def payloads(self, shards: Collection[int]) -> Mapping[int, Payload]:
        """See `Stored`."""
        return self._payloads

    def read_chunk(self, column: str, chunk: int) -> Array:
        """See `ChunkSource`."""
        self._beat()
        shard, number = divmod(chunk, self.spec.cut.rows_per_shard // self.rows_per_chunk)
        return self._reader.read(self._payloads[shard], self.columns[column], number)

    def close(self) -> None:
        """Let go of all files."""
        self._reader.close()


def read_rows(source: ChunkSource, name: str, start: int, stop: int, beside: Sequence[str] = ()) -> Array:
    """Rows `start` to `stop` of a column; each is the first of a chunk, or the end of the store. The columns `beside` it are
    read after it.
    """
    kind, size = source.columns[name], source.rows_per_chunk
    chunks, found = range(start // size, -(-stop // size)), np.empty((stop - start, *kind.shape), kind.numpy_dtype)
    for first in range(0, len(chunks), AT_ONCE):
        part = chunks[first : first + AT_ONCE]
        source.ahead((name, *beside), part)
        for chunk in part:
            values = source.read_chunk(name, chunk)
            found[chunk * size - start :][: len(values)] = values
    return found


def gather(
    source: ChunkSource,
    columns: Sequence[str],
    rows: Ints,
    *,
    lead: Block | None = None,
    pool: Executor | None = None,
    memory: Buffers | None = None,
) -> Block:
    """The given rows of some columns, in the order given, behind the rows of `lead`: arrays (L + B, ...).

    `pool` reads chunks side by side; the answer does not depend on it. It lies in `memory`.
    """
    first = 0 if lead is None else len(lead[columns[0]])
    kinds = {name: source.columns[name] for name in columns}
    empty = np.empty if memory is None else memory.empty
    block: Block = {name: empty((first + len(rows), *c.shape), c.numpy_dtype) for name, c in kinds.items()}
    chunks = rows // source.rows_per_chunk
    order, starts = _by_chunk(chunks)
    source.ahead(columns, chunks[order[starts]].tolist())

    def put(start: int, end: int) -> None:
        at = order[start:end]
        chunk = int(chunks[at[0]])
        inside, places = rows[at] - chunk * source.rows_per_chunk, None
        for name in columns:
            values = source.read_chunk(name, chunk)
            if places is None:
                places = _places(at, inside, len(values))
            if places is None:
                block[name][first + at] = values[inside]
            else:  # all of it, and nothing need be picked
                block[name][first + places] = values

    def put_some(some: Sequence[tuple[int, int]]) -> None:
        for start, end in some:
            put(start, end)

    cuts = list(pairwise([*starts.tolist(), len(rows)]))
    run = map if pool is None else pool.map
    deque(run(put_some, (cuts[at : at + IN_A_ROW] for at in range(0, len(cuts), IN_A_ROW))), maxlen=0)
    if lead is not None:
        for name in columns:
            block[name][:first] = lead[name]
    return block


def _by_chunk(chunks: Ints) -> tuple[Ints, Ints]:
    """An order (B,) in which rows of one chunk of `chunks` (B,) stand side by side, and where in it each chunk begins."""
    narrow = chunks.astype(np.uint16) if chunks.max(initial=0) < 1 << 16 else chunks  # sorted by counting
    order = np.argsort(narrow, kind="stable")
    return order, np.flatnonzero(np.diff(chunks[order], prepend=-1))


def _places(at: Ints, inside: Ints, count: int) -> Ints | None:
    """Where each of the `count` rows of a chunk is wanted: `inside` (n,) are, at `at` (n,). None unless each is, once."""
    if len(inside) != count:
        return None
    places = np.full(count, -1)
    places[inside] = at
    return places if (places >= 0).all() else None
