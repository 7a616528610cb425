"""Chunks that were read last, kept in memory: for rows in an order in which a chunk is wanted again soon.

Neighbours: `examples.py` reads rows through it, for `dataset.py` and `loader.py`; `store/gather.py` says what reads chunks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from softlabels.store.gather import Array, ChunkSource
from softlabels.stream.examples import Examples


def cached(examples: Examples, limit: int) -> Examples:
    """The same examples, which keep up to `limit` bytes of the chunks that they read of stores."""
    stores = {id(each): each for each in (examples.own, examples.reader) if each is not None}
    caches = {key: ChunkCache(each, limit=limit // len(stores)) for key, each in stores.items()}
    return replace(examples, own=caches.get(id(examples.own)), reader=caches.get(id(examples.reader)))


class ChunkCache:
    """A store's chunks with the most recently used of them in memory, up to `limit` bytes. Several threads may read."""

    def __init__(self, reader: ChunkSource, *, limit: int) -> None:
        self._reader = reader
        self._limit = limit
        self.rows_per_chunk, self.columns = reader.rows_per_chunk, reader.columns
        self._begin()

    def _begin(self) -> None:
        self._bytes = 0
        self._chunks: OrderedDict[tuple[str, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def near(self) -> bool:
        """Whether the store's place is."""
        return self._reader.near

    def ahead(self, columns: Sequence[str], chunks: Sequence[int]) -> None:
        """Those that are not in memory are read next."""
        if self.near:
            return
        with self._lock:
            missing = [chunk for chunk in chunks if any((name, chunk) not in self._chunks for name in columns)]
        self._reader.ahead(columns, missing)

    def read_chunk(self, column: str, chunk: int) -> Array:
        """The chunk as the store reads it."""
        where = (column, chunk)
        with self._lock:
            if where in self._chunks:
                self._chunks.move_to_end(where)
                return self._chunks[where]
        values = self._reader.read_chunk(column, chunk)
        with self._lock:
            if where not in self._chunks:  # another thread may have read it meanwhile
                self._chunks[where] = values
                self._bytes += values.nbytes
            while self._bytes > self._limit and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes
        return values

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process begins empty."""
        return {name: self.__dict__[name] for name in ("_reader", "_limit", "rows_per_chunk", "columns")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._begin()
