"""Reading chunks of committed shards: whole encoded bytes by their place in the commit record, digest checked, decoded
within the declared size, values checked. The way to every value of a store; neither zarr nor Arrow is asked.

Paths are made from numbers, never read from the store, and links are not followed.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import DamagedShard, MissingShard, StrangePath, refused
from softlabels.store.columns import Column
from softlabels.store.digest import blake3_hex
from softlabels.store.layouts import chunk_rows, layout_of
from softlabels.store.positions import check_counts
from softlabels.store.spec import RELABEL, Payload, Spec
from softlabels.system.local import LocalFolder

Array = NDArray[np.generic]
MAX_OPEN_FILES = 128  # of one store, or an eighth of what the process may have open


def open_files() -> int:
    """How many files of a store stay open: there may be several stores, and everything else of the process."""
    return max(1, min(MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))


class ChunkReader:
    """Reads chunks of one store. Safe to use from several threads."""

    def __init__(self, store: LocalFolder, spec: Spec) -> None:
        self.folder = store
        self.spec = spec
        self.layout = layout_of(spec)
        self._positions = next((column for column in spec.columns if column.name == "positions"), spec.columns[0])
        self._handles: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._most = open_files()

    def read(self, payload: Payload, column: Column, chunk: int, *, check: bool = True, values: bool = True) -> Array:
        """Chunk number `chunk` of the shard that `payload` describes: (rows of the chunk, ...). `check` its digest, and whether
        the format allows its `values`.

        Raises:
            MissingShard: the shard's file is gone.
            DamagedShard: its bytes are not those that were committed, or are what the format forbids.
        """
        ragged = self.spec.ragged and column.by_position
        positions = self.read(payload, self._positions, chunk, check=check) if ragged else None
        place = payload.chunks[column.name][chunk]
        name = self.layout.path(column, payload.shard)
        data = self._pread(name, payload, place.offset, place.size)
        if check and blake3_hex(data) != place.blake3:
            raise self.damaged(payload.shard, name, f"chunk {chunk} of column {column.name} differs from its digest")
        try:
            rows = len(chunk_rows(self.spec, payload.shard, chunk))
            found = self.layout.decode(self.spec, column, data.data, rows, positions)  # type: ignore[arg-type]  # int32
            if column.name == "positions":
                check_counts(found, self.spec.positions or 1)  # type: ignore[arg-type]  # int32 by the column
        except ValueError as error:
            raise self.damaged(payload.shard, name, f"chunk {chunk} of column {column.name} {error}") from error
        if values:
            self._check_values(payload, column, chunk, found, name, check=check)
        return found

    def _check_values(
        self, payload: Payload, column: Column, chunk: int, found: Array, name: str, *, check: bool
    ) -> None:
        encoding, classes = self.spec.encoding, self.spec.label_space.classes
        beside = None
        if (name_beside := encoding.beside(column.name, classes)) is not None:
            other = next(other for other in self.spec.columns if other.name == name_beside)
            beside = self.read(payload, other, chunk, check=check)
        start = self.spec.shard_rows(payload.shard).start + chunk_rows(self.spec, payload.shard, chunk).start
        try:
            encoding.check_column(column.name, found, classes, beside=beside, first_row=start)
        except ValueError as error:
            what = f"chunk {chunk} of column {column.name} holds what the format forbids: {error}"
            raise self.damaged(payload.shard, name, what) from error

    def _pread(self, name: str, payload: Payload, offset: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes at `offset` of a shard file."""
        with self._lock:  # only for the handle: a handle evicted by another thread must not be closed while it is read
            handle = os.dup(self._open(name, payload))
        try:
            data = np.empty(size, np.uint8)  # no more than the file holds: its size is that of the record
            done = 0
            while done < size:
                got = os.preadv(handle, [data.data[done:]], offset + done)
                if got == 0:
                    raise self.damaged(payload.shard, name, f"ends at byte {offset + done}")
                done += got
        except OSError as error:
            raise refused(
                f"cannot read {self.folder.at(name)} (shard {payload.shard}): {error.strerror}",
                error,
                else_="check the disk; `softlabels verify` names every damaged shard",
            ) from error
        finally:
            os.close(handle)
        return data

    def _open(self, name: str, payload: Payload) -> int:
        if name in self._handles:
            self._handles.move_to_end(name)
            return self._handles[name]
        handle = self._handles[name] = open_sized(self.folder, name, payload)
        if len(self._handles) > self._most:
            os.close(self._handles.popitem(last=False)[1])
        return handle

    def damaged(self, shard: int, name: str, what: str) -> DamagedShard:
        """The error for damage in one file."""
        return _damaged(self.folder, name, shard, what)

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        with self._lock:
            while self._handles:
                os.close(self._handles.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> tuple[LocalFolder, Spec]:
        return self.folder, self.spec

    def __setstate__(self, state: tuple[LocalFolder, Spec]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a copy in another process opens its own files


def open_plain(store: LocalFolder, name: str, shard: int) -> int:
    """A read-only handle of a shard's file; neither it nor its folder may be a link."""
    try:
        return store.open(name)
    except FileNotFoundError as error:
        raise MissingShard(f"shard {shard} is missing: {store.at(name)} is gone", remedy=RELABEL) from error
    except StrangePath as error:
        raise DamagedShard(f"shard {shard}: {error.what}", remedy=error.remedy) from error
    except OSError as error:
        raise refused(
            f"cannot open {store.at(name)}: {error.strerror}", error, else_="check the disk and permissions"
        ) from error


def open_sized(store: LocalFolder, name: str, payload: Payload) -> int:
    """The same of a file that has the recorded size; `DamagedShard` where it has another."""
    handle = open_plain(store, name, payload.shard)
    size, recorded = os.fstat(handle).st_size, payload.files[name].size
    if size != recorded:
        os.close(handle)
        raise _damaged(store, name, payload.shard, f"has {size} bytes, not the recorded {recorded}")
    return handle


def _damaged(store: LocalFolder, name: str, shard: int, what: str) -> DamagedShard:
    return DamagedShard(f"shard {shard} is damaged: {store.at(name)} {what}", remedy=RELABEL)
