"""Reading chunks of committed shards: whole encoded bytes by their place in the commit record, digest checked, decoded
within the declared size, values checked. The way to every value of a store; neither zarr nor Arrow is asked.

Paths are made from numbers, never read from the store, and links are not followed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import DamagedShard, LabelError, MissingShard, StrangePath
from softlabels.store.columns import Column
from softlabels.store.digest import blake3_hex
from softlabels.store.json_files import RELABEL
from softlabels.store.layout import chunk_rows
from softlabels.store.layouts import layout_of
from softlabels.store.positions import check_counts
from softlabels.store.records import Payload
from softlabels.store.spec import Spec
from softlabels.store.values import beside, check_column
from softlabels.system.buffers import Buffers
from softlabels.system.files import File, Files

Array = NDArray[np.generic]
KEPT = Buffers(1 << 23)  # memory that chunks were read into, kept for the next ones of whatever store


class ChunkReader:
    """Reads chunks of one store. Safe to use from several threads."""

    def __init__(self, store: Files, spec: Spec) -> None:
        self.folder = store
        self.spec = spec
        self.layout = layout_of(spec)
        self.columns = {column.name: column for column in spec.columns}
        self.rows_per_chunk = spec.cut.rows_per_chunk
        self._open: OrderedDict[str, File] = OrderedDict()
        self._lock, self._most = threading.Lock(), store.most_files()

    def ahead(self, parts: Iterable[tuple[Payload, Column, int]]) -> None:
        """Which chunks of shards are read next, see `Files.ahead`."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        for payload, column, chunk in parts:
            for each in self._read_with(column):
                place = payload.chunks[each.name][chunk]
                end = place.offset + place.size
                ranges.setdefault(self.layout.path(each, payload.shard), []).append((place.offset, end))
        self.folder.ahead(ranges)

    def _read_with(self, column: Column) -> Iterator[Column]:
        """A column, and those without which a chunk of it cannot be read."""
        yield column
        if self.spec.ragged and column.by_position:
            yield self.columns["positions"]
        if (name := beside(self.spec, column.name)) is not None:
            yield self.columns[name]

    def read(self, payload: Payload, column: Column, chunk: int, *, check: bool = True, values: bool = True) -> Array:
        """Chunk number `chunk` of the shard that `payload` describes: (rows of the chunk, ...). `check` its digest, and whether
        the format allows its `values`.

        Raises:
            MissingShard: the shard's file is gone.
            DamagedShard: its bytes are not those that were committed, or are what the format forbids.
        """
        ragged = self.spec.ragged and column.by_position
        positions = self.read(payload, self.columns["positions"], chunk, check=check) if ragged else None
        place = payload.chunks[column.name][chunk]
        name = self.layout.path(column, payload.shard)
        data = self._bytes(name, payload, place.offset, place.size)
        if check and blake3_hex(data) != place.blake3:
            raise _damaged(
                self.folder, name, payload.shard, f"chunk {chunk} of column {column.name} differs from its digest"
            )
        try:
            rows = len(chunk_rows(self.spec, payload.shard, chunk))
            found = self.layout.decode(self.spec, column, data.data, rows, positions)  # type: ignore[arg-type]  # int32
            if column.name == "positions":
                check_counts(found, self.spec.positions or 1)  # type: ignore[arg-type]  # int32 by the column
        except ValueError as error:
            raise _damaged(
                self.folder, name, payload.shard, f"chunk {chunk} of column {column.name} {error}"
            ) from error
        if values:
            self._check_values(payload, column, chunk, found, name, check=check)
        return found

    def _check_values(
        self, payload: Payload, column: Column, chunk: int, found: Array, name: str, *, check: bool
    ) -> None:
        others = None
        if (name_beside := beside(self.spec, column.name)) is not None:
            others = self.read(payload, self.columns[name_beside], chunk, check=check)
        start = self.spec.shard_rows(payload.shard).start + chunk_rows(self.spec, payload.shard, chunk).start
        try:
            check_column(self.spec, column.name, found, others=others, first_row=start)
        except (ValueError, LabelError) as error:
            said = error.what if isinstance(error, LabelError) else error
            what = f"chunk {chunk} of column {column.name} holds what the format forbids: {said}"
            raise _damaged(self.folder, name, payload.shard, what) from error

    def _bytes(self, name: str, payload: Payload, offset: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes at `offset` of a shard file."""
        self.folder.ahead({name: [(offset, offset + size)]})
        file = self._file(name, payload)
        data = KEPT.empty((size,), np.uint8)  # no more than the file holds: its size is that of the record
        got = file.read_into(offset, data.data)
        if got < size:
            raise _damaged(self.folder, name, payload.shard, f"ends at byte {offset + got}")
        return data

    def _file(self, name: str, payload: Payload) -> File:
        with self._lock:
            if name not in self._open:
                self._open[name] = open_sized(self.folder, name, payload)
            self._open.move_to_end(name)
            file = self._open[name]
            if len(self._open) > self._most:
                self._open.popitem(last=False)  # it stays open while another thread reads it
            return file

    def close(self) -> None:
        """Let go of all files; they are opened again when needed."""
        with self._lock:
            self._open.clear()

    def __getstate__(self) -> tuple[Files, Spec]:
        return self.folder, self.spec

    def __setstate__(self, state: tuple[Files, Spec]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a copy in another process opens its own files


def open_sized(store: Files, name: str, payload: Payload) -> File:
    """A shard's file, open for reading; neither it nor its folder may be a link, and its size must be the recorded one."""
    shard = payload.shard
    try:
        file = store.file(name)
        size = file.size
    except FileNotFoundError as error:
        raise MissingShard(f"shard {shard} is missing: {store.at(name)} is gone", remedy=RELABEL) from error
    except StrangePath as error:
        raise DamagedShard(f"shard {shard}: {error.what}", remedy=error.remedy) from error
    if size != payload.files[name].size:
        what = f"has {size} bytes, not the recorded {payload.files[name].size}"
        raise _damaged(store, name, shard, what)
    return file


def _damaged(store: Files, name: str, shard: int, what: str) -> DamagedShard:
    return DamagedShard(f"shard {shard} is damaged: {store.at(name)} {what}", remedy=RELABEL)
