"""Rows of a store for several processes of which each reads a part of the chunks: a chunk is read by one of them, which sends
the others the rows that they are given.

Who reads which chunk follows from the order of the rows, which all know, so nothing is agreed upon: chunks are dealt out as
they are first wanted in a pass, one to each process in turn, and keep their reader to its end. So each reads as many, in a pass
and whenever some are read, within one chunk.

Neighbours: `parts.py` says which rows a process is given, `store/gather.py` reads them.
Shape letters: B rows wanted by all processes, G rows that this one is given, L rows of the lead, W processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from softlabels.errors import SpecMismatch
from softlabels.store.columns import Column
from softlabels.store.gather import Array, Block, ChunkSource, gather
from softlabels.stream.parts import Buffer, Ints, Part
from softlabels.system.buffers import Buffers


@dataclass
class _Dealt:
    """The chunks of one source: the reader of each, -1 where none was wanted yet, and how many were."""

    readers: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    count: int = 0


class Exchange:
    """What a process knows, in one pass, of who reads what. All begin it at the same batch."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._dealt: dict[int, _Dealt] = {}  # by the source's identity

    def readers(self, source: ChunkSource, chunks: Ints) -> Ints:
        """(B,) the rank that reads each of these chunks (B,); deals out those that were never wanted."""
        dealt = self._dealt.setdefault(id(source), _Dealt())
        if (most := int(chunks.max(initial=-1)) + 1) > len(dealt.readers):
            more = max(len(dealt.readers), most - len(dealt.readers))
            dealt.readers = np.concatenate([dealt.readers, np.full(more, -1)])
        fresh = np.flatnonzero(np.bincount(chunks[dealt.readers[chunks] < 0]))  # as np.unique would give, faster
        dealt.readers[fresh] = (dealt.count + np.arange(len(fresh))) % self.part.world
        dealt.count += len(fresh)
        return dealt.readers[chunks]


@dataclass(frozen=True)
class Share:
    """B rows that all processes want together.

    Attributes:
        exchange: of the pass.
        ranks: (B,) the rank that each row is given to.
    """

    exchange: Exchange
    ranks: Ints

    @cached_property
    def own(self) -> Ints:
        """(G,) the places, among the B rows, of those that this process is given."""
        return np.flatnonzero(self.ranks == self.exchange.part.rank)

    def gather(
        self,
        source: ChunkSource,
        columns: Sequence[str],
        rows: Ints,
        *,
        lead: Block | None = None,
        pool: Executor | None = None,
        memory: Buffers | None = None,
    ) -> Block:
        """Some columns of those of `rows` (B,) that this process is given: (L + G, ...), as `store.gather.gather` gives them.
        Meanwhile up to three times as many lie in memory: those given, those sent, and those that were read or came.

        Raises:
            SpecMismatch: another process sends other rows than this one waits for.
        """
        part, kinds = self.exchange.part, {name: source.columns[name] for name in columns}
        readers = self.exchange.readers(source, rows // source.rows_per_chunk)
        read = np.flatnonzero(readers == part.rank)
        read = read[np.argsort(self.ranks[read], kind="stable")]  # rank after rank, and of each in order
        cuts = np.searchsorted(self.ranks[read], np.arange(part.world + 1))
        values = gather(source, columns, rows[read], pool=pool, memory=memory)
        parts = [[each[start:end] for each in values.values()] for start, end in pairwise(cuts)]
        first = 0 if lead is None else len(lead[columns[0]])
        empty = np.empty if memory is None else memory.empty
        block: Block = {name: empty((first + len(self.own), *c.shape), c.numpy_dtype) for name, c in kinds.items()}
        places = [first + np.flatnonzero(readers[self.own] == rank) for rank in range(part.world)]
        _put(block, places[part.rank], parts[part.rank])
        parts[part.rank] = []
        sent = [b"".join(column.data for column in each) for each in parts]
        del values, parts
        for rank, message in enumerate(part.exchange(sent)):
            if rank != part.rank:
                _put(block, places[rank], _unpacked(message, kinds.values(), len(places[rank]), rank))
        if lead is not None:
            for name in columns:
                block[name][:first] = lead[name]
        return block


def _put(block: Block, places: Ints, parts: Iterable[Array]) -> None:
    for values, part in zip(block.values(), parts, strict=True):
        values[places] = part


def _unpacked(message: Buffer, kinds: Collection[Column], count: int, rank: int) -> Iterator[Array]:
    """What process `rank` sent: `count` rows of each column, one column behind the other."""
    size, expected = memoryview(message).nbytes, count * sum(column.row_bytes for column in kinds)
    if size != expected:
        raise SpecMismatch(
            f"process {rank} sent {size} bytes of rows, instead of {expected}: it has other rows",
            remedy="start all processes with the same code, stores, transfer set and recipe",
        )
    at = 0
    for column in kinds:
        flat = np.frombuffer(message, np.uint8, count * column.row_bytes, at)
        yield flat.view(column.numpy_dtype).reshape(count, *column.shape)
        at += flat.nbytes
